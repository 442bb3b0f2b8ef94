//! Streams: "look now", TCP with half-close, the limit, a stalled one.

use minke_cloud_tunnel::OpenError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Device, KEY, Server, UUID, exchange, reverse, service, soon};

#[tokio::test]
async fn look_reaches_the_supervisor_with_its_key() {
    let server = Server::start().await;
    let mut device = Device::start(server.address).await;
    server.until_connected(true).await;
    // One by itself after the dial, one by being told.
    device.until_looked(1).await;
    soon(server.hub.look(UUID)).await.unwrap();
    device.until_looked(2).await;
    server.hub.look_soon(vec![UUID.to_owned(), "f".repeat(32)]);
    device.until_looked(3).await;

    std::fs::write(device.dir.path().join("supervisor/api-key"), "wrong").unwrap();
    let refused = soon(server.hub.look(UUID)).await;
    assert!(matches!(refused, Err(OpenError::Refused(reason)) if reason.contains("401")));
    device.stop().await;
}

#[tokio::test]
async fn bytes_arrive_whole_and_each_side_ends_by_itself() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let port = service(reverse).await;
    // More than a window, so that credit has to flow back.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let stream = soon(server.hub.open_tcp(UUID, port)).await.unwrap();
    let mut received = soon(exchange(stream, &sent)).await;
    received.reverse();
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
    device.stop().await;
}

#[tokio::test]
async fn port_48484_is_the_supervisor_wherever_it_listens() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let mut stream = soon(server.hub.open_tcp(UUID, 48484)).await.unwrap();
    let request = b"POST /v1/update HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
    device.stop().await;
}

#[tokio::test]
async fn a_supervisor_is_found_on_the_port_that_config_json_names() {
    let server = Server::start().await;
    let mut port = 0;
    let nobody = ([127, 0, 0, 1], 1).into();
    let mut device = Device::start_with(nobody, KEY, |options| {
        port = options.supervisor.port();
        options.supervisor.set_port(0);
    })
    .await;
    device.write_config(&serde_json::json!({
        "apiEndpoint": format!("http://{}", server.address), "uuid": UUID, "deviceApiKey": KEY,
        "deviceId": 1, "registered_at": 1, "listenPort": port,
    }));
    device.until_looked(1).await;
    let mut stream = soon(server.hub.open_tcp(UUID, 48484)).await.unwrap();
    stream
        .write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
    device.stop().await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_said() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let refused = soon(server.hub.open_tcp(UUID, 1)).await.err();
    let reason = refused.map(|error| error.to_string()).unwrap_or_default();
    assert!(reason.contains("port 1 of the device"), "{reason}");
    device.stop().await;
}

#[tokio::test]
async fn the_25th_stream_is_refused_until_one_ends() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let port = service(|mut socket| async move {
        // Open as long as the device keeps it open.
        while socket.read_u8().await.is_ok() {}
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..24 {
        streams.push(soon(server.hub.open_tcp(UUID, port)).await.unwrap());
    }
    let refused = soon(server.hub.open_tcp(UUID, port)).await;
    assert!(matches!(refused, Err(OpenError::TooManyStreams)));
    // Again and again: dropped streams are gone on the device too, and the tunnel survives.
    for _ in 0..100 {
        streams.pop();
        let stream = loop {
            match soon(server.hub.open_tcp(UUID, port)).await {
                Ok(stream) => break stream,
                Err(OpenError::Refused(reason)) => assert!(reason.contains("limit"), "{reason}"),
                Err(error) => panic!("{error}"),
            }
        };
        streams.insert(0, stream);
    }
    assert!(server.hub.is_connected(UUID));
    device.stop().await;
}

#[tokio::test]
async fn a_stalled_stream_holds_up_no_other() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let endless = service(|mut socket| async move {
        let chunk = [7; 64 * 1024];
        while socket.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let echo = service(reverse).await;
    let mut stalled = soon(server.hub.open_tcp(UUID, endless)).await.unwrap();
    stalled.read_u8().await.unwrap();
    // Nobody reads `stalled` while this goes on for longer than any window.
    for _ in 0..20 {
        let stream = soon(server.hub.open_tcp(UUID, echo)).await.unwrap();
        let answer = soon(exchange(stream, &[1; 100_000])).await;
        assert_eq!(answer.len(), 100_000);
    }
    let mut chunk = vec![0; 1_000_000];
    soon(stalled.read_exact(&mut chunk)).await.unwrap();
    assert!(chunk.iter().all(|byte| *byte == 7));
    device.stop().await;
}
