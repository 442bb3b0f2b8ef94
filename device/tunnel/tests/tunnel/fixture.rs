//! A server, a device and a network between them that can be made to fail.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::future::{BoxFuture, FutureExt};
use minke_cloud_tunnel::{
    ConnectAuth, ConnectHandler, Credentials, DeviceAuth, DeviceId, Hub, HubOptions, ServeOptions,
    TunnelStream, Verdict, serve,
};
use minke_device_tunnel::TunnelOptions;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const UUID: &str = "0123456789abcdef0123456789abcdef";
pub const KEY: &str = "device-key";
pub const SUPERVISOR_KEY: &str = "supervisor-key";
/// Nothing here takes this long; what does has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`; a test never hangs.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should have happened long ago")
}

/// The database's part, in memory.
pub struct Accounts {
    pub keys: Mutex<HashMap<String, String>>,
    /// Everything that was reported, in order.
    pub reports: watch::Sender<Vec<(String, bool)>>,
}

impl Default for Accounts {
    fn default() -> Self {
        let keys = HashMap::from([(UUID.to_owned(), KEY.to_owned())]);
        Self { keys: Mutex::new(keys), reports: watch::Sender::default() }
    }
}

impl DeviceAuth for Accounts {
    fn authenticate<'a>(&'a self, uuid: &'a str, key: &'a str) -> BoxFuture<'a, Option<DeviceId>> {
        let known = self.keys.lock().unwrap().get(uuid).is_some_and(|known| known == key);
        async move { known.then_some(DeviceId(1)) }.boxed()
    }

    fn connected<'a>(&'a self, uuid: &'a str, connected: bool) -> BoxFuture<'a, ()> {
        self.reports.send_modify(|reports| reports.push((uuid.to_owned(), connected)));
        async {}.boxed()
    }
}

impl ConnectAuth for Accounts {
    fn may_connect<'a>(
        &'a self,
        credentials: &'a Credentials,
        _uuid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Verdict> {
        let verdict = match credentials.token.as_str() {
            "any" => Verdict::Allowed,
            "ssh" if port == 22222 => Verdict::Allowed,
            "ssh" => Verdict::Forbidden,
            _ => Verdict::Unauthorized,
        };
        async move { verdict }.boxed()
    }
}

