use serde_json::json;

use super::*;
use crate::fake_cloud::{FakeCloud, device};
use crate::provision;

fn target(name: &str) -> serde_json::Value {
    json!({"name": name, "config": {"BALENA_SUPERVISOR_POLL_INTERVAL": "3600000"}, "apps": {}})
}

async fn provisioned(dir: &Path, cloud: &FakeCloud) -> (CloudHttp, DeviceUuid) {
    let http = device(dir, &cloud.url());
    let uuid = provision(&http).await.unwrap().uuid;
    (http, uuid)
}

#[tokio::test]
async fn an_etag_outlives_the_process_and_the_target_is_there_without_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.target = Some(("W/\"1\"".into(), target("one"))));
    let (http, uuid) = provisioned(dir.path(), &cloud).await;
    let mut first = TargetFollower::new(http.clone(), uuid.clone(), dir.path());
    assert_eq!(first.look().await.unwrap(), Looked::New);
    drop(first);

    let mut second = TargetFollower::new(http, uuid, dir.path());
    let name = second.latest().borrow().as_ref().unwrap().device.name.clone();
    assert_eq!(name, "one", "known before the first look");
    assert_eq!(second.look().await.unwrap(), Looked::Same);
    cloud.with(|cloud| cloud.target = Some(("W/\"2\"".into(), target("two"))));
    assert_eq!(second.look().await.unwrap(), Looked::New);
    assert_eq!(second.latest().borrow().as_ref().unwrap().device.name, "two");
}

#[tokio::test]
async fn a_server_that_moved_is_asked_without_the_old_etag() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.target = Some(("W/\"1\"".into(), target("one"))));
    let (http, uuid) = provisioned(dir.path(), &cloud).await;
    let mut follower = TargetFollower::new(http.clone(), uuid, dir.path());
    follower.look().await.unwrap();

    let moved = FakeCloud::start().await;
    let devices = cloud.with(|cloud| cloud.devices.clone());
    moved.with(|cloud| {
        cloud.devices = devices;
        cloud.target = Some(("W/\"1\"".into(), target("moved")));
    });
    http.config_file().update(|config| config.api_endpoint = Some(moved.url())).unwrap();
    assert_eq!(follower.look().await.unwrap(), Looked::New);
    assert_eq!(follower.latest().borrow().as_ref().unwrap().device.name, "moved");
}

#[tokio::test]
async fn a_look_that_is_wanted_happens_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.target = Some(("\"1\"".into(), target("one"))));
    let (http, uuid) = provisioned(dir.path(), &cloud).await;
    let follower = TargetFollower::new(http, uuid, dir.path());
    let mut latest = follower.latest();
    let wanted = Arc::new(Notify::new());
    let task = tokio::spawn(follower.run(wanted.clone(), TunnelLease::default()));
    latest
        .wait_for(|target| target.as_ref().is_some_and(|t| t.device.name == "one"))
        .await
        .unwrap();
    cloud.with(|cloud| cloud.target = Some(("\"2\"".into(), target("two"))));
    wanted.notify_one();
    // The poll interval is an hour: only the notification can bring this.
    let second = latest.wait_for(|target| target.as_ref().is_some_and(|t| t.device.name == "two"));
    tokio::time::timeout(Duration::from_secs(20), second).await.unwrap().unwrap();
    task.abort();
}

#[tokio::test]
async fn a_damaged_target_on_disk_is_no_target() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.target = Some(("\"1\"".into(), target("one"))));
    let (http, uuid) = provisioned(dir.path(), &cloud).await;
    TargetFollower::new(http.clone(), uuid.clone(), dir.path()).look().await.unwrap();
    std::fs::write(dir.path().join("target"), b"\0\0\0").unwrap();
    let mut follower = TargetFollower::new(http, uuid, dir.path());
    assert!(follower.latest().borrow().is_none());
    assert_eq!(follower.look().await.unwrap(), Looked::New);
}

#[tokio::test]
async fn a_request_timeout_of_nothing_does_not_cut_the_device_off() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    let timeout = "BALENA_SUPERVISOR_API_REQUEST_TIMEOUT";
    let hasty = json!({"name": "hasty", "config": {timeout: "0"}, "apps": {}});
    cloud.with(|cloud| cloud.target = Some(("\"1\"".into(), hasty)));
    let (http, uuid) = provisioned(dir.path(), &cloud).await;
    TargetFollower::new(http.clone(), uuid.clone(), dir.path()).look().await.unwrap();
    // The next process begins with that timeout, and must hear that it is gone.
    let mut follower = TargetFollower::new(http, uuid, dir.path());
    cloud.with(|cloud| cloud.target = Some(("\"2\"".into(), target("calm"))));
    assert_eq!(follower.look().await.unwrap(), Looked::New);
    assert_eq!(follower.latest().borrow().as_ref().unwrap().device.name, "calm");
}

#[test]
fn a_short_timeout_is_not_obeyed_for_ever() {
    let (short, long) = (Duration::from_secs(10), Duration::from_secs(300));
    let default = DeviceConfig::default().api_request_timeout;
    assert_eq!(request_timeout(short, OBEYED_LOOKS - 1), short);
    assert_eq!(request_timeout(short, OBEYED_LOOKS), default);
    assert_eq!(request_timeout(long, OBEYED_LOOKS), long);
}

#[tokio::test]
async fn a_target_without_apps_is_refused_and_the_last_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.target = Some(("\"1\"".into(), target("whole"))));
    let (http, uuid) = provisioned(dir.path(), &cloud).await;
    let mut follower = TargetFollower::new(http, uuid, dir.path());
    follower.look().await.unwrap();
    cloud.with(|cloud| cloud.target = Some(("\"2\"".into(), json!({}))));
    assert!(matches!(follower.look().await, Err(LookError::Target(_))));
    assert_eq!(follower.latest().borrow().as_ref().unwrap().device.name, "whole");
}
