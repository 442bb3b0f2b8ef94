//! The law of generations: when what a device is told changes, so does its state generation; and
//! what devices say of themselves changes neither. Tried with a write of each kind to each resource
//! that a target state is made of.

mod support;

use minke_cloud_db::{Caller, Db, Model};
use minke_cloud_fleet::device_state;
use serde_json::{Value, json};
use support::{Twins, fill, object, post, read};

const DEVICE: i64 = 301;
const UUID: &str = "dddddddddddddddddddddddddddddddd";

/// What the device is told, as the API makes it.
async fn state(db: &Db) -> Value {
    let query = read(&device_state::device_query(UUID).expect("a query"));
    let rows = db.get(&Caller::root(), &query).await.expect("rows");
    match rows.get(0) {
        None => Value::Null,
        Some(row) => {
            let device = device_state::read_row(row).expect("a device");
            let options =
                device_state::Options { registry_host: "r".to_owned(), min_poll_interval: 1 };
            device_state::of_device(&device, &options)
        }
    }
}

async fn generation(db: &Db) -> Option<String> {
    db.state_generation(DEVICE).await.expect("a generation")
}

/// A change for each resource that can be told: where, and what.
fn changes() -> Vec<(&'static str, Value)> {
    vec![
        ("application(201)", json!({"app_name": "renamed"})),
        ("application_environment_variable(5)", json!({"value": "new"})),
        ("application_config_variable(6)", json!({"value": "2"})),
        ("service(601)", json!({"service_name": "other"})),
        ("service_environment_variable(5)", json!({"value": "2"})),
        ("service_label(7)", json!({"value": "2"})),
        ("release(401)", json!({"composition": {"services": {"other": {"tty": true}}}})),
        (
            "image(501)",
            json!({"is_stored_at__image_location": "v2/ffffffffffffffffffffffffffffffff"}),
        ),
        ("image_label(8)", json!({"value": "2"})),
        ("device(301)", json!({"device_name": "renamed"})),
        ("device_environment_variable(5)", json!({"value": "2"})),
        ("device_config_variable(5)", json!({"value": "1"})),
        ("device_service_environment_variable(5)", json!({"value": "2"})),
        ("release(401)", json!({"is_invalidated": true})),
        ("release(401)", json!({"is_invalidated": false})),
    ]
}

async fn check(db: &Db, what: &str, before: &(Value, Option<String>), must_show: bool) {
    let after = (state(db).await, generation(db).await);
    assert!(after.0 != before.0 || !must_show, "{what} shows in the state");
    assert!(after.0 == before.0 || after.1 != before.1, "{what} moves the generation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_state_has_a_changed_generation() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        fill(db).await;
        let root = Caller::root();
        for (path, body) in changes() {
            let before = (state(db).await, generation(db).await);
            let done = db.patch(&root, &read(path), &object(body)).await;
            assert_eq!(done.expect(path), 1, "{engine} {path}");
            check(db, path, &before, true).await;
        }
        for (resource, body) in [
            (
                "application_environment_variable",
                json!({"application": 201, "name": "N", "value": "1"}),
            ),
            ("device_environment_variable", json!({"device": 301, "name": "N", "value": "1"})),
            ("service_environment_variable", json!({"service": 601, "name": "N", "value": "1"})),
            (
                "image_environment_variable",
                json!({"release_image": 701, "name": "N", "value": "1"}),
            ),
            ("image_label", json!({"release_image": 701, "label_name": "n", "value": "1"})),
        ] {
            let before = (state(db).await, generation(db).await);
            let id = post(db, resource, body).await.expect(resource).id;
            check(db, resource, &before, true).await;
            let before = (state(db).await, generation(db).await);
            db.delete(&root, &read(&format!("{resource}({id})"))).await.expect(resource);
            check(db, resource, &before, true).await;
        }
        let before = (state(db).await, generation(db).await);
        let moved = json!({"belongs_to__application": 202});
        db.patch(&root, &read("device(301)"), &object(moved)).await.expect("a move");
        check(db, "a move", &before, true).await;
        let before = (state(db).await, generation(db).await);
        db.delete(&root, &read("release_image(701)")).await.expect("a removal");
        db.delete(&root, &read("device(301)")).await.expect("a removal");
        check(db, "a removal", &before, true).await;
    }
}

/// Makes a write whose effect must show.
async fn patched(db: &Db, path: &str, body: Value) {
    let before = (state(db).await, generation(db).await);
    let done = db.patch(&Caller::root(), &read(path), &object(body.clone())).await;
    assert_eq!(done.expect(path), 1, "{path} {body}");
    check(db, &format!("{path} {body}"), &before, true).await;
}

async fn posted(db: &Db, resource: &str, body: Value) -> i64 {
    let before = (state(db).await, generation(db).await);
    let id = post(db, resource, body).await.expect(resource).id;
    check(db, resource, &before, true).await;
    id
}

