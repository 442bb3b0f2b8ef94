//! A server that cannot write. This file holds one test: the limit it sets is the whole process's.

mod world;

use std::process::Command;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use world::World;

/// What a process gets that writes beyond its limit: the write fails if it does not die of it.
const SIGXFSZ: i32 = 25;

/// Sets how large the files may be that this process writes.
fn limit_files(size: &str) {
    let id = std::process::id().to_string();
    let done = Command::new("prlimit").args(["--pid", &id, &format!("--fsize={size}:")]).status();
    assert!(done.unwrap().success());
}

#[tokio::test]
async fn a_server_that_cannot_write_still_tells_devices_what_to_run() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    world.release(fleet, "c0ffee").await;
    let device = world.device(fleet).await;
    let path = format!("/device/v3/{}/state", device.uuid);
    let before = world.get(&path, &device.key).await.expect(200);
    let _survived = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();

    limit_files("0");
    let name = json!({"device_name": "other"});
    let refused = world.patch(&format!("/v7/device({})", device.id), &world.ann.token, &name).await;
    let told = world.get(&path, &device.key).await;
    limit_files("unlimited");
    assert!(refused.status.is_server_error(), "nothing can be written: {refused:?}");
    let told = told.expect(200);
    assert_eq!((told.json(), told.etag), (before.json(), before.etag));
    assert!(told.text.contains("c0ffee"));
    world.patch(&format!("/v7/device({})", device.id), &world.ann.token, &name).await.expect(200);
}
