//! A database outlives the program: it opens again as it was left, and not with an older program.

mod support;

use minke_cloud_db::{Caller, Db};
use serde_json::json;
use support::{Twins, fill, post, read};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_opens_again_as_it_was_left() {
    let directory = TempDir::new().expect("a directory");
    let root = Caller::root();
    let (types, devices) = (read("device_type?$orderby=id asc"), read("device?$orderby=id asc"));
    let db = support::open_sqlite(&directory).await.at(support::NOW);
    fill(&db).await;
    let before = (db.get(&root, &types).await, db.get(&root, &devices).await);
    let before = (before.0.expect("types"), before.1.expect("devices"));
    db.close().await;
    for _ in 0..2 {
        let db = support::open_sqlite(&directory).await.at(support::NOW);
        assert_eq!(db.get(&root, &types).await.expect("types"), before.0);
        assert_eq!(db.get(&root, &devices).await.expect("devices"), before.1);
        db.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_and_not_committed_is_not_there() {
    let directory = TempDir::new().expect("a directory");
    let db = support::open_sqlite(&directory).await;
    fill(&db).await;
    let tag = support::object(json!({"application": 201, "tag_key": "k", "value": "v"}));
    let mut tx = db.begin().await.expect("a transaction");
    tx.post(&Caller::root(), "application_tag", &tag).await.expect("a tag");
    drop(tx);
    // The one writer is free again, and sees nothing of it.
    post(&db, "application_tag", serde_json::Value::Object(tag)).await.expect("the same tag");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_program_is_refused() {
    let twins = Twins::start().await;
    let url = twins.postgres_url();
    let pool = sqlx::PgPool::connect(&url).await.expect("a connection");
    sqlx::query("INSERT INTO \"migration\" (\"name\") VALUES ('9999_later')")
        .execute(&pool)
        .await
        .expect("a migration of the future");
    let error = Db::open(&url).await.expect_err("it is newer");
    assert!(error.to_string().contains("9999_later"), "{error}");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_may_make_one_database_at_once() {
    let twins = Twins::start().await;
    let pool = sqlx::PgPool::connect(&twins.postgres_url()).await.expect("a connection");
    sqlx::query("CREATE DATABASE fresh").execute(&pool).await.expect("an empty database");
    pool.close().await;
    let url = twins.postgres_url().replace("/postgres", "/fresh");
    let url = url.replace("%2Ffresh", "%2Fpostgres");
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { Db::open(&url).await.map(drop) })
        })
        .collect();
    for one in opening {
        let opened = one.await.expect("a task");
        assert!(opened.is_ok(), "{:?}", opened.map_err(|error| support::chain(&error)));
    }
}
