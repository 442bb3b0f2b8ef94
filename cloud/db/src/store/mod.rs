//! Connections and statements: the one place where SQL leaves this program.
//!
//! SQLite: one connection writes, several read (WAL, `synchronous=FULL`, `BEGIN IMMEDIATE`).
//! PostgreSQL: one pool. Every statement is counted, so tests can state how many a request takes.

mod deadline;
mod fault;
mod migrate;
mod statement;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgPool, Postgres, Row, Sqlite, SqlitePool, Transaction,
};
use tokio::sync::broadcast;

pub(crate) use statement::Statement;

use self::deadline::Deadline;
use crate::cell::Cell;
use crate::compile::Rules;
use crate::error::{Error, Result};
use crate::generation::Moved;

/// Which SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Debug, Clone)]
enum Pools {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(PgPool),
}

/// The connections to one database; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pools: Pools,
    shared: Arc<Shared>,
    /// The time that every session believes, in place of the clock's.
    time: Option<i64>,
    /// Longest time of one statement.
    limit: Duration,
}

/// What all sessions of a database share.
#[derive(Debug)]
pub(crate) struct Shared {
    statements: AtomicU64,
    moved: broadcast::Sender<Moved>,
    /// Permission texts that were read before.
    pub(crate) rules: Rules,
}

/// Commits that a slow receiver may be behind before it is told that it missed some.
const MOVED: usize = 1024;

impl Shared {
    fn new() -> Self {
        let (moved, _) = broadcast::channel(MOVED);
        Self { statements: AtomicU64::new(0), moved, rules: Rules::default() }
    }
}

/// Most bytes of all texts that one statement gives.
const MAX_TEXTS: usize = 128 * 1024 * 1024;
/// Rows of a read that SQLite is ahead of us; each may be large.
const AHEAD: usize = 16;

const READERS: u32 = 8;
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a server that does not answer, or a pool without a free connection, is waited for.
const CONNECT: Duration = Duration::from_secs(8);
const BUSY: Duration = Duration::from_secs(30);

impl Store {
    /// Opens the database that `url` names and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_limited(url, deadline::LIMIT).await
    }

    async fn open_limited(url: &str, limit: Duration) -> Result<Self> {
        let pools = Pools::open(url, limit).await?;
        let store = Self { pools, shared: Arc::new(Shared::new()), time: None, limit };
        let mut session = store.write().await?;
        session.lift_limit().await?;
        migrate::run(&mut session).await?;
        session.commit().await?;
        Ok(store)
    }

    /// The same database for sessions that believe it is `time`.
    pub fn at(&self, time: i64) -> Self {
        Self { time: Some(time), ..self.clone() }
    }

    /// A session that only reads; each statement sees one state of the database.
    pub async fn read(&self) -> Result<Session> {
        let failed = || Error::storage("taking a connection to read");
        match &self.pools {
            Pools::Sqlite { readers, .. } => {
                let mut reader = readers.acquire().await.map_err(failed())?;
                let deadline = Deadline::watch(&mut reader).await.map_err(failed())?;
                Ok(self.session(Link::Sqlite(reader), Some(deadline)))
            }
            Pools::Postgres(pool) => {
                Ok(self.session(Link::Postgres(pool.acquire().await.map_err(failed())?), None))
            }
        }
    }

    /// A session inside a new transaction.
    pub async fn write(&self) -> Result<Session> {
        let failed = || Error::storage("beginning a transaction");
        match &self.pools {
            Pools::Sqlite { writer, .. } => {
                let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
                let deadline = Deadline::watch(&mut tx).await.map_err(failed())?;
                Ok(self.session(Link::SqliteTx(tx), Some(deadline)))
            }
            Pools::Postgres(pool) => {
                Ok(self.session(Link::PostgresTx(pool.begin().await.map_err(failed())?), None))
            }
        }
    }

    fn session(&self, link: Link, deadline: Option<Deadline>) -> Session {
        Session {
            link,
            deadline,
            limit: self.limit,
            shared: Arc::clone(&self.shared),
            now: self.time.unwrap_or_else(crate::cell::now),
            pending: Pending::default(),
            moved: Moved::default(),
        }
    }

    /// Statements sent so far, without those that begin and end transactions.
    pub fn statements(&self) -> u64 {
        self.shared.statements.load(Ordering::Relaxed)
    }

    /// From now on, what each commit moved.
    pub fn moved(&self) -> broadcast::Receiver<Moved> {
        self.shared.moved.subscribe()
    }

    /// Ends all connections; whoever waits for one gets an error.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

