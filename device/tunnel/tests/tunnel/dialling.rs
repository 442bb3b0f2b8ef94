//! When a device dials: restarts, new keys, refusals.

use std::net::SocketAddr;

use crate::fixture::{Device, KEY, Server, UUID, hub_options, soon};

#[tokio::test]
async fn a_server_that_restarts_gets_its_devices_back() {
    let server = Server::start().await;
    let address = server.address;
    let mut device = Device::start(address).await;
    server.until_connected(true).await;
    device.until_looked(1).await;
    server.stop().await;
    let server = Server::start_at(address, hub_options()).await;
    server.until_reported(&[true]).await;
    // What was said while the tunnel was down is caught up.
    device.until_looked(2).await;
    device.stop().await;
}

#[tokio::test]
async fn a_server_that_moved_is_found_through_the_configuration() {
    let old = Server::start().await;
    let device = Device::start(old.address).await;
    old.until_connected(true).await;
    let new = Server::start().await;
    device.configure(&format!("http://{}/", new.address), KEY);
    new.until_connected(true).await;
    old.until_connected(false).await;
    device.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_until_it_is_right() {
    let server = Server::start().await;
    let mut device = Device::start_with(server.address, "wrong", |options| {
        // Only the changed file may end this wait.
        let long = std::time::Duration::from_secs(3600);
        options.backoff = (long, long);
    })
    .await;
    let status = dial_status(server.address, &format!("uuid={UUID}&v=1"), "wrong").await;
    assert_eq!(status, "401");
    assert!(!server.hub.is_connected(UUID));
    device.configure(&format!("http://{}", server.address), KEY);
    // Each tunnel begins with a look.
    device.until_looked(1).await;
    server.accounts.keys.lock().unwrap().insert(UUID.to_owned(), "second".to_owned());
    device.configure(&format!("http://{}", server.address), "second");
    device.until_looked(2).await;
    device.stop().await;
}

#[tokio::test]
async fn a_device_without_a_key_waits_for_one() {
    let server = Server::start().await;
    let device = Device::start(([127, 0, 0, 1], 1).into()).await;
    device.write_config(&serde_json::json!({
        "apiEndpoint": format!("http://{}", server.address), "uuid": UUID, "apiKey": "provisioning",
        "deviceApiKey": KEY, "deviceId": 1, "registered_at": 1,
    }));
    assert!(!server.hub.is_connected(UUID));
    device.configure(&format!("http://{}", server.address), KEY);
    server.until_connected(true).await;
    device.stop().await;
}

#[tokio::test]
async fn dials_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    for (query, key, expected) in [
        (format!("uuid={UUID}&v=2"), KEY, "400"),
        ("uuid=../../x&v=1".to_owned(), KEY, "400"),
        ("v=1".to_owned(), KEY, "400"),
        (format!("uuid={}&v=1", "f".repeat(32)), KEY, "401"),
        (format!("uuid={UUID}&v=1"), "", "401"),
        (format!("uuid={UUID}&v=1"), KEY, "101"),
    ] {
        assert_eq!(dial_status(server.address, &query, key).await, expected, "{query} {key}");
    }
    let plain = request(server.address, &format!("GET /tunnel?uuid={UUID}&v=1 HTTP/1.1\r\n")).await;
    assert_eq!(plain, "426");
}

async fn dial_status(server: SocketAddr, query: &str, key: &str) -> String {
    let head = format!(
        "GET /tunnel?{query} HTTP/1.1\r\nauthorization: Bearer {key}\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    request(
        server,
        &head.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nconnection: keep-alive, Upgrade\r\n"),
    )
    .await
}

async fn request(server: SocketAddr, head: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(server).await.unwrap();
    let text = format!("{head}host: {server}\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    soon(socket.read_exact(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}
