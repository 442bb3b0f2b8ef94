//! One dial: TCP, perhaps through a proxy, perhaps TLS, then the WebSocket handshake.

use std::io;
use std::time::Duration;

use minke_common_tunnel::{VERSION, websocket_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, RETRY_AFTER};
use tokio_tungstenite::tungstenite::{Error, handshake::client::Request};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::endpoint::Endpoint;
use crate::options::TunnelOptions;
use crate::proxy::{Proxies, Proxy};
use crate::tls::{self, TlsError};

/// A proxy's answer to `CONNECT` is read up to this length.
const MAX_PROXY_ANSWER: usize = 8 * 1024;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the server did not answer in time")]
    TimedOut,
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    #[error("the proxy {0} refused: {1}")]
    Proxy(String, String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the server answered {status}: {reason}")]
    Refused { status: u16, reason: String, retry_after: Option<Duration> },
    #[error("the WebSocket handshake failed")]
    Handshake(#[source] Box<Error>),
}

impl DialError {
    /// What the server asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Dials the server once.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    options: &TunnelOptions,
    proxies: &Proxies,
) -> Result<Socket, DialError> {
    let dialling = async {
        let socket = connect(endpoint, proxies).await?;
        let connector = match endpoint.server.tls {
            true => Connector::Rustls(tls::config(endpoint.root_ca.as_deref())?),
            false => Connector::Plain,
        };
        let config = Some(websocket_config());
        let request = request(endpoint, options)?;
        let upgraded = client_async_tls_with_config(request, socket, config, Some(connector)).await;
        upgraded.map(|(socket, _)| socket).map_err(refusal)
    };
    tokio::time::timeout(options.timeout, dialling).await.map_err(|_| DialError::TimedOut)?
}

fn request(endpoint: &Endpoint, options: &TunnelOptions) -> Result<Request, DialError> {
    let handshake = |error| DialError::Handshake(Box::new(error));
    let server = &endpoint.server;
    let scheme = if server.tls { "wss" } else { "ws" };
    let url = format!(
        "{scheme}://{}{}/tunnel?uuid={}&v={VERSION}&heartbeat={}",
        server.authority(),
        server.path,
        endpoint.uuid,
        options.heartbeat.as_millis(),
    );
    let mut request = url.into_client_request().map_err(handshake)?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", endpoint.key));
    let mut bearer = bearer.map_err(|error| handshake(Error::HttpFormat(error.into())))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

fn refusal(error: Error) -> DialError {
    let Error::Http(response) = error else { return DialError::Handshake(Box::new(error)) };
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let body = response.body().as_deref().unwrap_or_default();
    DialError::Refused {
        status: response.status().as_u16(),
        reason: String::from_utf8_lossy(body).chars().take(200).collect(),
        retry_after: retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs),
    }
}

async fn connect(endpoint: &Endpoint, proxies: &Proxies) -> Result<TcpStream, DialError> {
    let server = &endpoint.server;
    let proxy = proxies.proxy_for(server);
    let (host, port) = match &proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (server.host.as_str(), server.port),
    };
    let failed = |error| DialError::Connect(format!("{host}:{port}"), error);
    let mut socket = TcpStream::connect((host, port)).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    if let Some(proxy) = &proxy {
        ask_proxy(&mut socket, proxy, &server.authority()).await?;
    }
    Ok(socket)
}

async fn ask_proxy(
    socket: &mut TcpStream,
    proxy: &Proxy,
    authority: &str,
) -> Result<(), DialError> {
    let name = format!("{}:{}", proxy.host, proxy.port);
    let failed = |error| DialError::Connect(name.clone(), error);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    request += "\r\n";
    socket.write_all(request.as_bytes()).await.map_err(failed)?;
    // Byte by byte: what follows the answer is the server's. Once per dial, so cheap enough.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_PROXY_ANSWER {
            return Err(DialError::Proxy(name, "its answer is too long".to_owned()));
        }
        answer.push(socket.read_u8().await.map_err(failed)?);
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(()),
        _ => Err(DialError::Proxy(name, status.chars().take(200).collect())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoint::Server;

    fn endpoint() -> Endpoint {
        let server = Server::parse("http://server.example:8080").unwrap();
        Endpoint { server, uuid: "ab".to_owned(), key: "k".to_owned(), root_ca: None }
    }

    /// A proxy that answers once; gives what it was asked.
    async fn proxy(answer: &'static [u8]) -> (Proxies, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://user:pw@{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (Proxies::for_all(&address), asked)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_server_and_keeps_to_itself() {
        let (proxies, asked) = proxy(b"HTTP/1.1 200 Connected\r\nVia: p\r\n\r\nhello").await;
        let mut socket = connect(&endpoint(), &proxies).await.unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT server.example:8080 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic dXNlcjpwdw==\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named() {
        let (proxies, _asked) = proxy(b"HTTP/1.1 407 No\r\n\r\n").await;
        let error = connect(&endpoint(), &proxies).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1") && error.contains("407 No"), "{error}");
        assert!(!error.contains("pw"), "{error}");
    }
}
