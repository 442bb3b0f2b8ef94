//! The database as its users see it.

use std::sync::Arc;

use minke_cloud_fleet::Verb;
use minke_common_odata::{Key, Literal, Request};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use crate::caller::Caller;
use crate::compile::{Compiler, Read};
use crate::error::{Error, Result};
use crate::generation::Moved;
use crate::report::Reports;
use crate::store::{Session, Store};
use crate::{generation, seed, write};

/// A row just made.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// Its primary key.
    pub id: i64,
    /// All its fields, as the caller may name them.
    pub row: Value,
}

/// Handle on the database; clones share the connections.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) store: Store,
    pub(crate) reports: Reports,
}

/// A transaction; dropped without [`Tx::commit`] it leaves nothing behind. After a write that failed
/// it can only be dropped.
#[derive(Debug)]
pub struct Tx {
    pub(crate) session: Session,
    failed: bool,
}

impl Db {
    /// Opens, migrates and seeds: `sqlite:///path/minke.db` or `postgres://…`.
    pub async fn open(url: &str) -> Result<Self> {
        let store = Store::open(url).await?;
        let mut session = store.write().await?;
        seed::run(&mut session).await?;
        session.commit().await?;
        let reports = Reports::start(store.clone());
        Ok(Self { store, reports })
    }

    /// The same database as seen and written at `time` (ms since the epoch) whatever the clock says:
    /// for tests and for bringing in rows of the past.
    pub fn at(&self, time: i64) -> Self {
        let store = self.store.at(time);
        Self { reports: Reports::start(store.clone()), store }
    }

    /// Statements sent so far, without those that begin and end transactions.
    pub fn statements(&self) -> u64 {
        self.store.statements()
    }

    /// Ends all connections, for a shutdown that waits for them.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Begins a transaction. On SQLite it is the only one that writes.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(Tx { session: self.store.write().await?, failed: false })
    }

    /// Value of "d": an array of rows, or a number for `$count`. One statement.
    pub async fn get(&self, caller: &Caller, request: &Request) -> Result<Value> {
        get(&mut self.store.read().await?, caller, request).await
    }

    /// Makes a row.
    pub async fn post(
        &self,
        caller: &Caller,
        resource: &str,
        body: &Map<String, Value>,
    ) -> Result<Created> {
        let mut tx = self.begin().await?;
        let created = tx.post(caller, resource, body).await?;
        tx.commit().await?;
        Ok(created)
    }

    /// Changes the addressed rows; gives how many. More than 500 rows are changed in several
    /// transactions, so that other writers get their turn: each row whole, not all at once.
    pub async fn patch(
        &self,
        caller: &Caller,
        request: &Request,
        body: &Map<String, Value>,
    ) -> Result<u64> {
        let mut done = 0;
        for part in self.parts(caller, request, Verb::Update).await? {
            let mut tx = self.begin().await?;
            done += tx.patch(caller, &part, body).await?;
            tx.commit().await?;
        }
        Ok(done)
    }

    /// Makes or changes the row of a natural key.
    pub async fn put(
        &self,
        caller: &Caller,
        request: &Request,
        body: &Map<String, Value>,
    ) -> Result<u64> {
        let mut tx = self.begin().await?;
        let done = tx.put(caller, request, body).await?;
        tx.commit().await?;
        Ok(done)
    }

    /// Removes the addressed rows; gives how many. In parts, as [`Db::patch`].
    pub async fn delete(&self, caller: &Caller, request: &Request) -> Result<u64> {
        let mut done = 0;
        for part in self.parts(caller, request, Verb::Delete).await? {
            let mut tx = self.begin().await?;
            done += tx.delete(caller, &part).await?;
            tx.commit().await?;
        }
        Ok(done)
    }

    /// The request itself, or one request for each part of its rows when they are many.
    async fn parts(&self, caller: &Caller, request: &Request, verb: Verb) -> Result<Vec<Request>> {
        if matches!(request.key, Some(Key::Id(_))) {
            return Ok(vec![request.clone()]);
        }
        let mut session = self.store.read().await?;
        let ids = write::addressed(&mut session, caller, request, verb).await?;
        if ids.len() <= write::CHUNK {
            return Ok(vec![request.clone()]);
        }
        let part = |ids: &[i64]| {
            let list = ids.iter().map(|id| literal(Literal::Integer(*id))).collect();
            let id =
                minke_common_odata::Expr::Path(minke_common_odata::Path(vec!["id".to_owned()]));
            let mine = minke_common_odata::Expr::In { value: Box::new(id), list };
            let mut part = request.clone();
            part.options.filter = Some(match part.options.filter.take() {
                Some(filter) => minke_common_odata::Expr::Binary {
                    op: minke_common_odata::Binary::And,
                    left: Box::new(filter),
                    right: Box::new(mine),
                },
                None => mine,
            });
            part
        };
        Ok(ids.chunks(write::CHUNK).map(part).collect())
    }

    /// From now on, what each committed write moved: whose target state may say something else.
    pub fn moved(&self) -> broadcast::Receiver<Moved> {
        self.store.moved()
    }

    /// Opaque text that changes with whatever the device's target state may say; `None`: no such
    /// device.
    pub async fn state_generation(&self, device: i64) -> Result<Option<String>> {
        generation::of_device(&mut self.store.read().await?, device).await
    }
}

