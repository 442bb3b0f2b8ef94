use super::*;
use crate::fake_cloud::{FakeCloud, Fault, PROVISIONING_KEY, device};

#[tokio::test]
async fn a_fresh_device_registers_and_erases_the_provisioning_key() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    let http = device(dir.path(), &cloud.url());
    let provisioned = provision(&http).await.unwrap();
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(!text.contains(PROVISIONING_KEY), "{text}");
    assert!(text.contains("\"wifi\": \"kept\""), "{text}");
    let config = http.config_file().get();
    cloud.with(|cloud| {
        let (id, key) = &cloud.devices[provisioned.uuid.as_str()];
        assert_eq!(*id, provisioned.id.get());
        assert_eq!(Some(key), config.device_api_key.as_ref());
        assert_eq!(cloud.requests, ["POST /device/register"]);
    });
    provision(&http).await.unwrap();
    cloud.with(|cloud| assert_eq!(cloud.requests.len(), 1, "a provisioned device asks nothing"));
}

/// The process dies at request number `at`, before or after its effect; a new process goes on.
#[tokio::test]
async fn a_crash_at_any_step_never_makes_a_second_device() {
    for at in 0..4 {
        for fault in [Fault::Before, Fault::After] {
            let dir = tempfile::tempdir().unwrap();
            let cloud = FakeCloud::start().await;
            cloud.with(|cloud| {
                cloud.faults.extend(std::iter::repeat_n(Fault::None, at));
                cloud.faults.push_back(fault);
            });
            // Each pass is a new process that knows only what is on disk.
            let mut passes = 0;
            let provisioned = loop {
                passes += 1;
                if let Ok(provisioned) = attempt(&device(dir.path(), &cloud.url())).await {
                    break provisioned;
                }
                assert!(passes < 5, "at {at} {fault:?}");
            };
            let config = device(dir.path(), &cloud.url()).config_file().get();
            assert!(config.is_provisioned());
            cloud.with(|cloud| {
                assert_eq!(cloud.devices.len(), 1, "at {at} {fault:?}");
                let (id, key) = &cloud.devices[provisioned.uuid.as_str()];
                assert_eq!(*id, provisioned.id.get());
                assert_eq!(Some(key), config.device_api_key.as_ref());
            });
        }
    }
}

/// The process dies right after its identity is on disk.
#[tokio::test]
async fn the_identity_is_stored_before_the_server_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.faults.push_back(Fault::Before));
    attempt(&device(dir.path(), &cloud.url())).await.unwrap_err();
    let stored = device(dir.path(), &cloud.url()).config_file().get();
    let provisioned = attempt(&device(dir.path(), &cloud.url())).await.unwrap();
    assert_eq!(stored.uuid, Some(provisioned.uuid));
    assert!(stored.device_api_key.is_some());
}

/// Registered by hand with another key: the provisioning key may set ours.
#[tokio::test]
async fn a_device_that_was_registered_before_exchanges_keys_through_every_fault() {
    for at in 0..5 {
        for fault in [Fault::None, Fault::Before, Fault::After] {
            let dir = tempfile::tempdir().unwrap();
            let cloud = FakeCloud::start().await;
            let http = device(dir.path(), &cloud.url());
            http.config_file().update(|c| c.uuid = Some("ab12".parse().unwrap())).unwrap();
            cloud.with(|cloud| {
                cloud.devices.insert("ab12".into(), (55, "old".into()));
                cloud.faults.extend(std::iter::repeat_n(Fault::None, at));
                cloud.faults.push_back(fault);
            });
            let mut passes = 0;
            while attempt(&device(dir.path(), &cloud.url())).await.is_err() {
                passes += 1;
                assert!(passes < 5);
            }
            let config = device(dir.path(), &cloud.url()).config_file().get();
            assert!(config.is_provisioned());
            cloud.with(|cloud| {
                assert_eq!(cloud.devices.len(), 1);
                assert_eq!(Some(&cloud.devices["ab12"].1), config.device_api_key.as_ref());
            });
        }
    }
}

#[tokio::test]
async fn a_wrong_provisioning_key_is_kept_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    cloud.with(|cloud| cloud.faults.extend([Fault::Status(401), Fault::Status(503)]));
    let http = device(dir.path(), &cloud.url());
    let provisioned = provision(&http).await.unwrap();
    cloud.with(|cloud| assert!(cloud.devices.contains_key(provisioned.uuid.as_str())));
}

#[tokio::test]
async fn a_device_without_a_server_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert_eq!(provision(&device(dir.path(), "")).await, None);
}