impl Pools {
    async fn open(url: &str, limit: Duration) -> Result<Self> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url, limit).await
        } else {
            Self::open_sqlite(url).await
        }
    }

    async fn open_postgres(url: &str, limit: Duration) -> Result<Self> {
        let options: PgConnectOptions =
            url.parse().map_err(Error::storage("opening the database"))?;
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(CONNECT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let limited = format!("SET statement_timeout = {}", limit.as_millis());
                    connection.execute(AssertSqlSafe(limited)).await.map(drop)
                })
            })
            .connect_with(options)
            .await
            .map_err(Error::storage("connecting to PostgreSQL"))?;
        Ok(Self::Postgres(pool))
    }

    async fn open_sqlite(url: &str) -> Result<Self> {
        let options: SqliteConnectOptions =
            url.parse().map_err(Error::storage("opening the database"))?;
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .create_if_missing(true);
        let failed = || Error::storage("opening the SQLite database");
        // A COMMIT that fails (disk full) ends the transaction for SQLite but not for the driver,
        // which then begins none ever again: such a connection is replaced.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .after_release(|connection, _| {
                Box::pin(async move {
                    deadline::release(connection).await?;
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(options.clone())
            .await
            .map_err(failed())?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .after_release(|connection, _| {
                Box::pin(async move { deadline::release(connection).await.map(|()| true) })
            })
            .connect_with(
                options.create_if_missing(false).row_buffer_size(AHEAD).pragma("query_only", "1"),
            )
            .await
            .map_err(failed())?;
        Ok(Self::Sqlite { writer, readers })
    }
}

#[derive(Debug)]
enum Link {
    Sqlite(PoolConnection<Sqlite>),
    SqliteTx(Transaction<'static, Sqlite>),
    Postgres(PoolConnection<Postgres>),
    PostgresTx(Transaction<'static, Postgres>),
}

/// What the rule before a write leaves for the rule after it.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Users whose access is to be computed anew.
    pub users: Vec<i64>,
    /// Whether a release got its revision.
    pub finalised: bool,
}

/// A connection in use, with the time of its request.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    /// Of the statement that runs, where the engine does not keep the time itself.
    deadline: Option<Deadline>,
    /// Longest time of one statement.
    limit: Duration,
    pub(crate) shared: Arc<Shared>,
    /// Milliseconds since the epoch, the same for the whole session.
    pub(crate) now: i64,
    /// What a write must compute anew when it is done; see [`Pending`].
    pub(crate) pending: Pending,
    /// Whose state generation this transaction has moved.
    pub(crate) moved: Moved,
}

/// Runs `$query` (of either engine) on whichever connection the session holds.
macro_rules! on_link {
    ($session:expr, $statement:expr, $run:ident) => {{
        let engine = $session.engine();
        let (sql, values) = $statement.into().build(engine);
        $session.shared.statements.fetch_add(1, Ordering::Relaxed);
        tracing::trace!(sql, "statement");
        let sql = AssertSqlSafe(sql);
        if let Some(deadline) = &$session.deadline {
            deadline.begin($session.limit);
        }
        let done = match &mut $session.link {
            Link::Sqlite(c) => $run!(sqlx::query_with::<Sqlite, _>(sql, values), &mut **c),
            Link::SqliteTx(c) => $run!(sqlx::query_with::<Sqlite, _>(sql, values), &mut **c),
            Link::Postgres(c) => $run!(sqlx::query_with::<Postgres, _>(sql, values), &mut **c),
            Link::PostgresTx(c) => $run!(sqlx::query_with::<Postgres, _>(sql, values), &mut **c),
        };
        if let Some(deadline) = &$session.deadline {
            deadline.end();
        }
        done
    }};
}

macro_rules! run_execute {
    ($query:expr, $connection:expr) => {
        $query.execute($connection).await.map(|done| done.rows_affected())
    };
}

macro_rules! run_texts {
    ($query:expr, $connection:expr) => {{
        let mut left = MAX_TEXTS;
        let texts = $query.try_map(|row| {
            let text = row.try_get::<Option<String>, _>(0)?;
            let length = text.as_ref().map_or(0, String::len);
            left = left.checked_sub(length).ok_or_else(|| fault::too_much(MAX_TEXTS))?;
            Ok(text)
        });
        texts.fetch_all($connection).await
    }};
}

macro_rules! run_integers {
    ($query:expr, $connection:expr) => {
        $query.fetch_all($connection).await.and_then(|rows| {
            rows.iter().map(|row| row.try_get::<i64, _>(0)).collect::<sqlx::Result<_>>()
        })
    };
}

impl Session {
    pub fn engine(&self) -> Engine {
        match self.link {
            Link::Sqlite(_) | Link::SqliteTx(_) => Engine::Sqlite,
            Link::Postgres(_) | Link::PostgresTx(_) => Engine::Postgres,
        }
    }

    /// Lets the statements of this transaction run for as long as they need.
    async fn lift_limit(&mut self) -> Result<()> {
        self.deadline = None;
        if self.engine() == Engine::Postgres {
            let lift = "SET LOCAL statement_timeout = 0";
            self.run("lifting the limit of statements", lift, []).await?;
        }
        Ok(())
    }

    /// Runs a statement; gives the number of rows it touched.
    pub async fn execute(
        &mut self,
        action: &'static str,
        statement: impl Into<Statement>,
    ) -> Result<u64> {
        let done: sqlx::Result<u64> = on_link!(self, statement, run_execute);
        done.map_err(|error| fault::explain(action, self.limit, error))
    }

    /// Runs a statement; gives the texts of its first column.
    pub async fn texts(
        &mut self,
        action: &'static str,
        statement: impl Into<Statement>,
    ) -> Result<Vec<Option<String>>> {
        let rows: sqlx::Result<Vec<Option<String>>> = on_link!(self, statement, run_texts);
        rows.map_err(|error| fault::explain(action, self.limit, error))
    }

    /// Runs a statement; gives the whole numbers of its first column.
    pub async fn integers(
        &mut self,
        action: &'static str,
        statement: impl Into<Statement>,
    ) -> Result<Vec<i64>> {
        let rows: sqlx::Result<Vec<i64>> = on_link!(self, statement, run_integers);
        rows.map_err(|error| fault::explain(action, self.limit, error))
    }

    /// Ends the transaction, keeping what it did.
    pub async fn commit(self) -> Result<()> {
        let failed = Error::storage("committing a transaction");
        match self.link {
            Link::SqliteTx(tx) => tx.commit().await.map_err(failed)?,
            Link::PostgresTx(tx) => tx.commit().await.map_err(failed)?,
            Link::Sqlite(_) | Link::Postgres(_) => {}
        }
        if self.moved != Moved::default() {
            // Nobody listening is no fault.
            let _ = self.shared.moved.send(self.moved);
        }
        Ok(())
    }
}

impl Session {
    /// Runs `SELECT columns rest`; gives each row as JSON values: numbers, texts, nulls, and 0 or 1
    /// or booleans for conditions.
    pub async fn rows(
        &mut self,
        action: &'static str,
        columns: &str,
        rest: &str,
        values: impl IntoIterator<Item = Cell>,
    ) -> Result<Vec<Vec<Value>>> {
        let sql = match self.engine() {
            Engine::Sqlite => format!("SELECT json_array({columns}) {rest}"),
            Engine::Postgres => format!("SELECT CAST(json_build_array({columns}) AS TEXT) {rest}"),
        };
        let texts = self.texts(action, Statement::raw(sql, values)).await?;
        let rows = texts.into_iter().flatten().map(|text| serde_json::from_str(&text));
        rows.collect::<serde_json::Result<_>>()
            .map_err(|error| Error::Corrupt(format!("{action}: {error}")))
    }

    /// Runs a text statement that gives no rows.
    pub async fn run(
        &mut self,
        action: &'static str,
        sql: &str,
        values: impl IntoIterator<Item = Cell>,
    ) -> Result<u64> {
        self.execute(action, Statement::raw(sql, values)).await
    }
}

/// Ids as the inside of an `IN (…)`; numbers cannot be anything else.
pub(crate) fn list(ids: &[i64]) -> String {
    let texts: Vec<String> = ids.iter().map(i64::to_string).collect();
    if texts.is_empty() { "NULL".to_owned() } else { texts.join(", ") }
}
