//! `GET /tunnel?uuid=…&v=1[&heartbeat=ms]`: a device dials in.

use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use minke_common_tunnel::{Mux, Side, VERSION, websocket_config};
use serde::Deserialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::hub::Hub;

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
struct Dial {
    uuid: String,
    v: u32,
    heartbeat: Option<u64>,
}

/// A dial that is refused.
enum Refusal {
    NotAnUpgrade,
    Version(u32),
    Uuid,
    Unauthorized,
    Full,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NotAnUpgrade => {
                let headers = [(header::UPGRADE, "websocket"), (header::CONNECTION, "upgrade")];
                let message = "this needs a WebSocket upgrade";
                (StatusCode::UPGRADE_REQUIRED, headers, message).into_response()
            }
            Self::Version(version) => {
                let message = format!("tunnel version {version} is not spoken here; {VERSION} is");
                (StatusCode::BAD_REQUEST, message).into_response()
            }
            Self::Uuid => (StatusCode::BAD_REQUEST, "the uuid is not one").into_response(),
            Self::Unauthorized => StatusCode::UNAUTHORIZED.into_response(),
            Self::Full => {
                let retry = [(header::RETRY_AFTER, "60")];
                (StatusCode::SERVICE_UNAVAILABLE, retry, "no room for more tunnels").into_response()
            }
        }
    }
}

impl Hub {
    /// The route `/tunnel`, ready to be merged into the server's router.
    pub fn router(&self) -> Router {
        Router::new().route("/tunnel", get(dial)).with_state(self.clone())
    }
}

async fn dial(
    State(hub): State<Hub>,
    Query(dial): Query<Dial>,
    request: Request,
) -> Result<Response, Refusal> {
    let accept = accept_key(request.headers()).ok_or(Refusal::NotAnUpgrade)?;
    if dial.v != VERSION {
        return Err(Refusal::Version(dial.v));
    }
    if !is_uuid(&dial.uuid) {
        return Err(Refusal::Uuid);
    }
    let options = &hub.0.options;
    if hub.count() >= options.max_tunnels {
        return Err(Refusal::Full);
    }
    let key = bearer(request.headers()).ok_or(Refusal::Unauthorized)?;
    let device = hub.0.auth.authenticate(&dial.uuid, key).await.ok_or(Refusal::Unauthorized)?;
    let heartbeat = dial.heartbeat.map_or(options.heartbeat, Duration::from_millis);
    let heartbeat = heartbeat.clamp(options.shortest_heartbeat, LONGEST_HEARTBEAT);

    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let socket = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => {
                tracing::debug!(uuid = dial.uuid, %error, "a device went away while dialling");
                return;
            }
        };
        let config = Some(websocket_config());
        let socket = WebSocketStream::from_raw_socket(socket, Role::Server, config).await;
        let mux = Mux::new(socket, Side::Server);
        hub.run((&dial.uuid, device), mux, heartbeat).await;
    });
    let headers = [
        (header::UPGRADE, "websocket".to_owned()),
        (header::CONNECTION, "upgrade".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// The answer to a WebSocket handshake; `None` when the request is none.
fn accept_key(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let upgrade = text(header::UPGRADE)?.eq_ignore_ascii_case("websocket");
    let connection = text(header::CONNECTION)?
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let version = text(header::SEC_WEBSOCKET_VERSION)? == "13";
    let key = text(header::SEC_WEBSOCKET_KEY)?;
    (upgrade && connection && version).then(|| derive_accept_key(key.as_bytes()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// 32 or 62 hex digits.
pub(crate) fn is_uuid(text: &str) -> bool {
    let hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    matches!(text.len(), 32 | 62) && text.bytes().all(hex)
}
