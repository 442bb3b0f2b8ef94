//! API keys: making them. Listing, renaming and revoking are ordinary requests to `/v7/api_key`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use minke_cloud_fleet::{Role, Verb};
use serde_json::{Map, Value};

use crate::api::{Api, now_ms};
use crate::credentials::NewKey;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::{body, rows, secrets};

/// Longest name or description of a key, in characters.
const MAX_NAME: usize = 255;

/// What a request says of the key to be made.
#[derive(Debug, Default, PartialEq, Eq)]
struct Description {
    name: Option<String>,
    description: Option<String>,
    expires_ms: Option<i64>,
}

impl Description {
    fn read(body: &Map<String, Value>) -> Result<Description, ApiError> {
        Ok(Description {
            name: optional_text(body, "name")?,
            description: optional_text(body, "description")?,
            expires_ms: expiry(body.get("expiryDate"))?,
        })
    }

    fn into_key(self, actor: i64, hash: String, role: &str) -> NewKey {
        NewKey {
            actor,
            hash,
            role: role.to_owned(),
            name: self.name,
            description: self.description,
            expires_ms: self.expires_ms,
        }
    }
}

fn optional_text(body: &Map<String, Value>, field: &str) -> Result<Option<String>, ApiError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= MAX_NAME => Ok(Some(text.clone())),
        Some(_) => {
            Err(ApiError::bad(format!("{field} must be a text of at most {MAX_NAME} characters")))
        }
    }
}

/// An expiry as clients send it: an ISO date, milliseconds since the epoch, or null for never.
fn expiry(value: Option<&Value>) -> Result<Option<i64>, ApiError> {
    let bad = || ApiError::bad("expiryDate must be a date in the future or null");
    let time = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_i64().ok_or_else(bad)?,
        Some(Value::String(text)) => {
            text.parse::<jiff::Timestamp>().map_err(|_| bad())?.as_millisecond()
        }
        Some(_) => return Err(bad()),
    };
    if time > now_ms() { Ok(Some(time)) } else { Err(bad()) }
}

fn check_fresh(identity: &Identity) -> Result<(), ApiError> {
    if identity.caller.is_fresh {
        return Ok(());
    }
    let text = "log in again first: a key needs a session begun in the last 20 minutes";
    Err(ApiError::Unauthorized(text.to_owned()))
}

/// A key of a user does what the user may: it takes the password lately given, or a key that lasts as
/// long itself.
fn check_user_key(identity: &Identity, description: &Description) -> Result<(), ApiError> {
    if identity.session.is_some() {
        return check_fresh(identity);
    }
    match (identity.expires_ms, description.expires_ms) {
        (None, _) => Ok(()),
        (Some(limit), Some(expires)) if expires <= limit => Ok(()),
        (Some(_), _) => {
            Err(ApiError::bad("expiryDate must not be later than that of the key which asks"))
        }
    }
}

