//! What an expand may not do: multiply rows until nobody can hold them.

mod support;

use minke_cloud_db::Caller;
use serde_json::json;
use support::{Twins, fill, post};

/// Twins whose device 301 has tags of `size` bytes.
async fn tagged(count: usize, size: usize) -> Twins {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        fill(db).await;
        for number in 0..count {
            let tag =
                json!({"device": 301, "tag_key": format!("t{number}"), "value": "x".repeat(size)});
            post(db, "device_tag", tag).await.expect("a tag");
        }
    }
    twins
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expand_goes_to_and_fro_once_and_not_again() {
    let twins = tagged(3, 1).await;
    let root = Caller::root();
    let once = "device(301)?$select=id&$expand=device_tag($select=value;$expand=device($select=id;$expand=device_tag($select=value)))";
    let rows = twins.get(&root, once).await.expect("an answer");
    let tags = rows[0]["device_tag"].as_array().expect("tags");
    for tag in tags {
        assert_eq!(tag["device"][0]["device_tag"].as_array().map(Vec::len), Some(tags.len()));
    }
    let again =
        once.replace("$expand=device_tag($select=value)))", "$expand=device_tag($expand=device)))");
    assert_ne!(once, again);
    let error = twins.get(&root, &again).await.expect_err("a third visit of device");
    assert!(error.contains("device is expanded inside itself: at most 2"), "{error}");
    // Side by side is no way to and fro.
    let beside = "device(301)?$select=id&$expand=device_tag($expand=device),device_environment_variable($expand=device),device_config_variable($expand=device)";
    twins.get(&root, beside).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_repeat_are_not_gathered_beyond_a_limit() {
    let twins = tagged(40, 12_000).await;
    let root = Caller::root();
    let large = "device(301)?$select=id&$expand=device_tag($select=id;$expand=device($select=id;$expand=device_tag))";
    let error = twins.get(&root, large).await.expect_err("19 MB of half a megabyte");
    assert!(error.contains("more than 16777216 bytes"), "{error}");
    let small = large.replace("$expand=device_tag))", "$expand=device_tag($top=2)))");
    let rows = twins.get(&root, &small).await.expect("an answer");
    assert!(rows[0]["device_tag"].as_array().is_some_and(|tags| tags.len() >= 40));
    // Nor is an empty one null.
    let none =
        large.replace("device_tag($select=id;", "device_tag($filter=tag_key eq 'none';$select=id;");
    let rows = twins.get(&root, &none).await.expect("an answer");
    assert_eq!(rows[0]["device_tag"], json!([]));
}
