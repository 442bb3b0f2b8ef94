//! What two do to one release at once. On PostgreSQL: SQLite has one writer.

mod support;

use std::time::{Duration, Instant};

use minke_cloud_db::{Caller, Db, Result};
use serde_json::{Value, json};
use support::owner::{device, image, one, owner, patch, release};
use support::{Twins, object, read};
use tokio::task::JoinHandle;

/// A change in a transaction of its own, which has ended or waits for that of somebody else.
async fn begun(twins: &Twins, caller: &Caller, path: &str, body: Value) -> JoinHandle<Result<u64>> {
    let (db, caller, path) = (twins.postgres.clone(), caller.clone(), read(path));
    let change = tokio::spawn(async move { db.patch(&caller, &path, &object(body)).await });
    settled(twins, &change, 1).await;
    change
}

/// Waits until `change` has ended, or so many transactions wait for others.
async fn settled<T>(twins: &Twins, change: &JoinHandle<T>, transactions: i64) {
    let pool = sqlx::PgPool::connect(&twins.postgres_url()).await.expect("a connection");
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND \
                   backend_type = 'client backend'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while !change.is_finished() {
        let waiting = sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await;
        if waiting.expect("a look") >= transactions {
            break;
        }
        assert!(Instant::now() < deadline, "neither done nor waiting");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_two_make_final_at_once_gets_one_version() {
    let twins = Twins::start().await;
    let db = &twins.postgres;
    let ann = owner(db, "ann").await;
    let draft = release(db, &ann, "c1", json!({"semver": "1.0.0", "is_final": false})).await;
    let path = format!("release({draft})");
    let last = json!({"is_final": true});

    let mut tx = db.begin().await.expect("a transaction");
    tx.patch(&ann.caller, &read(&path), &object(last.clone())).await.expect("a final release");
    let second = begun(&twins, &ann.caller, &path, last).await;
    tx.commit().await.expect("a commit");
    assert_eq!(second.await.expect("a task").expect("what it is already"), 1);
    let now = one(db, &format!("{path}?$select=revision,raw_version")).await;
    assert_eq!(now, json!({"revision": 0, "raw_version": "1.0.0"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_another_makes_final_is_not_renamed_any_more() {
    let twins = Twins::start().await;
    let db = &twins.postgres;
    let ann = owner(db, "ann").await;
    let draft = release(db, &ann, "c1", json!({"semver": "1.0.0", "is_final": false})).await;
    let path = format!("release({draft})");

    let mut tx = db.begin().await.expect("a transaction");
    let last = object(json!({"is_final": true}));
    tx.patch(&ann.caller, &read(&path), &last).await.expect("a final release");
    let renamed = begun(&twins, &ann.caller, &path, json!({"semver": "2.0.0"})).await;
    tx.commit().await.expect("a commit");
    let error = renamed.await.expect("a task").expect_err("it is final");
    assert_eq!(error.status(), 400, "{error}");
    assert_eq!(one(db, &format!("{path}?$select=raw_version")).await["raw_version"], "1.0.0");
}

/// What the device is told of labels, and its state generation.
async fn told(db: &Db, device: i64) -> (Value, Option<String>) {
    let state = format!(
        "device({device})?$select=id&$expand=should_be_running__release($select=id;$expand=release_image($select=id;$expand=image_label($select=value)))"
    );
    (one(db, &state).await, db.state_generation(device).await.expect("a generation"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_becomes_a_target_while_it_is_changed_is_told_whole() {
    let twins = Twins::start().await;
    let db = &twins.postgres;
    let ann = owner(db, "ann").await;
    let device = device(db, &ann).await;
    let fleet = format!("application({})", ann.fleet);
    release(db, &ann, "c0", json!({})).await;
    patch(db, &fleet, json!({"should_track_latest_release": false})).await;
    let targets = [
        (fleet, "should_be_running__release"),
        (format!("device({device})"), "is_pinned_on__release"),
    ];
    for (at, (path, link)) in targets.into_iter().enumerate() {
        let release = release(db, &ann, &format!("c1{at}"), json!({})).await;
        image(db, &ann, release, &format!("main{at}")).await;
        let place = format!("release_image?$select=id&$filter=is_part_of__release eq {release}");
        let place = one(db, &place).await["id"].clone();
        let label = json!({"release_image": place, "label_name": "l", "value": "1"});

        let mut tx = db.begin().await.expect("a transaction");
        tx.post(&Caller::root(), "image_label", &object(label)).await.expect("a label");
        let target = begun(&twins, &ann.caller, &path, json!({link: release})).await;
        let before = told(db, device).await;
        tx.commit().await.expect("a commit");
        assert_eq!(target.await.expect("a task").expect("a target"), 1, "{link}");
        let after = told(db, device).await;
        assert_ne!(before.0, after.0, "{link}: the label is told");
        assert_ne!(before.1, after.1, "{link}: and moves the generation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_removed_while_it_and_what_is_in_it_are_written() {
    let twins = Twins::start().await;
    let db = &twins.postgres;
    let ann = owner(db, "ann").await;
    let (fleet, tracks) = (
        read(&format!("application({})", ann.fleet)),
        object(json!({"should_track_latest_release": false})),
    );
    db.patch(&ann.caller, &fleet, &tracks).await.expect("a fleet that stays where it is");
    for (at, change) in
        [Some(json!({"is_final": true})), Some(json!({"note": "n"})), None].into_iter().enumerate()
    {
        let draft = release(db, &ann, &format!("c{at}"), json!({"is_final": false})).await;
        image(db, &ann, draft, &format!("main{at}")).await;
        let place = format!("release_image?$select=id&$filter=is_part_of__release eq {draft}");
        let place = one(db, &place).await["id"].clone();
        let label = object(json!({"release_image": place, "label_name": "l", "value": "1"}));
        let path = read(&format!("release({draft})"));

        // Both wait for the fleet, the removal at the head.
        let mut tx = db.begin().await.expect("a transaction");
        tx.patch(&ann.caller, &fleet, &tracks).await.expect("a change of the fleet");
        let (remover, caller, which) = (db.clone(), ann.caller.clone(), path.clone());
        let removal = tokio::spawn(async move { remover.delete(&caller, &which).await });
        settled(&twins, &removal, 1).await;
        let (writer, caller, named) = (db.clone(), ann.caller.clone(), format!("{change:?}"));
        let writing = tokio::spawn(async move {
            match change {
                Some(change) => writer.patch(&caller, &path, &object(change)).await.map(drop),
                None => writer.post(&caller, "image_label", &label).await.map(drop),
            }
        });
        settled(&twins, &writing, 2).await;
        tx.commit().await.expect("a commit");
        let removed = removal.await.expect("a task");
        assert!(matches!(removed, Ok(1)), "{named}: {removed:?}");
        if let Err(error) = writing.await.expect("a task") {
            assert!(error.status() < 500, "{named}: {error:?}");
        }
    }
}