/// `POST /api-key/user/full`: a key that may do what its user may. Needs a session in which the
/// password was given lately.
pub(crate) async fn user_full(
    State(api): State<Api>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<String>, ApiError> {
    if identity.session.is_none() {
        return Err(ApiError::unauthorized());
    }
    check_fresh(&identity)?;
    let body = body::object(&headers, body, body::SMALL).await?;
    let description = Description::read(&body)?;
    if description.name.as_deref().unwrap_or("").is_empty() {
        return Err(ApiError::bad("a key needs a name"));
    }
    let key = secrets::new_key();
    let hash = secrets::key_hash(&key);
    api.create_key(description.into_key(identity.actor, hash, "named-user-api-key")).await?;
    Ok(Json(key))
}

/// `POST /api-key/v1/` and `/api-key/v2/`: a key for a fleet, a device or oneself.
pub(crate) async fn for_actor(
    State(api): State<Api>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<String>, ApiError> {
    let body = body::object(&headers, body, body::SMALL).await?;
    let kind = body.get("actorType").and_then(Value::as_str).unwrap_or("");
    let id = body.get("actorTypeId").and_then(Value::as_i64);
    let id = id.ok_or_else(|| ApiError::bad("actorTypeId must be the number of a row"))?;
    let role = single_role(body.get("roles"))?;
    let description = Description::read(&body)?;
    let expected = match kind {
        "application" => "provisioning-api-key",
        "device" => "device-api-key",
        "user" => "named-user-api-key",
        _ => return Err(ApiError::bad("actorType must be application, device or user")),
    };
    if role != expected {
        return Err(ApiError::bad(format!("a key of this {kind} can only have role {expected}")));
    }
    if kind == "user" {
        check_user_key(&identity, &description)?;
    }
    let actor = api.writable_actor(&identity, kind, id).await?;
    let key = secrets::new_key();
    let hash = secrets::key_hash(&key);
    api.create_key(description.into_key(actor, hash, role)).await?;
    Ok(Json(key))
}

fn single_role(roles: Option<&Value>) -> Result<&str, ApiError> {
    let roles = roles.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match roles {
        [Value::String(role)] => Ok(role),
        _ => Err(ApiError::bad("roles must be a list of exactly one role")),
    }
}

impl Api {
    /// The actor of a row that the caller may change; 401 if there is none such.
    async fn writable_actor(
        &self,
        identity: &Identity,
        resource: &str,
        id: i64,
    ) -> Result<i64, ApiError> {
        if identity.role != Role::User {
            return Err(ApiError::unauthorized());
        }
        let caller = identity.who_may(Verb::Update);
        let row = self.row(&caller, &format!("{resource}({id})?$select=id,actor")).await?;
        row.and_then(|row| rows::target(&row, "actor")).ok_or_else(ApiError::unauthorized)
    }
}

/// `POST /api-key/application/:id/provisioning` and, older, `/application/:id/generate-api-key`.
pub(crate) async fn provisioning(
    State(api): State<Api>,
    Path(id): Path<i64>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<String>, ApiError> {
    let body = body::object(&headers, body, body::SMALL).await?;
    let description = Description::read(&body)?;
    let actor = api.writable_actor(&identity, "application", id).await?;
    let key = secrets::new_key();
    let hash = secrets::key_hash(&key);
    api.create_key(description.into_key(actor, hash, "provisioning-api-key")).await?;
    Ok(Json(key))
}

/// `POST /api-key/device/:id/device-key`: a key for a device, chosen by the caller or made here. For
/// people with access to the device and for the provisioning key of its fleet.
pub(crate) async fn device_key(
    State(api): State<Api>,
    Path(id): Path<i64>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<String>, ApiError> {
    let body = body::object(&headers, body, body::SMALL).await?;
    let description = Description::read(&body)?;
    let key = match body.get("apiKey") {
        None | Some(Value::Null) => secrets::new_key(),
        Some(Value::String(key)) => key.clone(),
        Some(_) => return Err(ApiError::bad("apiKey must be a text")),
    };
    secrets::check_key(&key)?;
    let caller = match identity.role {
        Role::User => identity.who_may(Verb::Update),
        Role::Provisioning => identity.caller.clone(),
        _ => return Err(ApiError::unauthorized()),
    };
    let row = api.row(&caller, &format!("device({id})?$select=id,actor")).await?;
    let actor = row.and_then(|row| rows::target(&row, "actor"));
    let actor = actor.ok_or_else(ApiError::unauthorized)?;
    let hash = secrets::key_hash(&key);
    match api.db.api_key_by_hash(&hash).await? {
        // The exchange is repeated when its answer was lost.
        Some(existing) if existing.actor == actor => return Ok(Json(key)),
        Some(_) => return Err(ApiError::bad("choose another key")),
        None => {}
    }
    api.create_key(description.into_key(actor, hash, "device-api-key")).await?;
    Ok(Json(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_may_expire_in_the_future_only() {
        assert_eq!(expiry(None).unwrap(), None);
        assert_eq!(expiry(Some(&Value::Null)).unwrap(), None);
        assert_eq!(
            expiry(Some(&json!("2999-01-01T00:00:00.000Z"))).unwrap(),
            Some(32_472_144_000_000)
        );
        for bad in [json!("2001-01-01T00:00:00Z"), json!("soon"), json!(5), json!({})] {
            assert!(expiry(Some(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_has_one_role() {
        assert_eq!(single_role(Some(&json!(["a"]))).unwrap(), "a");
        for bad in [json!([]), json!(["a", "b"]), json!("a"), json!([1])] {
            assert!(single_role(Some(&bad)).is_err());
        }
    }
}
