//! Connections and statements: the one place where SQL leaves this program.
//!
//! SQLite: one connection writes, several read (WAL, `synchronous=FULL`, `BEGIN IMMEDIATE`).
//! PostgreSQL: one pool. Every statement is counted, so tests can state how many a request takes.

mod fault;
mod migrate;
mod statement;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, PgPool, Postgres, Row, Sqlite, SqlitePool, Transaction};
use tokio::sync::broadcast;

pub(crate) use statement::Statement;

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

const READERS: u32 = 8;
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a server that does not answer, or a pool without a free connection, is waited for.
const CONNECT: Duration = Duration::from_secs(8);
const BUSY: Duration = Duration::from_secs(30);

impl Store {
    /// Opens the database that `url` names and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Self> {
        let store =
            Self { pools: Pools::open(url).await?, shared: Arc::new(Shared::new()), time: None };
        let mut session = store.write().await?;
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
        let failed = Error::storage("taking a connection to read");
        let link = match &self.pools {
            Pools::Sqlite { readers, .. } => Link::Sqlite(readers.acquire().await.map_err(failed)?),
            Pools::Postgres(pool) => Link::Postgres(pool.acquire().await.map_err(failed)?),
        };
        Ok(self.session(link))
    }

    /// A session inside a new transaction.
    pub async fn write(&self) -> Result<Session> {
        let failed = Error::storage("beginning a transaction");
        let link = match &self.pools {
            Pools::Sqlite { writer, .. } => {
                Link::SqliteTx(writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?)
            }
            Pools::Postgres(pool) => Link::PostgresTx(pool.begin().await.map_err(failed)?),
        };
        Ok(self.session(link))
    }

    fn session(&self, link: Link) -> Session {
        Session {
            link,
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
    async fn open(url: &str) -> Result<Self> {
        let failed = Error::storage("opening the database");
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options: PgConnectOptions = url.parse().map_err(failed)?;
            let pool = PgPoolOptions::new()
                .max_connections(POSTGRES_CONNECTIONS)
                .acquire_timeout(CONNECT)
                .connect_with(options)
                .await
                .map_err(Error::storage("connecting to PostgreSQL"))?;
            return Ok(Self::Postgres(pool));
        }
        let options: SqliteConnectOptions = url.parse().map_err(failed)?;
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
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(options.clone())
            .await
            .map_err(failed())?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.create_if_missing(false).pragma("query_only", "1"))
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
        match &mut $session.link {
            Link::Sqlite(c) => $run!(sqlx::query_with(sql, values), &mut **c),
            Link::SqliteTx(c) => $run!(sqlx::query_with(sql, values), &mut **c),
            Link::Postgres(c) => $run!(sqlx::query_with(sql, values), &mut **c),
            Link::PostgresTx(c) => $run!(sqlx::query_with(sql, values), &mut **c),
        }
    }};
}

macro_rules! run_execute {
    ($query:expr, $connection:expr) => {
        $query.execute($connection).await.map(|done| done.rows_affected())
    };
}

macro_rules! run_texts {
    ($query:expr, $connection:expr) => {
        $query.fetch_all($connection).await.and_then(|rows| {
            rows.iter().map(|row| row.try_get::<Option<String>, _>(0)).collect::<sqlx::Result<_>>()
        })
    };
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

    /// Runs a statement; gives the number of rows it touched.
    pub async fn execute(
        &mut self,
        action: &'static str,
        statement: impl Into<Statement>,
    ) -> Result<u64> {
        let done: sqlx::Result<u64> = on_link!(self, statement, run_execute);
        done.map_err(|error| fault::explain(action, error))
    }

    /// Runs a statement; gives the texts of its first column.
    pub async fn texts(
        &mut self,
        action: &'static str,
        statement: impl Into<Statement>,
    ) -> Result<Vec<Option<String>>> {
        let rows: sqlx::Result<Vec<Option<String>>> = on_link!(self, statement, run_texts);
        rows.map_err(|error| fault::explain(action, error))
    }

    /// Runs a statement; gives the whole numbers of its first column.
    pub async fn integers(
        &mut self,
        action: &'static str,
        statement: impl Into<Statement>,
    ) -> Result<Vec<i64>> {
        let rows: sqlx::Result<Vec<i64>> = on_link!(self, statement, run_integers);
        rows.map_err(|error| fault::explain(action, error))
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
