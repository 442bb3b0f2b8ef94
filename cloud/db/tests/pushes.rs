//! What a push writes on its way is no news to a device: only the release that it is to run is. On both
//! engines.

mod support;

use minke_cloud_db::{Caller, Db};
use serde_json::{Value, json};
use support::owner::{Owner, device, image, one, owner, patch, release};
use support::{NOW, Twins, object, post, read};

/// The writes of a push with one image of `service`; its last one gives the release this `status`.
async fn push(db: &Db, owner: &Owner, service: &Value, commit: &str, more: Value, status: &str) {
    let mut body = object(json!({"belongs_to__application": owner.fleet, "commit": commit,
        "composition": {"services": {"main": {}}}, "status": "running", "source": "cloud",
        "start_timestamp": NOW}));
    body.extend(object(more));
    let release = post(db, "release", Value::Object(body)).await.expect("a release").id;
    let image = json!({"is_a_build_of__service": service, "status": "running"});
    let image = post(db, "image", image).await.expect("an image").id;
    let place = json!({"image": image, "is_part_of__release": release});
    let place = post(db, "release_image", place).await.expect("a place").id;
    let label = json!({"release_image": place, "label_name": "l", "value": "1"});
    let label = post(db, "image_label", label).await.expect("a label").id;
    let variable = json!({"release_image": place, "name": "N", "value": "1"});
    post(db, "image_environment_variable", variable).await.expect("a variable");
    let profile = json!({"release_image": place, "profile_name": "p"});
    post(db, "image_profile", profile).await.expect("a profile");
    let built = json!({"status": "success", "content_hash": "sha256:ff"});
    patch(db, &format!("image({image})"), built).await;
    patch(db, &format!("image_label({label})"), json!({"value": "2"})).await;
    patch(db, &format!("release({release})"), json!({"build_log": "built"})).await;
    patch(db, &format!("release({release})"), json!({"status": status})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_told_of_the_release_that_they_are_to_run_only() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let device = device(db, &ann).await;
        let first = release(db, &ann, "c1", json!({})).await;
        let image = image(db, &ann, first, "main").await;
        let service =
            one(db, &format!("image({image})")).await["is_a_build_of__service"]["__id"].clone();
        let generation = async || db.state_generation(device).await.expect("a generation");
        let before = generation().await;
        let mut moved = db.moved();

        push(db, &ann, &service, "c2", json!({}), "failed").await;
        push(db, &ann, &service, "c3", json!({"is_final": false}), "success").await;
        let failed = format!(
            "release?$filter=belongs_to__application eq {} and status eq 'failed'",
            ann.fleet
        );
        assert_eq!(db.delete(&Caller::root(), &read(&failed)).await.expect("a removal"), 1);
        assert_eq!(generation().await, before, "{engine}");
        assert!(moved.try_recv().is_err(), "{engine}: nobody is told");

        push(db, &ann, &service, "c4", json!({}), "success").await;
        assert_ne!(generation().await, before, "{engine}");
        let told = moved.try_recv().expect("the devices are told");
        assert_eq!(told.applications.into_iter().collect::<Vec<_>>(), [ann.fleet], "{engine}");
        assert!(moved.try_recv().is_err(), "{engine}: once");
    }
}
