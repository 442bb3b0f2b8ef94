//! `config.json` for a new device of a fleet: `/download-config`.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minke_cloud_fleet::Verb;
use serde_json::{Map, Value, json};

use crate::accounts::user_of;
use crate::api::{Api, now_ms};
use crate::credentials::NewKey;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::{body, query, rows, secrets};

/// Minutes between two polls where the client does not say.
const DEFAULT_POLL_MINUTES: f64 = 10.0;

/// `POST /download-config`, and `GET` with the same fields as a query.
pub(crate) async fn download(
    State(api): State<Api>,
    RawQuery(raw): RawQuery,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut wanted = body::object(&headers, body, body::SMALL).await?;
    for (name, value) in query::pairs(raw.as_deref().unwrap_or("")) {
        wanted.entry(name).or_insert(Value::String(value));
    }
    let user = user_of(&api, &identity).await?;
    let application = api.fleet_of(&identity, &wanted).await?;
    let actor = rows::target(&application, "actor").ok_or_else(ApiError::unauthorized)?;
    let device_type = match wanted.get("deviceType").and_then(Value::as_str) {
        Some(slug) => slug.to_owned(),
        None => rows::text(&application["is_for__device_type"][0], "slug").to_owned(),
    };
    let key = secrets::new_key();
    let text = |field: &str| wanted.get(field).and_then(Value::as_str).map(str::to_owned);
    let new_key = NewKey {
        actor,
        hash: secrets::key_hash(&key),
        role: "provisioning-api-key".to_owned(),
        name: text("provisioningKeyName"),
        description: text("provisioningKeyDescription"),
        expires_ms: expiry(wanted.get("provisioningKeyExpiryDate"))?,
    };
    api.create_key(new_key).await?;
    let mut config = json!({
        "applicationName": application["app_name"],
        "applicationId": application["id"],
        "deviceType": device_type,
        "userId": user.id,
        "username": user.username,
        "appUpdatePollInterval": poll_interval(&wanted)?,
        "listenPort": 48484,
        "vpnPort": 443,
        "apiEndpoint": api.settings.public_url,
        "vpnEndpoint": api.settings.host(),
        "registryEndpoint": api.registry_host,
        "deltaEndpoint": api.settings.public_url,
        "apiKey": key,
    });
    if let Some(pem) = &api.settings.root_certificate {
        config["balenaRootCA"] = json!(STANDARD.encode(pem));
    }
    add_options(&mut config, &wanted);
    Ok(Json(config))
}

impl Api {
    /// The fleet meant, if the caller may change it.
    async fn fleet_of(
        &self,
        identity: &Identity,
        wanted: &Map<String, Value>,
    ) -> Result<Value, ApiError> {
        let id = match wanted.get("appId") {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let id = id.ok_or_else(|| ApiError::bad("appId must be the number of a fleet"))?;
        let query = format!("application({id})?$select=id,app_name,actor");
        let row = self.row(&identity.who_may(Verb::Update), &query).await?;
        let mut row = row.ok_or_else(ApiError::unauthorized)?;
        let query =
            format!("application({id})?$select=id&$expand=is_for__device_type($select=slug)");
        if let Some(expanded) = self.row(&identity.caller, &query).await? {
            row["is_for__device_type"] = expanded["is_for__device_type"].clone();
        }
        Ok(row)
    }
}

/// In milliseconds, as devices want it; clients say minutes.
fn poll_interval(wanted: &Map<String, Value>) -> Result<i64, ApiError> {
    let minutes = match wanted.get("appUpdatePollInterval") {
        None | Some(Value::Null) => DEFAULT_POLL_MINUTES,
        Some(Value::Number(number)) => number.as_f64().unwrap_or(0.0),
        Some(Value::String(text)) => text.parse().unwrap_or(0.0),
        Some(_) => 0.0,
    };
    if (1.0 / 60.0..=7.0 * 24.0 * 60.0).contains(&minutes) {
        return Ok((minutes * 60_000.0) as i64);
    }
    Err(ApiError::bad("appUpdatePollInterval must be a number of minutes, a week's at most"))
}

fn expiry(value: Option<&Value>) -> Result<Option<i64>, ApiError> {
    let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let time = text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond());
    time.filter(|time| *time > now_ms())
        .map(Some)
        .ok_or_else(|| ApiError::bad("provisioningKeyExpiryDate must be a date in the future"))
}

/// What the client wants of the host's system.
fn add_options(config: &mut Value, wanted: &Map<String, Value>) {
    let is_set = |name: &str| match wanted.get(name) {
        Some(Value::Bool(truth)) => *truth,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    if is_set("developmentMode") {
        config["developmentMode"] = json!(true);
    }
    if is_set("secureBoot") {
        config["installer"] = json!({"secureboot": true});
    }
    if wanted.get("network").and_then(Value::as_str) == Some("wifi") {
        for (field, key) in [("wifiSsid", "wifiSsid"), ("wifiKey", "wifiKey")] {
            if let Some(value) = wanted.get(field).filter(|value| value.is_string()) {
                config[key] = value.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_interval_is_told_in_minutes_and_kept_in_milliseconds() {
        let wanted = |value: Value| Map::from_iter([("appUpdatePollInterval".to_owned(), value)]);
        assert_eq!(poll_interval(&Map::new()).unwrap(), 600_000);
        assert_eq!(poll_interval(&wanted(json!(10))).unwrap(), 600_000);
        assert_eq!(poll_interval(&wanted(json!("0.5"))).unwrap(), 30_000);
        for bad in [json!(0), json!(-5), json!(1e9), json!("soon"), json!([])] {
            assert!(poll_interval(&wanted(bad)).is_err());
        }
    }
}