fn literal(value: Literal) -> minke_common_odata::Expr {
    minke_common_odata::Expr::Literal(value)
}

impl Tx {
    /// Makes it so.
    pub async fn commit(self) -> Result<()> {
        if self.failed {
            return Err(Error::Corrupt("a transaction that failed cannot be committed".to_owned()));
        }
        self.session.commit().await
    }

    /// As [`Db::get`]; sees what this transaction wrote.
    pub async fn get(&mut self, caller: &Caller, request: &Request) -> Result<Value> {
        let done = get(&mut self.session, caller, request).await;
        self.note(done)
    }

    /// As [`Db::post`].
    pub async fn post(
        &mut self,
        caller: &Caller,
        resource: &str,
        body: &Map<String, Value>,
    ) -> Result<Created> {
        let done = write::insert(&mut self.session, caller, resource, body).await;
        self.note(done)
    }

    /// Changes the addressed rows, all in this transaction; gives how many.
    pub async fn patch(
        &mut self,
        caller: &Caller,
        request: &Request,
        body: &Map<String, Value>,
    ) -> Result<u64> {
        let done = write::update(&mut self.session, caller, request, body).await;
        self.note(done)
    }

    /// As [`Db::put`].
    pub async fn put(
        &mut self,
        caller: &Caller,
        request: &Request,
        body: &Map<String, Value>,
    ) -> Result<u64> {
        let done = write::put(&mut self.session, caller, request, body).await;
        self.note(done)
    }

    /// Removes the addressed rows, all in this transaction; gives how many.
    pub async fn delete(&mut self, caller: &Caller, request: &Request) -> Result<u64> {
        let done = write::delete(&mut self.session, caller, request).await;
        self.note(done)
    }

    pub(crate) fn note<T>(&mut self, done: Result<T>) -> Result<T> {
        self.failed |= done.is_err();
        done
    }
}

pub(crate) async fn get(
    session: &mut Session,
    caller: &Caller,
    request: &Request,
) -> Result<Value> {
    let shared = Arc::clone(&session.shared);
    let aliases = &request.options.aliases;
    let mut compiler = Compiler::new(session.engine(), caller, &shared.rules, session.now, aliases);
    match compiler.read(request)? {
        Read::Count(select) => {
            let counts = session.integers("counting rows", select).await?;
            Ok(json!(counts.first().copied().unwrap_or_default()))
        }
        Read::Rows(select, shape) => {
            let texts = session.texts("reading rows", select).await?;
            let rows = texts.into_iter().flatten().map(|text| shape.decode(&text));
            rows.collect::<Result<Vec<_>>>().map(Value::Array)
        }
    }
}
