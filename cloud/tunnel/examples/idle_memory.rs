//! Prints what an idle tunnel costs the server: `cargo run --release -p minke-cloud-tunnel
//! --example idle_memory [connections]`. The devices are a second process, so that only the
//! server's half is measured; sockets in the kernel are not counted.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::{BoxFuture, FutureExt};
use minke_cloud_tunnel::{
    ConnectAuth, ConnectHandler, Credentials, DeviceAuth, DeviceId, Hub, HubOptions, ServeOptions,
    Verdict, serve,
};
use minke_common_tunnel::{Event, Mux, Side, websocket_config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

struct Everybody;

impl DeviceAuth for Everybody {
    fn authenticate<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Option<DeviceId>> {
        async { Some(DeviceId(1)) }.boxed()
    }

    fn connected<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, ()> {
        async {}.boxed()
    }
}

impl ConnectAuth for Everybody {
    fn may_connect<'a>(&'a self, _: &'a Credentials, _: &'a str, _: u16) -> BoxFuture<'a, Verdict> {
        async { Verdict::Forbidden }.boxed()
    }
}

fn main() {
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.as_slice() {
        [devices, server, count] if devices == "devices" => {
            runtime.block_on(dial_all(server.parse().unwrap(), count.parse().unwrap()));
        }
        [count] => runtime.block_on(measure(count.parse().unwrap())),
        _ => runtime.block_on(measure(5000)),
    }
}

async fn measure(count: usize) {
    let hub = Hub::new(Arc::new(Everybody), HubOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = ConnectHandler::new(hub.clone(), Arc::new(Everybody));
    let router = Router::new().merge(hub.router());
    let options = ServeOptions::default();
    tokio::spawn(serve(listener, router, connect, options, std::future::pending()));
    let before = resident();
    let mut devices = Command::new(std::env::current_exe().unwrap())
        .args(["devices", &address.to_string(), &count.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    while hub.count() < count {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let grown = resident() - before;
    println!("{count} idle tunnels: {grown} kB, {:.1} kB each", grown as f64 / count as f64);
    devices.kill().unwrap();
    devices.wait().unwrap();
}

/// Kilobytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn dial_all(server: SocketAddr, count: usize) {
    for number in 0..count {
        let url = format!("ws://{server}/tunnel?uuid={number:032x}&v=1");
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer k"));
        let socket = TcpStream::connect(server).await.unwrap();
        let config = Some(websocket_config());
        let (socket, _) = client_async_with_config(request, socket, config).await.unwrap();
        let mut mux = Mux::new(socket, Side::Device);
        tokio::spawn(async move {
            while let Event::Stream(stream) = poll_fn(|cx| mux.poll(cx)).await {
                drop(stream);
            }
        });
    }
    std::future::pending::<()>().await;
}
