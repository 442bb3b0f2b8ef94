//! `CONNECT <uuid>.balena:<port>`: people and services reach a port of a device.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::hub::{Hub, OpenError};
use crate::ports::{ConnectAuth, Credentials, Verdict};
use crate::stream::TunnelStream;
use crate::upgrade::is_uuid;

/// Suffixes that mark a host as a device.
const SUFFIXES: [&str; 2] = [".balena", ".resin"];

/// Answers `CONNECT`. Cheap to clone.
#[derive(Clone)]
pub struct ConnectHandler {
    hub: Hub,
    auth: Arc<dyn ConnectAuth>,
}

impl ConnectHandler {
    /// Reaches the devices of `hub`, as far as `auth` allows.
    pub fn new(hub: Hub, auth: Arc<dyn ConnectAuth>) -> Self {
        Self { hub, auth }
    }

    /// Answers one request, and on success goes on carrying bytes in the background.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let Some((uuid, port)) = target(request.uri()) else {
            return refuse(StatusCode::BAD_REQUEST, "the target is <uuid>.balena:<port>");
        };
        let Some(credentials) = credentials(request.headers()) else { return challenge() };
        match self.auth.may_connect(&credentials, uuid, port).await {
            Verdict::Allowed => {}
            Verdict::Unauthorized => return challenge(),
            Verdict::Forbidden => {
                return refuse(StatusCode::FORBIDDEN, "this is not allowed");
            }
        }
        match self.hub.open_tcp(uuid, port).await {
            Ok(stream) => {
                tokio::spawn(carry(hyper::upgrade::on(request), stream));
                Response::new(Body::empty())
            }
            Err(error) => {
                tracing::debug!(uuid, port, %error, "a tunnel to a device was not opened");
                let status = match error {
                    OpenError::NotConnected | OpenError::TooManyStreams | OpenError::Refused(_) => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    OpenError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::BAD_GATEWAY,
                };
                refuse(status, &error.to_string())
            }
        }
    }
}

async fn carry(upgrade: hyper::upgrade::OnUpgrade, mut device: TunnelStream) {
    let Ok(client) = upgrade.await else { return };
    if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut device).await {
        tracing::debug!(%error, "a connection to a device broke");
    }
}

fn target(uri: &Uri) -> Option<(&str, u16)> {
    let authority = uri.authority()?;
    let host = authority.host();
    let uuid = SUFFIXES.iter().find_map(|suffix| host.strip_suffix(suffix))?;
    let port = authority.port_u16().filter(|port| *port != 0)?;
    is_uuid(uuid).then_some((uuid, port))
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::PROXY_AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, token) = decoded.split_once(':')?;
    Some(Credentials { user: user.to_owned(), token: token.to_owned() })
}

fn challenge() -> Response<Body> {
    let mut response =
        refuse(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "a user name and a token are needed");
    let basic = header::HeaderValue::from_static("Basic realm=\"devices\"");
    response.headers_mut().insert(header::PROXY_AUTHENTICATE, basic);
    response
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_target_is_a_device_and_a_port() {
        let uri: Uri = format!("{UUID}.balena:22222").parse().unwrap();
        assert_eq!(target(&uri), Some((UUID, 22222)));
        for wrong in [
            format!("{UUID}.balena"),
            format!("{UUID}.balena:0"),
            format!("{UUID}:22"),
            "abc.balena:22".to_owned(),
            "127.0.0.1:22".to_owned(),
            format!("{}.balena:22", UUID.to_uppercase()),
        ] {
            assert_eq!(target(&wrong.parse().unwrap()), None, "{wrong}");
        }
    }
}