/// A release of this application with one image that nothing runs yet; gives both and the place.
async fn unseen(db: &Db, application: i64, commit: &str) -> (i64, i64, i64) {
    let service = json!({"application": application, "service_name": commit});
    let service = post(db, "service", service).await.expect("a service").id;
    let before = (state(db).await, generation(db).await);
    let release = json!({"belongs_to__application": application, "commit": commit,
        "status": "success", "source": "local", "composition": {"services": {commit: {}}}});
    let release = post(db, "release", release).await.expect("a release").id;
    let image = json!({"is_a_build_of__service": service, "status": "success"});
    let image = post(db, "image", image).await.expect("an image").id;
    let place = json!({"is_part_of__release": release, "image": image});
    let place = post(db, "release_image", place).await.expect("a place").id;
    assert_eq!((state(db).await, generation(db).await), before, "{commit} shows nowhere");
    (release, image, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_shows_by_every_link_that_makes_it_a_target() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        fill(db).await;
        let supervisor = json!({"id": 203, "app_name": "supervisor", "organization": 101,
            "is_for__device_type": 51, "slug": "balena_os/sixty-one-supervisor"});
        post(db, "application", supervisor).await.expect("an application");
        for application in [201, 202, 203] {
            let path = read(&format!("application({application})"));
            let body = object(json!({"should_track_latest_release": false}));
            db.patch(&Caller::root(), &path, &body).await.expect("no more tracking");
        }
        for (at, (path, link, application)) in [
            ("application(201)", "should_be_running__release", 201),
            ("device(301)", "is_pinned_on__release", 201),
            ("device(301)", "should_be_operated_by__release", 202),
            ("device(301)", "should_be_managed_by__release", 203),
        ]
        .into_iter()
        .enumerate()
        {
            let (release, image, place) = unseen(db, application, &format!("new{at}")).await;
            patched(db, path, json!({link: release})).await;
            let label = json!({"release_image": place, "label_name": "l", "value": "1"});
            let label = posted(db, "image_label", label).await;
            patched(db, &format!("image_label({label})"), json!({"value": "2"})).await;
            let variable = json!({"release_image": place, "name": "N", "value": "1"});
            posted(db, "image_environment_variable", variable).await;
            let hash = json!({"content_hash": "sha256:ff"});
            patched(db, &format!("image({image})"), hash).await;
            let composition = json!({"services": {format!("new{at}"): {"tty": true}}});
            let composition = json!({"composition": composition});
            patched(db, &format!("release({release})"), composition).await;
            for gone in [format!("release_image({place})"), format!("release({release})")] {
                let before = (state(db).await, generation(db).await);
                let done = db.delete(&Caller::root(), &read(&gone)).await;
                assert_eq!(done.expect(&gone), 1, "{engine} {link}");
                check(db, &gone, &before, true).await;
            }
        }
    }
}

/// Every writable field of every resource: whatever changes the state moves the generation.
#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_any_resource_changes_the_state_unnoticed() {
    let twins = Twins::start().await;
    let db = &twins.sqlite;
    fill(db).await;
    let root = Caller::root();
    let mut tried = 0;
    for resource in Model::get().resources().iter().filter(|r| !r.is_readonly) {
        let ids =
            db.get(&root, &read(&format!("{}?$select=id&$orderby=id asc", resource.name))).await;
        let ids = ids.expect("ids");
        for field in resource.fields.iter().filter(|f| f.computed.is_none() && f.name != "id") {
            for row in ids.as_array().into_iter().flatten().take(3) {
                let before = (state(db).await, generation(db).await);
                let value = match field.kind {
                    minke_cloud_db::model::Kind::Boolean => json!(true),
                    minke_cloud_db::model::Kind::Text => json!("BALENA_changed"),
                    minke_cloud_db::model::Kind::Json => json!({"services": {}}),
                    _ => json!(7),
                };
                let path = format!("{}({})", resource.name, row["id"]);
                let body = json!({ field.name.as_str(): value });
                // What the rules refuse changes nothing.
                let _ = db.patch(&root, &read(&path), &object(body)).await;
                check(db, &format!("{path}.{}", field.name), &before, false).await;
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_reports_moves_nothing() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        fill(db).await;
        let mut moved = db.moved();
        let before = generation(db).await;
        let body = json!({"os_version": "7", "cpu_temp": 50, "is_online": false, "is_running__release": 401});
        db.patch(&Caller::root(), &read("device(301)"), &object(body)).await.expect("a report");
        db.record_heartbeat(DEVICE, 1).await.expect("a heartbeat");
        assert_eq!(generation(db).await, before);
        assert!(moved.try_recv().is_err(), "nobody is told");
        let body = json!({"device_name": "x"});
        db.patch(&Caller::root(), &read("device(301)"), &object(body)).await.expect("a name");
        assert_ne!(generation(db).await, before);
        let told = moved.try_recv().expect("somebody is told");
        assert_eq!(told.devices.into_iter().collect::<Vec<_>>(), [DEVICE]);
    }
}
