//! A disk that is full to the last byte: what fills it can be removed.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

/// From here on this test's thread, and those that it starts, see what it mounts, and nobody else.
fn own_mounts() {
    // SAFETY: this thread alone leaves the mount namespace; it shares no descriptor table change.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

fn small_disk(at: &Path) {
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=1m")).unwrap();
}

/// Fills the disk of the device's files; gives the file to remove.
fn fill(device: &Device) -> PathBuf {
    let path = device.world.path().join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[tokio::test]
async fn purge_empties_the_volumes_of_a_full_disk() {
    own_mounts();
    small_disk(&std::env::temp_dir());
    let device = Device::running().await;
    // Locks are among the temporary files of a device, which are elsewhere.
    small_disk(&device.world.path().join("locks"));
    let filler = fill(&device);
    let saved = device.world.path().join("stopped");
    assert!(std::fs::write(device.world.path().join("one more"), "byte").is_err());
    let asked = device.post("/v1/purge", json!({"appId": 7}));
    let (status, text) = tokio::time::timeout(PATIENCE / 10, asked).await.expect("an answer");
    assert_eq!(status, StatusCode::OK, "{text}");
    let history = device.world.engine.history();
    assert!(history.iter().any(|line| line.starts_with("volume destroy")), "{history:?}");
    assert!(!saved.exists(), "there was no room for it");

    // With room again, the next container that is stopped is remembered on the disk.
    std::fs::remove_file(filler).unwrap();
    let body = json!({"serviceName": "web"});
    let (status, text) = device.post("/v2/applications/7/stop-service", body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let web = ContainerId(device.world.id_of("web").await);
    assert!(Memory::open(device.world.path()).was_stopped(&web));
}
