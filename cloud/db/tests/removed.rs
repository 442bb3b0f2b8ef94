//! What is left when releases go: no images that nothing runs, and reports that are kept all the same.
//! On both engines.

mod support;

use minke_cloud_db::{Caller, Db, Install, Report};
use serde_json::{Value, json};
use support::owner::{device, get, image, one, owner, release};
use support::{Twins, object, post, read};

async fn is_there(db: &Db, row: &str) -> bool {
    get(db, &format!("{row}/$count")).await == json!(1)
}

fn install(image: i64, release: i64) -> Install {
    Install { image, release, status: "Running".to_owned(), download_progress: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_takes_the_images_that_are_in_no_other() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let (first, second) =
            (release(db, &ann, "c1", json!({})).await, release(db, &ann, "c2", json!({})).await);
        let own = image(db, &ann, first, "own").await;
        let shared = image(db, &ann, first, "shared").await;
        let place = json!({"image": shared, "is_part_of__release": second});
        post(db, "release_image", place).await.expect("a place");
        // Being built: not in a release yet.
        let service =
            one(db, &format!("image({own})")).await["is_a_build_of__service"]["__id"].clone();
        let new = json!({"is_a_build_of__service": service});
        let new = post(db, "image", new).await.expect("an image").id;
        let images = [own, shared, new].map(|id| format!("image({id})"));

        for (gone, left) in [(first, [false, true, true]), (second, [false, false, true])] {
            let path = read(&format!("release({gone})"));
            assert_eq!(db.delete(&ann.caller, &path).await.expect("a removal"), 1);
            for (image, left) in images.iter().zip(left) {
                assert_eq!(is_there(db, image).await, left, "{engine} {image}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_names_what_is_gone_is_kept_without_it() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let device = device(db, &ann).await;
        let (gone, there) =
            (release(db, &ann, "c1", json!({})).await, release(db, &ann, "c2", json!({})).await);
        let gone_image = image(db, &ann, gone, "a").await;
        let image = image(db, &ann, there, "b").await;
        db.delete(&Caller::root(), &read(&format!("release({gone})"))).await.expect("a removal");

        let report = |running: i64, installs: Vec<Install>| Report {
            device,
            status: object(json!({"os_version": "7", "is_running__release": running})),
            installs: Some(installs),
            ..Report::default()
        };
        let path = format!("device({device})?$expand=image_install($orderby=id asc)");
        let installed = |row: &Value| -> Vec<(Value, Value)> {
            let installs = row["image_install"].as_array().expect("installs");
            installs
                .iter()
                .map(|it| (it["installs__image"]["__id"].clone(), it["status"].clone()))
                .collect()
        };
        let running = [(json!(image), json!("Running"))];
        db.report(report(there, vec![install(image, there)])).await.expect("a report");
        let row = one(db, &path).await;
        assert_eq!(row["is_running__release"], json!({"__id": there}), "{engine}");
        assert_eq!(installed(&row), running, "{engine}");

        // The image is gone, the release is gone, both are gone.
        for installs in [
            vec![install(image, there), install(gone_image, there)],
            vec![install(image, gone)],
            vec![install(gone_image, gone), install(image, there)],
        ] {
            let kept = db.report(report(gone, installs.clone())).await;
            kept.unwrap_or_else(|error| panic!("{engine} {installs:?}: {error}"));
            let row = one(db, &path).await;
            assert_eq!(row["os_version"], json!("7"), "{engine}");
            assert_eq!(row["is_running__release"], Value::Null, "{engine}");
            assert_eq!(installed(&row), running, "{engine} {installs:?}");
        }
        db.delete(&Caller::root(), &read(&format!("device({device})"))).await.expect("a removal");
        db.report(report(there, vec![install(image, there)])).await.expect("nobody's report");
    }
}
