//! What clients ask about the server itself.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use minke_cloud_db::Caller;
use minke_cloud_fleet::{Role, Verb, names};
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::{query, rows};

/// `GET /ping`.
pub(crate) async fn ping() -> &'static str {
    "OK"
}

/// `GET /connectivity-check`.
pub(crate) async fn connectivity() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `GET /config`.
pub(crate) async fn config(State(api): State<Api>) -> Json<Value> {
    let settings = &api.settings;
    Json(json!({
        "apiUrl": settings.public_url,
        "deltaUrl": settings.public_url,
        "registryUrl": api.registry_host,
        "registry2Url": api.registry_host,
        "deviceUrlsBase": settings.host(),
        "gitServerUrl": settings.host(),
        "deviceTypes": [],
    }))
}

/// `GET /config/vars`.
pub(crate) async fn vars() -> Json<Value> {
    let host = |name: &str, description: &str, kind: &str| {
        (name.to_owned(), json!({"type": kind, "description": description, "will_reboot": false}))
    };
    let properties: serde_json::Map<String, Value> = [
        host(
            "BALENA_SUPERVISOR_POLL_INTERVAL",
            "Milliseconds between two looks for a new target.",
            "integer",
        ),
        host(
            "BALENA_SUPERVISOR_INSTANT_UPDATE_TRIGGER",
            "Look for a new target when the server says so.",
            "boolean",
        ),
        host("BALENA_SUPERVISOR_LOG_CONTROL", "Send logs to the server.", "boolean"),
        host("BALENA_SUPERVISOR_OVERRIDE_LOCK", "Update in spite of update locks.", "boolean"),
        host("BALENA_SUPERVISOR_LOCAL_MODE", "Local mode.", "boolean"),
        host("BALENA_SUPERVISOR_CONNECTIVITY_CHECK", "Check the way to the server.", "boolean"),
        host("BALENA_SUPERVISOR_HARDWARE_METRICS", "Report metrics of the hardware.", "boolean"),
        host(
            "BALENA_SUPERVISOR_PERSISTENT_LOGGING",
            "Keep the host's journal over reboots.",
            "boolean",
        ),
        host("BALENA_SUPERVISOR_VPN_CONTROL", "Keep the tunnel open.", "boolean"),
        host("BALENA_HOST_FIREWALL_MODE", "off, on or auto.", "string"),
        host("BALENA_HOST_DISCOVERABILITY", "Announce the device on the local network.", "boolean"),
    ]
    .into_iter()
    .collect();
    Json(json!({
        "reservedNames": names::RESERVED_NAMES,
        "reservedNamespaces": names::RESERVED_NAMESPACES,
        "invalidRegex": "/^\\d|\\W/",
        "whiteListedNames": names::WHITELISTED_NAMES,
        "whiteListedNamespaces": [],
        "blackListedNames": [],
        "configVarInvalidRegex": "/^\\d|[^A-Za-z0-9_:]/",
        "configVarSchema": {
            "type": "object",
            "$schema": "http://json-schema.org/draft-06/schema#",
            "properties": properties,
        },
    }))
}

/// `GET /os/v1/config`: what a host's own services are told. The tunnel needs nothing of the host.
pub(crate) async fn os_config() -> Json<Value> {
    Json(json!({
        "services": {"openvpn": {"config": "", "ca": ""}, "ssh": {"authorized_keys": ""}},
        "config": {"overrides": {}},
        "schema_version": "1.0.0",
    }))
}

/// `GET /services/vpn/auth/:uuid`: 200 for the device's own key.
pub(crate) async fn vpn_auth(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
) -> Result<(), ApiError> {
    crate::report::own_device(&api, &identity, &uuid).await.map(|_| ())
}

/// `GET /access/v1/hostos/:uuid`: 200 for who may log in to the host of the device.
pub(crate) async fn host_access(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
) -> Result<(), ApiError> {
    if identity.role != Role::User {
        return Err(ApiError::unauthorized());
    }
    api.device(&identity.who_may(Verb::Update), &uuid).await.map(|_| ())
}

/// `GET /auth/v1/public-keys/:username`: the keys with which a user may log in to hosts, one a line.
/// For devices; of users who may change the device, as for [`host_access`].
pub(crate) async fn public_keys(
    State(api): State<Api>,
    Path(username): Path<String>,
    identity: Identity,
) -> Result<String, ApiError> {
    if identity.role != Role::Device {
        return Err(ApiError::unauthorized());
    }
    let user = format!("user?$select=id,actor&$filter=username eq {}", query::literal(&username));
    let Some(user) = api.row(&Caller::root(), &user).await? else { return Ok(String::new()) };
    let person = Caller::with_role(rows::target(&user, "actor"), Role::User);
    let device = format!("device?$select=id&$filter=actor eq {}", identity.actor);
    if api.row(&person.who_may(Verb::Update), &device).await?.is_none() {
        return Ok(String::new());
    }
    let keys = format!(
        "user_public_key?$select=public_key&$orderby=id asc&$filter=user eq {}",
        user["id"]
    );
    let rows = api.rows(&Caller::root(), &keys).await?;
    Ok(rows.iter().map(|row| format!("{}\n", rows::text(row, "public_key").trim())).collect())
}
