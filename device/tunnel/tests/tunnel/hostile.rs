//! Ends that do not keep to the protocol.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use minke_cloud_tunnel::OpenError;
use minke_common_tunnel::{Event, Mux, Side, Stream, read_line, websocket_config, write_line};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async};

use crate::fixture::{Device, KEY, Server, UUID, soon};

type Tunnel = Mux<WebSocketStream<TcpStream>>;

/// Polls the tunnel while `work` goes on.
async fn with<T>(tunnel: &mut Tunnel, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    soon(poll_fn(|cx| {
        if let Poll::Ready(event) = tunnel.poll(cx) {
            panic!("the tunnel should go on: {event:?}");
        }
        work.as_mut().poll(cx)
    }))
    .await
}

/// A server that says what the test wants.
async fn bare_server() -> (Device, Tunnel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = Device::start(listener.local_addr().unwrap()).await;
    let (socket, _) = soon(listener.accept()).await.unwrap();
    let socket = soon(accept_async_with_config(socket, Some(websocket_config()))).await.unwrap();
    (device, Mux::new(socket, Side::Server))
}

#[tokio::test]
async fn a_first_line_that_makes_no_sense_is_answered_with_the_reason() {
    let (device, mut tunnel) = bare_server().await;
    let too_long = "x".repeat(5000);
    let (null, deep) = ("\0", "[".repeat(4000));
    for (line, reason) in [
        ("", "not understood"),
        ("not json", "not understood"),
        (r#"{"kind":"udp","port":1}"#, "not understood"),
        (r#"{"kind":"tcp","port":65536}"#, "not understood"),
        (r#"{"kind":"tcp","port":0}"#, "port 0"),
        (null, "not understood"),
        (deep.as_str(), "not understood"),
        (too_long.as_str(), "at most 4096"),
    ] {
        let mut stream = tunnel.open().unwrap();
        let answer = with(&mut tunnel, async {
            write_line(&mut stream, line).await.unwrap();
            let answer = read_line(&mut stream).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the stream ends");
            String::from_utf8(answer).unwrap()
        })
        .await;
        assert!(answer.contains(r#""ok":false"#) && answer.contains(reason), "{line}: {answer}");
    }
    device.stop().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_by_the_device_too() {
    let (device, mut tunnel) = bare_server().await;
    let mut silent = Vec::new();
    for _ in 0..24 {
        let mut stream = tunnel.open().unwrap();
        with(&mut tunnel, async { stream.write_all(b"{").await.unwrap() }).await;
        silent.push(stream);
    }
    let mut stream = tunnel.open().unwrap();
    let answer = with(&mut tunnel, async {
        stream.write_all(b"{").await.unwrap();
        read_line(&mut stream).await.unwrap()
    })
    .await;
    assert!(String::from_utf8_lossy(&answer).contains("24 streams"));
    device.stop().await;
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_left_and_dialled_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = Device::start(listener.local_addr().unwrap()).await;
    for _ in 0..3 {
        let (socket, _) = soon(listener.accept()).await.unwrap();
        let mut socket = soon(accept_async_with_config(socket, None)).await.unwrap();
        let text = tokio_tungstenite::tungstenite::Message::text("hello");
        futures_util::SinkExt::send(&mut socket, text).await.unwrap();
        // The device ends it: reading comes to an end.
        soon(async { while futures_util::StreamExt::next(&mut socket).await.is_some() {} }).await;
    }
    device.stop().await;
}

/// A device that answers what the test wants.
async fn bare_device(server: &Server) -> Tunnel {
    let url = format!("ws://{}/tunnel?uuid={UUID}&v=1", server.address);
    let mut request = url.into_client_request().unwrap();
    let bearer = HeaderValue::from_str(&format!("Bearer {KEY}")).unwrap();
    request.headers_mut().insert("authorization", bearer);
    let socket = TcpStream::connect(server.address).await.unwrap();
    let (socket, _) = soon(client_async(request, socket)).await.unwrap();
    server.until_connected(true).await;
    Mux::new(socket, Side::Device)
}

async fn next_stream(tunnel: &mut Tunnel) -> Stream {
    match soon(poll_fn(|cx| tunnel.poll(cx))).await {
        Event::Stream(stream) => stream,
        other => panic!("no stream: {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_error_of_that_stream_only() {
    let server = Server::start().await;
    let mut tunnel = bare_device(&server).await;
    let long = "y".repeat(5000);
    for answer in ["", "nonsense", r#"{"ok":"yes"}"#, long.as_str()] {
        let hub = server.hub.clone();
        let asking = tokio::spawn(async move { hub.open_tcp(UUID, 80).await.map(drop) });
        let mut stream = next_stream(&mut tunnel).await;
        let opened = with(&mut tunnel, async {
            write_line(&mut stream, answer).await.unwrap();
            asking.await.unwrap()
        })
        .await;
        assert!(matches!(opened, Err(OpenError::Answer(_) | OpenError::Line(_))), "{opened:?}");
        assert!(server.hub.is_connected(UUID));
    }
}

#[tokio::test]
async fn a_device_may_not_open_streams() {
    let server = Server::start().await;
    let mut tunnel = bare_device(&server).await;
    let mut stream = tunnel.open().unwrap();
    let ended = with(&mut tunnel, async {
        write_line(&mut stream, r#"{"kind":"tcp","port":22}"#).await.unwrap();
        stream.read(&mut [0]).await
    })
    .await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(server.hub.is_connected(UUID));
}
