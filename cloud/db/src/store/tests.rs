//! Statements that run too long, on both engines.

#[path = "../../tests/support/postgres.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod postgres;

use std::time::Duration;

use super::{Engine, Session, Statement, Store};
use crate::cell::Cell;
use crate::error::Error;

/// A statement that would run for years.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000000) SELECT COUNT(*) FROM n";

async fn endless(session: &mut Session) -> Error {
    let counting = session.integers("counting", Statement::raw(ENDLESS, []));
    counting.await.expect_err("it has no end")
}

async fn ends_what_is_endless(url: &str) {
    let store = Store::open_limited(url, Duration::from_millis(200)).await.expect("it opens");
    let mut reads = store.read().await.expect("a session");
    let mut writes = store.write().await.expect("a transaction");
    for error in [endless(&mut reads).await, endless(&mut writes).await] {
        assert!(matches!(error, Error::TooSlow { .. }), "{error:?}");
        assert_eq!(error.status(), 503);
        assert!(error.to_string().contains("200 ms"), "{error}");
    }
    if reads.engine() == Engine::Sqlite {
        // PostgreSQL takes nothing more in a transaction that failed.
        writes
            .run("noting", "UPDATE \"migration\" SET \"name\" = \"name\"", [])
            .await
            .expect("a write");
    }
    drop((reads, writes));
    // The connections are as good as new, and short statements are not stopped by an old deadline.
    for _ in 0..20 {
        let mut writes = store.write().await.expect("a transaction");
        let one =
            writes.integers("asking", Statement::raw("SELECT COUNT(*) FROM \"migration\"", []));
        assert!(one.await.expect("an answer")[0] > 0);
        writes.commit().await.expect("a commit");
    }
    // An asker who goes away leaves nothing running for ever: all connections come back.
    for _ in 0..40 {
        let mut reads = store.read().await.expect("a session");
        let asking = tokio::time::timeout(Duration::from_millis(1), endless(&mut reads));
        assert!(asking.await.is_err(), "still counting");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_without_end_is_stopped_and_leaves_its_connection_usable() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("minke.db");
    ends_what_is_endless(&format!("sqlite://{}?mode=rwc", path.display())).await;
    let server = postgres::Server::start(directory.path());
    ends_what_is_endless(&server.url()).await;
}

async fn refuses_too_much(url: &str) {
    let store = Store::open(url).await.expect("it opens");
    let megabyte = || Cell::from("x".repeat(1024 * 1024));
    let texts = |count: usize| {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT CAST($1 AS TEXT) FROM n"
        );
        Statement::raw(sql, [megabyte()])
    };
    let mut reads = store.read().await.expect("a session");
    let error = reads.texts("reading rows", texts(129)).await.expect_err("129 MB");
    assert_eq!(error.status(), 400);
    assert!(error.to_string().contains("more than 134217728 bytes"), "{error}");
    // The rest of that answer does not stand in the way of the next one.
    assert_eq!(reads.texts("reading rows", texts(3)).await.expect("3 MB").len(), 3);
    drop(reads);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_is_refused_before_it_is_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("minke.db");
    refuses_too_much(&format!("sqlite://{}?mode=rwc", path.display())).await;
    let server = postgres::Server::start(directory.path());
    refuses_too_much(&server.url()).await;
}
