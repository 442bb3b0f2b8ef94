//! `/supervisor/<path>`: a call of a device's own API, through its tunnel.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use minke_cloud_db::Caller;
use minke_cloud_fleet::{Role, Verb};
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::{body, query, rows};

/// The port of the device API where a device has reported none.
const DEFAULT_PORT: u16 = 48484;
/// How long a device may take to answer.
const TIMEOUT: Duration = Duration::from_secs(50);
/// Bytes of a device's answer.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Devices that are called at once.
const PARALLEL: usize = 16;

/// A device to call.
struct Target {
    id: i64,
    uuid: String,
    port: u16,
    secret: String,
}

impl Target {
    fn of_row(row: &Value) -> Option<Target> {
        Some(Target {
            id: rows::number(row, "id")?,
            uuid: rows::text(row, "uuid").to_owned(),
            port: rows::number(row, "api_port")
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(DEFAULT_PORT),
            secret: rows::text(row, "api_secret").to_owned(),
        })
    }
}

/// A call to make.
struct Call {
    method: Method,
    path: String,
    data: Option<Value>,
}

struct Answer {
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Bytes,
}

/// `POST /supervisor/<path>` with `{deviceId | uuid | appId, method?, data?}`.
pub(crate) async fn call(
    State(api): State<Api>,
    Path(path): Path<String>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::object(&headers, body, body::REPORT).await?;
    let call = Arc::new(read_call(&path, &body)?);
    let is_single =
        !body.contains_key("appId") || body.contains_key("uuid") || body.contains_key("deviceId");
    let mut targets = api.targets(&identity, &body).await?;
    targets.retain(|target| api.ports.notify.device(&target.uuid) == Some(target.id));
    if targets.is_empty() {
        return Err(ApiError::NotFound("no such device is online".to_owned()));
    }
    if is_single {
        return Ok(pass_on(api.call_device(&targets[0], &call).await?));
    }
    let answers = api.call_all(targets, &call).await;
    Ok((StatusCode::MULTI_STATUS, Json(answers)).into_response())
}

/// `POST /application/:id/restart`: restarts the services on every connected device of a fleet.
pub(crate) async fn restart_fleet(
    State(api): State<Api>,
    Path(id): Path<i64>,
    identity: Identity,
) -> Result<(), ApiError> {
    let fleet = Map::from_iter([("appId".to_owned(), json!(id))]);
    let call = Arc::new(Call {
        method: Method::POST,
        path: "v1/restart".to_owned(),
        data: Some(json!({"appId": id})),
    });
    let update = identity.who_may(Verb::Update);
    if api.row(&update, &format!("application({id})?$select=id")).await?.is_none() {
        return Err(ApiError::unauthorized());
    }
    let mut targets = api.targets(&identity, &fleet).await?;
    targets.retain(|target| api.ports.notify.device(&target.uuid) == Some(target.id));
    api.call_all(targets, &call).await;
    Ok(())
}

fn read_call(path: &str, body: &Map<String, Value>) -> Result<Call, ApiError> {
    let is_plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
    if !is_plain || path.split('/').any(|part| part == "..") {
        return Err(ApiError::bad(
            "the path of a device call is letters, digits, '/', '-', '_' and '.'",
        ));
    }
    let method = match body.get("method").and_then(Value::as_str) {
        None => Method::POST,
        Some(name) => match name.to_ascii_uppercase().as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => return Err(ApiError::bad("method must be GET, POST, PUT, PATCH or DELETE")),
        },
    };
    let data = body.get("data").filter(|data| !data.is_null()).cloned();
    Ok(Call { method, path: path.to_owned(), data })
}

