//! What the server's streams ask for: a TCP port of this device, or "look now".

use std::net::SocketAddr;
use std::sync::Arc;

use minke_common_model::config_json::DEFAULT_LISTEN_PORT;
use minke_common_tunnel::{Answer, MAX_STREAMS, Stream, StreamHeader, read_line, write_line};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::look::look;
use crate::options::TunnelOptions;

/// Answers the streams of one session. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Streams {
    options: Arc<TunnelOptions>,
    slots: Arc<Semaphore>,
}

impl Streams {
    pub(crate) fn new(options: Arc<TunnelOptions>) -> Self {
        Self { options, slots: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }

    /// Does what the stream asks for, until it ends.
    pub(crate) async fn answer(self, mut stream: Stream) {
        let Ok(_slot) = self.slots.clone().try_acquire_owned() else {
            let reason = format!("{MAX_STREAMS} streams are open already, which is the limit");
            return refuse(&mut stream, reason).await;
        };
        let header = tokio::time::timeout(self.options.timeout, read_line(&mut stream)).await;
        let header = match header {
            Err(_) => Err("the first line did not come in time".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(line)) => StreamHeader::parse(&line).map_err(|error| error.to_string()),
        };
        match header {
            Err(reason) => refuse(&mut stream, reason).await,
            Ok(StreamHeader::Look) => match look(&self.options).await {
                Ok(()) => accept(&mut stream).await,
                Err(error) => refuse(&mut stream, error.to_string()).await,
            },
            Ok(StreamHeader::Tcp { port }) => self.carry(stream, port).await,
        }
    }

    async fn carry(&self, mut stream: Stream, port: u16) {
        let address = match port {
            DEFAULT_LISTEN_PORT => self.options.supervisor,
            port => SocketAddr::new(self.options.local, port),
        };
        let connect = TcpStream::connect(address);
        let mut socket = match tokio::time::timeout(self.options.timeout, connect).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                return refuse(&mut stream, format!("port {port} of the device: {error}")).await;
            }
            Err(_) => {
                return refuse(&mut stream, format!("port {port} of the device is silent")).await;
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        if write_line(&mut stream, &Answer::accept().to_line()).await.is_err() {
            return;
        }
        let mut stream = stream.compat();
        if let Err(error) = copy_bidirectional(&mut stream, &mut socket).await {
            tracing::debug!(port, %error, "a stream broke");
        }
    }
}

async fn accept(stream: &mut Stream) {
    finish(stream, &Answer::accept()).await;
}

async fn refuse(stream: &mut Stream, reason: String) {
    tracing::debug!(reason, "refused a stream");
    finish(stream, &Answer::refuse(reason)).await;
}

/// Answers, and ends the stream in order so that the answer arrives.
async fn finish(stream: &mut Stream, answer: &Answer) {
    use tokio::io::AsyncWriteExt;
    // A server that does not wait for the answer is no error of this device.
    if write_line(stream, &answer.to_line()).await.is_ok() {
        let _ = stream.compat().shutdown().await;
    }
}
