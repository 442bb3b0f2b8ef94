//! `/v7/*`: every resource of the model, by OData requests.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use minke_cloud_db::Caller;
use minke_cloud_fleet::Verb;
use minke_common_odata::Request;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::{Identity, anybody};
use crate::{body, image_location, rows};

/// Any request to `/v7/…`.
pub(crate) async fn version_7(
    State(api): State<Api>,
    identity: Option<Identity>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let text = uri.path_and_query().map_or("", |text| text.as_str());
    let text = text.strip_prefix("/v7/").unwrap_or("");
    let mut request =
        minke_common_odata::parse(text).map_err(|error| ApiError::bad(error.to_string()))?;
    image_location::strip_request(&mut request);
    let caller = identity.as_ref().map_or_else(anybody, |identity| identity.caller.clone());
    if request.links.is_some() {
        return Err(ApiError::bad("$links is not served: select or expand the navigation"));
    }
    if let Some(property) = &request.property {
        if property == "canAccess" && method == Method::POST {
            let identity = identity.ok_or_else(ApiError::unauthorized)?;
            return can_access(&api, &identity, request, &headers, body).await;
        }
        return Err(ApiError::NotFound(format!("there is nothing at /{property} of a resource")));
    }
    // Before the body is read: nobody writes without a credential.
    if identity.is_none() && !matches!(method, Method::GET | Method::HEAD) {
        return Err(ApiError::unauthorized());
    }
    match method {
        Method::GET | Method::HEAD => api.read(&caller, &request).await,
        Method::POST => {
            let row = read_row(&headers, body).await?;
            api.create(&caller, &request, row).await
        }
        Method::PATCH => {
            let row = read_row(&headers, body).await?;
            api.db.patch(&caller, &request, &row).await?;
            Ok(StatusCode::OK.into_response())
        }
        Method::PUT => {
            let row = read_row(&headers, body).await?;
            api.db.put(&caller, &request, &row).await?;
            Ok(StatusCode::OK.into_response())
        }
        Method::DELETE => {
            api.db.delete(&caller, &request).await?;
            Ok(StatusCode::OK.into_response())
        }
        _ => {
            Err(ApiError::bad("resources are read and written by GET, POST, PATCH, PUT and DELETE"))
        }
    }
}

async fn read_row(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("multipart/")) {
        body::discard(body).await;
        let text = "files cannot be uploaded to this server yet: send a row as application/json";
        return Err(ApiError::UnsupportedMedia(text.to_owned()));
    }
    let mut row = body::object(headers, body, body::ROW).await?;
    image_location::strip_host(&mut row);
    Ok(row)
}

impl Api {
    async fn read(&self, caller: &Caller, request: &Request) -> Result<Response, ApiError> {
        let mut answer = self.db.get(caller, request).await?;
        image_location::add_host(&mut answer, &self.registry_host);
        let mut response = Json(json!({"d": answer})).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    async fn create(
        &self,
        caller: &Caller,
        request: &Request,
        row: Map<String, Value>,
    ) -> Result<Response, ApiError> {
        if request.key.is_some() {
            return Err(ApiError::bad("a POST makes a new row and is sent to the resource itself"));
        }
        let created = self.db.post(caller, &request.resource, &row).await?;
        let wants_row = !request
            .options
            .custom
            .iter()
            .any(|(name, value)| name == "returnResource" && value == "false");
        let mut answer = if wants_row { created.row } else { json!({"id": created.id}) };
        image_location::add_host(&mut answer, &self.registry_host);
        let location = format!("/v7/{}({})", request.resource, created.id);
        let mut response = (StatusCode::CREATED, Json(answer)).into_response();
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

/// `POST resource(key)/canAccess` with `{"action": "update"}`: the row's id if the caller may.
async fn can_access(
    api: &Api,
    identity: &Identity,
    mut request: Request,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::object(headers, body, body::SMALL).await?;
    request.property = None;
    request.options.select = vec!["id".to_owned()];
    for action in actions(body.get("action"))? {
        let caller = match action {
            Verb::Read => identity.caller.clone(),
            verb => identity.who_may(verb),
        };
        let found = api.db.get(&caller, &request).await?;
        if let Some(id) = rows::number(&found[0], "id") {
            return Ok(Json(json!({"d": [{"id": id}]})).into_response());
        }
    }
    Err(ApiError::unauthorized())
}

/// The verbs of which one is enough. Ports of a device's tunnel are who may change the device.
fn actions(action: Option<&Value>) -> Result<Vec<Verb>, ApiError> {
    let bad =
        || ApiError::bad("action must be read, update, delete or tunnel-<port>, or {\"or\": […]}");
    let one = |name: &str| match name {
        "read" => Some(Verb::Read),
        "update" => Some(Verb::Update),
        "delete" => Some(Verb::Delete),
        tunnel if tunnel.starts_with("tunnel-") => Some(Verb::Update),
        _ => None,
    };
    match action {
        Some(Value::String(name)) => Ok(vec![one(name).ok_or_else(bad)?]),
        Some(Value::Object(any)) => {
            let names = any.get("or").and_then(Value::as_array).ok_or_else(bad)?;
            names.iter().take(16).map(|name| name.as_str().and_then(one).ok_or_else(bad)).collect()
        }
        _ => Err(bad()),
    }
}

/// Older versions of the resources.
pub(crate) async fn other_version(uri: Uri) -> ApiError {
    let version = uri.path().split('/').nth(1).unwrap_or("");
    ApiError::NotFound(format!(
        "this server speaks version 7 of the resources (/v7/…), not {version}: update the client"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_a_verb_or_several() {
        assert_eq!(actions(Some(&json!("update"))).unwrap(), [Verb::Update]);
        let any = json!({"or": ["tunnel-any", "tunnel-22222", "read"]});
        assert_eq!(actions(Some(&any)).unwrap(), [Verb::Update, Verb::Update, Verb::Read]);
        for bad in [json!("fly"), json!(5), json!({"or": [5]}), json!({})] {
            assert!(actions(Some(&bad)).is_err());
        }
    }
}
