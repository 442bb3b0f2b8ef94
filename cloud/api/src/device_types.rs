//! The catalogue of device types in the form that older clients read: `/device-types/v1`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::anybody;
use crate::{query, rows};

const QUERY: &str = "device_type?$orderby=name asc&$select=id,slug,name,logo,contract&$expand=is_of__cpu_architecture($select=slug),device_type_alias($select=is_referenced_by__alias)";

/// `GET /device-types/v1`.
pub(crate) async fn all(State(api): State<Api>) -> Result<Json<Vec<Value>>, ApiError> {
    let rows = api.rows(&anybody(), QUERY).await?;
    Ok(Json(rows.iter().map(manifest).collect()))
}

/// `GET /device-types/v1/:slug`.
pub(crate) async fn one(
    State(api): State<Api>,
    Path(slug): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let slug_text = query::literal(&slug);
    let query = format!(
        "{QUERY}&$filter=slug eq {slug_text} or device_type_alias/any(a:a/is_referenced_by__alias eq {slug_text})"
    );
    let row = api.row(&anybody(), &query).await?;
    let row = row.ok_or_else(|| ApiError::NotFound(format!("there is no device type {slug:?}")))?;
    Ok(Json(manifest(&row)))
}

/// What clients ask of a person before they make a configuration.
fn manifest(row: &Value) -> Value {
    let aliases: Vec<&Value> = row["device_type_alias"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|alias| &alias["is_referenced_by__alias"])
        .collect();
    json!({
        "slug": row["slug"],
        "aliases": aliases,
        "name": row["name"],
        "arch": rows::text(&row["is_of__cpu_architecture"][0], "slug"),
        "state": "RELEASED",
        "private": false,
        "isDependent": false,
        "logoUrl": row["logo"],
        "contract": row["contract"],
        "instructions": [],
        "options": [{
            "isGroup": true,
            "name": "network",
            "message": "Network",
            "options": [
                {"name": "network", "message": "Network Connection", "type": "list", "choices": ["ethernet", "wifi"]},
                {"name": "wifiSsid", "message": "Wifi SSID", "type": "text", "when": {"network": "wifi"}},
                {"name": "wifiKey", "message": "Wifi Passphrase", "type": "password", "when": {"network": "wifi"}},
            ],
        }, {
            "isGroup": true,
            "isCollapsible": true,
            "collapsed": true,
            "name": "advanced",
            "message": "Advanced",
            "options": [{
                "name": "appUpdatePollInterval", "message": "Check for updates every X minutes",
                "type": "number", "min": 10, "default": 10,
            }],
        }],
        "yocto": {"archive": false, "fstype": "img", "deployArtifact": ""},
        "initialization": {"options": [], "operations": []},
    })
}
