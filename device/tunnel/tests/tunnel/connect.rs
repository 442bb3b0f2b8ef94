//! `CONNECT <uuid>.balena:<port>` as the command line's clients send it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Device, Server, UUID, reverse, service, soon};

async fn connect(server: SocketAddr, target: &str, basic: Option<&str>) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(server).await.unwrap();
    let mut request = format!("CONNECT {target} HTTP/1.0\r\n");
    if let Some(basic) = basic {
        request += &format!("Proxy-Authorization: Basic {basic}\r\n");
    }
    socket.write_all((request + "\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    (socket, head)
}

/// base64 of `root:any`, `root:ssh`, `root:no`.
const ANY: &str = "cm9vdDphbnk=";
const SSH: &str = "cm9vdDpzc2g=";
const NOBODY: &str = "cm9vdDpubw==";

#[tokio::test]
async fn a_port_of_a_device_is_reached_as_if_it_were_here() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let port = service(reverse).await;
    let (mut socket, head) =
        connect(server.address, &format!("{UUID}.balena:{port}"), Some(ANY)).await;
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    let sent = vec![b'a'; 500_000];
    socket.write_all(&sent).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut received = Vec::new();
    soon(socket.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received.len(), sent.len());
    device.stop().await;
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let server = Server::start().await;
    let device = Device::start(server.address).await;
    server.until_connected(true).await;
    let ssh = format!("{UUID}.balena:22222");
    let other = format!("{UUID}.balena:80");
    let away = format!("{}.balena:80", "f".repeat(32));
    for (target, basic, expected) in [
        (&ssh, None, "407"),
        (&ssh, Some(NOBODY), "407"),
        (&ssh, Some("%%%"), "407"),
        (&other, Some(SSH), "403"),
        (&away, Some(ANY), "503"),
        (&"127.0.0.1:80".to_owned(), Some(ANY), "400"),
    ] {
        let (_, head) = connect(server.address, target, basic).await;
        assert_eq!(&head[9..12], expected, "{target} {basic:?}: {head}");
    }
    device.stop().await;
}

#[tokio::test]
async fn other_requests_on_the_same_listener_reach_the_router() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket
        .write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}
