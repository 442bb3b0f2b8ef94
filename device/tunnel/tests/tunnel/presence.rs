//! Who is connected, and what is reported of it.

use std::time::Duration;

use minke_cloud_tunnel::HubOptions;

use crate::fixture::{Device, KEY, Path, Server, UUID, hub_options, soon};

const BEAT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn an_orderly_stop_is_reported_after_the_grace_time() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_reported(&[true]).await;
    device.stop().await;
    server.until_connected(false).await;
    server.until_reported(&[true, false]).await;
}

#[tokio::test]
async fn a_reconnect_within_the_grace_time_is_not_reported() {
    let options = HubOptions { grace: Duration::from_secs(3600), ..hub_options() };
    let server = Server::start_at(([127, 0, 0, 1], 0).into(), options).await;
    let device = Device::start(server.address).await;
    server.until_reported(&[true]).await;
    device.stop().await;
    server.until_connected(false).await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    // A report of anything would have come before this stream was answered.
    soon(server.hub.look(UUID)).await.unwrap();
    server.until_reported(&[true]).await;
    device.stop().await;
}

#[tokio::test]
async fn a_silent_device_is_gone_and_comes_back_when_the_path_does() {
    let server = Server::start().await;
    let path = Path::to(server.address).await;
    let device = Device::start_with(path.address, KEY, |options| options.heartbeat = BEAT).await;
    server.until_reported(&[true]).await;
    path.freeze(true);
    server.until_connected(false).await;
    server.until_reported(&[true, false]).await;
    // The device, too, has noticed or will: it dials again by itself.
    path.freeze(false);
    server.until_connected(true).await;
    soon(server.hub.look(UUID)).await.unwrap();
    server.until_reported(&[true, false, true]).await;
    device.stop().await;
}

#[tokio::test]
async fn an_idle_tunnel_stays_up_for_many_heartbeats() {
    let server = Server::start().await;
    let device = Device::start_with(server.address, KEY, |options| options.heartbeat = BEAT).await;
    server.until_reported(&[true]).await;
    let path_of_time = tokio::time::Instant::now() + 10 * BEAT;
    // Waiting is the test here: ten heartbeats with no other traffic.
    while tokio::time::Instant::now() < path_of_time {
        assert!(server.hub.is_connected(UUID));
        tokio::time::sleep(BEAT / 10).await;
    }
    server.until_reported(&[true]).await;
    device.stop().await;
}

#[tokio::test]
async fn the_newest_tunnel_of_a_device_wins() {
    let server = Server::start().await;
    let first = Device::start_with(server.address, KEY, |options| {
        // The loser must not come back while the test looks.
        options.backoff = (Duration::from_secs(3600), Duration::from_secs(3600));
    })
    .await;
    server.until_connected(true).await;
    let mut second = Device::start(server.address).await;
    second.until_looked(1).await;
    soon(server.hub.look(UUID)).await.unwrap();
    second.until_looked(2).await;
    assert_eq!(server.hub.count(), 1);
    server.until_reported(&[true]).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn the_supervisor_knows_whether_the_tunnel_is_up() {
    let server = Server::start().await;
    let lease = Duration::from_millis(200);
    let mut device = Device::start_with(server.address, KEY, |options| options.lease = lease).await;
    // Said when the tunnel came, and again while it lasts.
    soon(device.up_for.wait_for(|said| said.len() >= 3)).await.unwrap();
    assert!(device.up_for.borrow().iter().all(|time| *time == 200));
    server.stop().await;
    soon(device.up_for.wait_for(|said| said.last() == Some(&0))).await.unwrap();
    device.stop().await;
}