impl Api {
    /// The devices meant, of those that the caller may change.
    async fn targets(
        &self,
        identity: &Identity,
        body: &Map<String, Value>,
    ) -> Result<Vec<Target>, ApiError> {
        let caller = match identity.role {
            Role::User => identity.who_may(Verb::Update),
            Role::Device => identity.caller.clone(),
            _ => return Err(ApiError::unauthorized()),
        };
        let mut filters = Vec::new();
        if let Some(uuid) = body.get("uuid").and_then(Value::as_str) {
            filters.push(format!("uuid eq {}", query::literal(uuid)));
        }
        for (field, column) in [("deviceId", "id"), ("appId", "belongs_to__application")] {
            match body.get(field) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    let id = value.as_i64().or_else(|| value.as_str()?.parse().ok());
                    let id =
                        id.ok_or_else(|| ApiError::bad(format!("{field} must be a number")))?;
                    filters.push(format!("{column} eq {id}"));
                }
            }
        }
        if filters.is_empty() {
            return Err(ApiError::bad("say which devices: uuid, deviceId or appId"));
        }
        let text = format!("device?$select=id&$filter={}", filters.join(" and "));
        let ids = self.rows(&caller, &text).await?;
        let ids: Vec<String> =
            ids.iter().filter_map(|row| Some(rows::number(row, "id")?.to_string())).collect();
        let mut targets = Vec::new();
        for ids in ids.chunks(500) {
            // The secret is nobody's to read; the rows that may be used are known by now.
            let text = format!(
                "device?$select=id,uuid,api_port,api_secret&$filter=id in ({})",
                ids.join(",")
            );
            let rows = self.rows(&Caller::root(), &text).await?;
            targets.extend(rows.iter().filter_map(Target::of_row));
        }
        Ok(targets)
    }

    /// Calls devices side by side; gives what each answered, in no order.
    async fn call_all(&self, targets: Vec<Target>, call: &Arc<Call>) -> Vec<Value> {
        futures_util::stream::iter(targets)
            .map(|target| {
                let (api, call) = (self.clone(), Arc::clone(call));
                async move { summary(api.call_device(&target, &call).await) }
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await
    }

    async fn call_device(&self, target: &Target, call: &Call) -> Result<Answer, ApiError> {
        match tokio::time::timeout(TIMEOUT, self.exchange(target, call)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::debug!(uuid = target.uuid, "device call: {error}");
                Err(ApiError::BadGateway("the device did not answer".to_owned()))
            }
            Err(_) => {
                let text = format!("the device did not answer within {} s", TIMEOUT.as_secs());
                Err(ApiError::BadGateway(text))
            }
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        call: &Call,
    ) -> Result<Answer, crate::ports::BoxError> {
        let stream = self.ports.notify.open_tcp(target.id, &target.uuid, target.port).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let body = call.data.as_ref().map(|data| Bytes::from(data.to_string()));
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("/{}?apikey={}", call.path, target.secret))
            .header(header::HOST, format!("{}.balena:{}", target.uuid, target.port))
            .header(header::CONNECTION, "close");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        connection.abort();
        Ok(Answer { status, kind, body })
    }
}

/// The device's answer as it is; what could be run by a browser is not passed on as such.
fn pass_on(answer: Answer) -> Response {
    let is_json = answer
        .kind
        .as_ref()
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json"));
    let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
    let headers = [(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (answer.status, headers, answer.body).into_response()
}

fn summary(answer: Result<Answer, ApiError>) -> Value {
    match answer {
        Ok(answer) => {
            let body = serde_json::from_slice(&answer.body)
                .unwrap_or_else(|_| json!(String::from_utf8_lossy(&answer.body)));
            json!({"status": answer.status.as_u16(), "body": body})
        }
        Err(error) => json!({"status": error.status().as_u16(), "body": error.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_cannot_leave_its_path() {
        for bad in ["v1/a?x", "v1/../x", "v1/a b", "v1/a\r\nX: y", "v1/%2e"] {
            assert!(read_call(bad, &Map::new()).is_err(), "{bad}");
        }
        assert_eq!(read_call("v1/update", &Map::new()).unwrap().method, Method::POST);
    }
}
