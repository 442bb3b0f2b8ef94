//! Two databases of one program: SQLite in a temporary directory, and PostgreSQL on a server that
//! the test starts, on a socket in that directory, and stops again.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]

mod fixture;
pub mod owner;
mod postgres;

use std::path::PathBuf;

use minke_cloud_db::{Caller, Created, Db, Result};
use minke_common_odata::{Request, parse};
use serde_json::{Map, Value};
use tempfile::TempDir;

pub use fixture::fill;

/// When everything in these tests happens: 2026-11-21T04:00:00Z.
pub const NOW: i64 = 1_795_233_600_000;

/// The same rows on both engines.
pub struct Twins {
    pub sqlite: Db,
    pub postgres: Db,
    // Dropped last, in this order: the server, then the directory it lives in.
    server: postgres::Server,
    _directory: TempDir,
}

impl Twins {
    pub async fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let server = postgres::Server::start(directory.path());
        // One time for both, or every answer would differ in it.
        let sqlite = open_sqlite(&directory).await.at(NOW);
        let postgres = Db::open(&server.url()).await.expect("PostgreSQL opens").at(NOW);
        Self { sqlite, postgres, server, _directory: directory }
    }

    /// Where another program would find the PostgreSQL database.
    pub fn postgres_url(&self) -> String {
        self.server.url()
    }

    pub fn both(&self) -> [(&'static str, &Db); 2] {
        [("SQLite", &self.sqlite), ("PostgreSQL", &self.postgres)]
    }

    /// Runs a read on both; gives the one answer, or the one error's text.
    pub async fn get(&self, caller: &Caller, request: &str) -> std::result::Result<Value, String> {
        let request = read(request);
        let mut answers = Vec::new();
        for (name, db) in self.both() {
            let before = db.statements();
            let answer = db.get(caller, &request).await;
            if answer.is_ok() {
                assert_eq!(db.statements() - before, 1, "{name}: {request}");
            }
            answers.push(answer.map_err(said));
        }
        let (one, other) = (answers.remove(0), answers.remove(0));
        assert_eq!(one, other, "SQLite (left) and PostgreSQL (right): {request}");
        one
    }
}

/// An error with its causes; the storage's own words are the engine's, so they are no part of it.
pub fn said(error: minke_cloud_db::Error) -> String {
    assert!(error.status() < 500, "{}", chain(&error));
    error.to_string()
}

pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

pub fn read(request: &str) -> Request {
    parse(request).unwrap_or_else(|error| panic!("{request}: {error}"))
}

pub async fn open_sqlite(directory: &TempDir) -> Db {
    let path: PathBuf = directory.path().join("minke.db");
    Db::open(&format!("sqlite://{}", path.display())).await.expect("SQLite opens")
}

pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

/// POSTs as the server itself.
pub async fn post(db: &Db, resource: &str, body: Value) -> Result<Created> {
    db.post(&Caller::root(), resource, &object(body)).await
}
