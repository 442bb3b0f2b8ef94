//! What the supervisor is told, through its own API: that it is to fetch the target state ("look
//! now"), and whether the tunnel is up.

use std::io;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::options::TunnelOptions;

/// A key longer than this is none.
const MAX_KEY: u64 = 4096;

/// Why the supervisor was not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("the supervisor's API key cannot be read: {0}")]
    Key(io::Error),
    #[error("the supervisor cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the supervisor did not answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the supervisor's API key cannot stand in a header")]
    Request(#[from] hyper::http::Error),
    #[error("the supervisor answered {0}")]
    Status(u16),
    #[error("the supervisor did not answer within {0:?}")]
    TimedOut(Duration),
}

/// Has it fetch the target state.
pub(crate) async fn look(options: &TunnelOptions) -> Result<(), LookError> {
    tell(options, "/v1/update", "{}".to_owned()).await
}

/// The tunnel is up and will be for so long, or until this is said again; zero says that it is down.
pub(crate) async fn up_for(options: &TunnelOptions, time: Duration) -> Result<(), LookError> {
    let body = format!("{{\"upForMs\":{}}}", time.as_millis());
    tell(options, "/minke/v1/tunnel", body).await
}

async fn tell(options: &TunnelOptions, path: &str, body: String) -> Result<(), LookError> {
    let limit = options.timeout;
    let told = tokio::time::timeout(limit, post(options, path, body));
    told.await.map_err(|_| LookError::TimedOut(limit))?
}

async fn post(options: &TunnelOptions, path: &str, body: String) -> Result<(), LookError> {
    let key = read_key(options).map_err(LookError::Key)?;
    let socket = TcpStream::connect(options.supervisor).await.map_err(LookError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let request = Request::post(path)
        .header(HOST, options.supervisor.to_string())
        .header(AUTHORIZATION, format!("Bearer {key}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let asking = async {
        let status = sender.send_request(request).await?.status();
        // The connection ends when nobody can send on it any more.
        drop(sender);
        Ok::<_, hyper::Error>(status)
    };
    let (status, _) = tokio::join!(asking, connection);
    let status = status?;
    if status.is_success() { Ok(()) } else { Err(LookError::Status(status.as_u16())) }
}

/// Read anew each time: the supervisor may have made a new one.
fn read_key(options: &TunnelOptions) -> io::Result<String> {
    let file = std::fs::File::open(&options.api_key_file)?;
    let mut key = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, MAX_KEY), &mut key)?;
    Ok(key.trim().to_owned())
}