/// A server on a port of its own.
pub struct Server {
    pub hub: Hub,
    pub accounts: Arc<Accounts>,
    pub address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

pub fn hub_options() -> HubOptions {
    HubOptions {
        shortest_heartbeat: Duration::from_millis(10),
        grace: Duration::from_millis(50),
        ..HubOptions::default()
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), hub_options()).await
    }

    pub async fn start_at(address: SocketAddr, options: HubOptions) -> Self {
        let accounts = Arc::new(Accounts::default());
        let hub = Hub::new(accounts.clone(), options);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = ConnectHandler::new(hub.clone(), accounts.clone());
        let (router, stop) = (Router::new().merge(hub.router()), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            serve(listener, router, connect, ServeOptions::default(), stopped).await.unwrap();
        });
        Self { hub, accounts, address, stop, serving }
    }

    /// Waits until the device is, or is not, connected.
    pub async fn until_connected(&self, connected: bool) {
        soon(async {
            while self.hub.is_connected(UUID) != connected {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until these were reported, in this order, and nothing else.
    pub async fn until_reported(&self, expected: &[bool]) {
        let mut reports = self.accounts.reports.subscribe();
        let reported = soon(reports.wait_for(|reports| reports.len() >= expected.len())).await;
        let reported: Vec<_> = reported.unwrap().iter().map(|(_, connected)| *connected).collect();
        assert_eq!(reported, expected);
    }

    /// Ends tunnels and listener, as a server that is stopped does.
    pub async fn stop(self) {
        self.hub.close();
        self.stop.cancel();
        soon(self.serving).await.unwrap();
    }
}

/// A device with a supervisor that counts how often it was told to look, and keeps how long the tunnel
/// said that it is up for, in milliseconds.
pub struct Device {
    pub dir: TempDir,
    pub looks: watch::Receiver<u32>,
    pub up_for: watch::Receiver<Vec<u64>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Device {
    pub async fn start(server: SocketAddr) -> Self {
        Self::start_with(server, KEY, |_| {}).await
    }

    pub async fn start_with(
        server: SocketAddr,
        key: &str,
        adjust: impl FnOnce(&mut TunnelOptions),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("supervisor")).unwrap();
        std::fs::write(dir.path().join("supervisor/api-key"), SUPERVISOR_KEY).unwrap();
        let (supervisor, looks, up_for, serving) = supervisor().await;
        let mut options = TunnelOptions {
            supervisor,
            local: IpAddr::V4(Ipv4Addr::LOCALHOST),
            config_poll: Duration::from_millis(20),
            backoff: (Duration::from_millis(10), Duration::from_millis(100)),
            ..TunnelOptions::new(dir.path())
        };
        adjust(&mut options);
        let stop = CancellationToken::new();
        let device = Self { looks, up_for, stop: stop.clone(), tasks: vec![serving], dir };
        device.configure(&format!("http://{server}"), key);
        let tunnel = tokio::spawn(minke_device_tunnel::serve(options, stop));
        Self { tasks: device.tasks.into_iter().chain([tunnel]).collect(), ..device }
    }

    /// Writes `config.json` as a provisioned device has it.
    pub fn configure(&self, endpoint: &str, key: &str) {
        self.write_config(&serde_json::json!({
            "apiEndpoint": endpoint, "uuid": UUID, "deviceApiKey": key,
            "deviceId": 1, "registered_at": 1,
        }));
    }

    pub fn write_config(&self, config: &serde_json::Value) {
        let scratch = self.dir.path().join("config.new");
        std::fs::write(&scratch, config.to_string()).unwrap();
        std::fs::rename(scratch, self.config_path()).unwrap();
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    pub async fn until_looked(&mut self, times: u32) {
        soon(self.looks.wait_for(|looks| *looks >= times)).await.unwrap();
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        soon(self.tasks.pop().unwrap()).await.unwrap();
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

type Told = (SocketAddr, watch::Receiver<u32>, watch::Receiver<Vec<u64>>, JoinHandle<()>);

async fn supervisor() -> Told {
    let (told, looks) = watch::channel(0);
    let (says, up_for) = watch::channel(Vec::new());
    let is_allowed = |headers: &HeaderMap| {
        let bearer = format!("Bearer {SUPERVISOR_KEY}");
        headers.get("authorization").is_some_and(|value| value == bearer.as_str())
    };
    let update = move |headers: HeaderMap| async move {
        if !is_allowed(&headers) {
            return StatusCode::UNAUTHORIZED;
        }
        told.send_modify(|looks| *looks += 1);
        StatusCode::NO_CONTENT
    };
    let tunnel = move |headers: HeaderMap, Json(body): Json<serde_json::Value>| async move {
        if !is_allowed(&headers) {
            return StatusCode::UNAUTHORIZED;
        }
        says.send_modify(|all| all.push(body["upForMs"].as_u64().unwrap()));
        StatusCode::NO_CONTENT
    };
    let router =
        Router::new().route("/v1/update", post(update)).route("/minke/v1/tunnel", post(tunnel));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, looks, up_for, serving)
}

/// A TCP service of the device; `serve` gets each connection.
pub async fn service<F, T>(serve: F) -> u16
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    port
}

/// Reads to the end and answers with the same bytes in reverse order: needs half-close.
pub async fn reverse(mut socket: TcpStream) {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    bytes.reverse();
    socket.write_all(&bytes).await.unwrap();
}

/// Sends `bytes`, closes that side, and reads what comes back.
pub async fn exchange(mut stream: TunnelStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

/// A network path to `server` that can be frozen: nothing is lost, nothing moves.
pub struct Path {
    pub address: SocketAddr,
    frozen: watch::Sender<bool>,
}

impl Path {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = watch::Sender::new(false);
        let watched = frozen.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let frozen = watched.clone();
                tokio::spawn(async move {
                    let far = TcpStream::connect(server).await.unwrap();
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    tokio::join!(
                        forward(near_in, far_out, frozen.clone()),
                        forward(far_in, near_out, frozen)
                    );
                });
            }
        });
        Self { address, frozen }
    }

    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err()
            || count == 0
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
