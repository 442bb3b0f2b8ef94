//! All connected devices, by uuid.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use minke_common_tunnel::{
    Answer, HEARTBEAT_MS, HeaderError, LineError, MAX_STREAMS, Mux, MuxError, StreamHeader,
    read_line, write_line,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;

use crate::connection::{self, End, Open};
use crate::ports::{DeviceAuth, DeviceId};
use crate::presence::Presence;
use crate::stream::TunnelStream;

/// "Look now" calls that run at once.
const LOOKS_AT_ONCE: usize = 256;

/// What may be set about a hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Heartbeat of a device that does not name one.
    pub heartbeat: Duration,
    /// Shortest heartbeat that a device may ask for; the longest is an hour.
    pub shortest_heartbeat: Duration,
    /// How long a device may be away before it is reported as disconnected.
    pub grace: Duration,
    /// How long a device has to answer when a stream is opened.
    pub open_timeout: Duration,
    /// Tunnels at once; one more is refused with 503.
    pub max_tunnels: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(HEARTBEAT_MS),
            shortest_heartbeat: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            open_timeout: Duration::from_secs(15),
            max_tunnels: 250_000,
        }
    }
}

/// Why no stream to a device could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device has no tunnel now.
    #[error("the device is not connected")]
    NotConnected,
    /// All its streams are in use.
    #[error("{MAX_STREAMS} streams to this device are open already, which is the limit")]
    TooManyStreams,
    /// The device did not answer in time.
    #[error("the device did not answer in time")]
    TimedOut,
    /// The device answered no.
    #[error("the device refused: {0}")]
    Refused(String),
    /// The device's answer makes no sense.
    #[error("the device gave an answer that is not understood")]
    Answer(#[source] HeaderError),
    /// The tunnel broke before the device answered.
    #[error("the tunnel broke")]
    Broken(#[source] MuxError),
    /// The stream broke before the device answered.
    #[error("the device ended the stream")]
    Line(#[source] LineError),
}

struct Tunnel {
    serial: u64,
    /// Whose key opened it.
    device: DeviceId,
    opens: mpsc::Sender<Open>,
    slots: Arc<Semaphore>,
}

#[derive(Default)]
struct Tunnels {
    by_uuid: HashMap<String, Tunnel>,
    last_serial: u64,
    closed: bool,
}

pub(crate) struct Inner {
    pub(crate) auth: Arc<dyn DeviceAuth>,
    pub(crate) options: HubOptions,
    tunnels: RwLock<Tunnels>,
    presence: Arc<Presence>,
    reporter: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reporter.abort();
    }
}

impl Inner {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tunnels> {
        self.tunnels.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Tunnels> {
        self.tunnels.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn device(&self, uuid: &str) -> Option<DeviceId> {
        self.read().by_uuid.get(uuid).map(|tunnel| tunnel.device)
    }
}

/// All connected devices. Cheap to clone; all clones are the same hub.
#[derive(Clone)]
pub struct Hub(pub(crate) Arc<Inner>);

impl Hub {
    /// A hub that nobody is connected to. Must be called inside a runtime: it starts the task
    /// that reports to `auth` who is connected.
    pub fn new(auth: Arc<dyn DeviceAuth>, options: HubOptions) -> Self {
        let presence = Arc::new(Presence::default());
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let (presence_of_task, auth_of_task) = (presence.clone(), auth.clone());
            let inner = inner.clone();
            let reporter = tokio::spawn(async move {
                let device = |uuid: &str| inner.upgrade()?.device(uuid);
                presence_of_task.report(&*auth_of_task, device).await
            });
            let reporter = reporter.abort_handle();
            Inner { auth, options, tunnels: RwLock::default(), presence, reporter }
        });
        Self(inner)
    }

    /// Whether the device has a tunnel now.
    pub fn is_connected(&self, uuid: &str) -> bool {
        self.device(uuid).is_some()
    }

    /// The row of the device that dialled in as `uuid`. Its row may be gone since, and another may
    /// have its uuid: who reaches a device by its row asks this first.
    pub fn device(&self, uuid: &str) -> Option<DeviceId> {
        self.0.device(uuid)
    }

    /// Tunnels now.
    pub fn count(&self) -> usize {
        self.0.read().by_uuid.len()
    }

    /// Opens a TCP connection to a port of the device; 48484 is its supervisor.
    pub async fn open_tcp(&self, uuid: &str, port: u16) -> Result<TunnelStream, OpenError> {
        self.open(uuid, StreamHeader::Tcp { port }).await
    }

    /// Tells the device that its target state changed; answers when its supervisor knows.
    pub async fn look(&self, uuid: &str) -> Result<(), OpenError> {
        self.open(uuid, StreamHeader::Look).await.map(drop)
    }

    /// Tells many devices in the background. Who is not connected looks by itself when it is.
    pub fn look_soon(&self, uuids: Vec<String>) {
        let hub = self.clone();
        tokio::spawn(async move {
            let connected = uuids.into_iter().filter(|uuid| hub.is_connected(uuid));
            let looks = connected.map(|uuid| {
                let hub = hub.clone();
                async move {
                    if let Err(error) = hub.look(&uuid).await {
                        tracing::debug!(uuid, %error, "a device could not be told to look");
                    }
                }
            });
            futures_util::stream::iter(looks).for_each_concurrent(LOOKS_AT_ONCE, |look| look).await;
        });
    }

    /// Ends all tunnels in order and admits no more.
    pub fn close(&self) {
        let mut tunnels = self.0.write();
        tunnels.closed = true;
        tunnels.by_uuid.clear();
    }

    async fn open(&self, uuid: &str, header: StreamHeader) -> Result<TunnelStream, OpenError> {
        let (opens, slots) = {
            let tunnels = self.0.read();
            let tunnel = tunnels.by_uuid.get(uuid).ok_or(OpenError::NotConnected)?;
            (tunnel.opens.clone(), tunnel.slots.clone())
        };
        let slot = slots.try_acquire_owned().map_err(|_| OpenError::TooManyStreams)?;
        let ask = async {
            let (answer, opened) = oneshot::channel();
            opens.send(answer).await.map_err(|_| OpenError::NotConnected)?;
            // While this waits for the device, the tunnel must be able to end.
            drop(opens);
            let stream = opened.await.map_err(|_| OpenError::NotConnected)?;
            let mut stream = stream.map_err(OpenError::Broken)?;
            let line = |error| OpenError::Line(LineError::Broken(error));
            write_line(&mut stream, &header.to_line()).await.map_err(line)?;
            let answer = read_line(&mut stream).await.map_err(OpenError::Line)?;
            let answer = Answer::parse(&answer).map_err(OpenError::Answer)?;
            if !answer.ok {
                let reason = answer.error.unwrap_or_else(|| "no reason given".to_owned());
                return Err(OpenError::Refused(reason));
            }
            Ok(stream)
        };
        let opened = tokio::time::timeout(self.0.options.open_timeout, ask).await;
        Ok(TunnelStream::new(opened.map_err(|_| OpenError::TimedOut)??, slot))
    }

    /// Runs the tunnel of a device until it ends.
    pub(crate) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        (uuid, device): (&str, DeviceId),
        mux: Mux<WebSocketStream<T>>,
        heartbeat: Duration,
    ) {
        let (opens, receiver) = mpsc::channel(1);
        let Some(serial) = self.enter(uuid, device, opens) else { return };
        tracing::debug!(uuid, device = device.0, "a tunnel is up");
        let end = connection::run(mux, receiver, heartbeat).await;
        self.leave(uuid, serial);
        match end {
            End::Broken(_) | End::Silent => tracing::info!(uuid, error = %end, "a tunnel ended"),
            End::Closed | End::Replaced => tracing::debug!(uuid, reason = %end, "a tunnel ended"),
        }
    }

    /// The newest tunnel of a device takes the place of an older one, which then ends.
    fn enter(&self, uuid: &str, device: DeviceId, opens: mpsc::Sender<Open>) -> Option<u64> {
        let mut tunnels = self.0.write();
        if tunnels.closed {
            return None;
        }
        tunnels.last_serial += 1;
        let serial = tunnels.last_serial;
        let slots = Arc::new(Semaphore::new(MAX_STREAMS));
        tunnels.by_uuid.insert(uuid.to_owned(), Tunnel { serial, device, opens, slots });
        self.0.presence.came(uuid);
        Some(serial)
    }

    fn leave(&self, uuid: &str, serial: u64) {
        let mut tunnels = self.0.write();
        if tunnels.by_uuid.get(uuid).is_some_and(|tunnel| tunnel.serial == serial) {
            tunnels.by_uuid.remove(uuid);
        }
        self.0.presence.left(uuid, self.0.options.grace);
    }
}
