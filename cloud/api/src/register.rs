//! Registering devices.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use minke_cloud_db::Caller;
use minke_cloud_fleet::{Permissions, Role};
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::credentials::{NewKey, create_key};
use crate::error::ApiError;
use crate::identity::Identity;
use crate::{body, query, rows, secrets};

/// What a registration says.
struct Registration {
    application: i64,
    device_type: String,
    uuid: String,
    key: String,
    /// Columns taken over as they are sent.
    columns: Map<String, Value>,
}

impl Registration {
    fn read(body: &Map<String, Value>) -> Result<Registration, ApiError> {
        let application = match body.get("application") {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let uuid = text("uuid").unwrap_or("").to_owned();
        if !is_uuid(&uuid) {
            let text = "uuid must be 32 or 62 lower-case hexadecimal digits";
            return Err(ApiError::bad(text));
        }
        let key = text("api_key").map_or_else(secrets::new_key, str::to_owned);
        secrets::check_key(&key)?;
        let mut columns = Map::new();
        for field in ["supervisor_version", "os_version", "os_variant", "mac_address"] {
            if let Some(value) = text(field).filter(|value| !value.is_empty()) {
                let value: String = value.chars().take(255).collect();
                columns.insert(field.to_owned(), Value::String(value));
            }
        }
        Ok(Registration {
            application: application
                .ok_or_else(|| ApiError::bad("application must be the number of a fleet"))?,
            device_type: text("device_type")
                .ok_or_else(|| ApiError::bad("device_type must be the name of a device type"))?
                .to_owned(),
            uuid,
            key,
            columns,
        })
    }
}

fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 62)
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `POST /device/register`: 201 with the row's number and the device's key; 409 if the uuid is taken.
pub(crate) async fn register(
    State(api): State<Api>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let body = body::object(&headers, body, body::SMALL).await?;
    let registration = Registration::read(&body)?;
    let caller = match identity.role {
        Role::Provisioning => identity.caller.clone(),
        Role::User => Caller {
            permissions: Arc::new(Permissions::of_registering()),
            ..identity.caller.clone()
        },
        _ => return Err(ApiError::unauthorized()),
    };
    let query = format!(
        "application({})?$select=id&$expand=is_for__device_type($expand=is_of__cpu_architecture)",
        registration.application
    );
    // The row decides alone; what is expanded of it is public.
    if api
        .row(&caller, &format!("application({})?$select=id", registration.application))
        .await?
        .is_none()
    {
        return Err(ApiError::unauthorized());
    }
    let application = api.row(&Caller::root(), &query).await?.ok_or_else(ApiError::unauthorized)?;
    let device_type = api.device_type(&registration.device_type).await?;
    check_architecture(&application["is_for__device_type"][0], &device_type)?;
    let (id, key) = api.create_device(&registration, &device_type).await?;
    let answer = json!({"id": id, "uuid": registration.uuid, "api_key": key});
    Ok((StatusCode::CREATED, Json(answer)))
}

impl Api {
    /// The device type of a slug or one of its other names.
    async fn device_type(&self, slug: &str) -> Result<Value, ApiError> {
        let slug_text = query::literal(slug);
        let query = format!(
            "device_type?$top=1&$select=id,slug&$expand=is_of__cpu_architecture&$filter=slug eq {slug_text} or device_type_alias/any(a:a/is_referenced_by__alias eq {slug_text})"
        );
        let row = self.row(&Caller::root(), &query).await?;
        row.ok_or_else(|| ApiError::bad(format!("there is no device type {slug:?}")))
    }

    /// Makes the device and its key, both or neither.
    async fn create_device(
        &self,
        registration: &Registration,
        device_type: &Value,
    ) -> Result<(i64, String), ApiError> {
        let mut columns = registration.columns.clone();
        columns.insert("uuid".to_owned(), json!(registration.uuid));
        columns.insert("belongs_to__application".to_owned(), json!(registration.application));
        columns.insert("is_of__device_type".to_owned(), device_type["id"].clone());
        let mut tx = self.db.begin().await?;
        let created = tx.post(&Caller::root(), "device", &columns).await?;
        let actor = rows::target(&created.row, "actor")
            .ok_or_else(|| ApiError::internal("registering a device", "it has no actor"))?;
        let key = NewKey {
            actor,
            hash: secrets::key_hash(&registration.key),
            role: "device-api-key".to_owned(),
            name: None,
            description: None,
            expires_ms: None,
        };
        create_key(&mut tx, &key).await.map_err(|error| match error {
            // 409 would tell a device that its uuid is known here.
            ApiError::Conflict(_) => ApiError::bad("choose another key"),
            error => error,
        })?;
        tx.commit().await?;
        Ok((created.id, registration.key.clone()))
    }
}

/// Architectures whose programs each architecture also runs.
const ALSO_RUNS: [(&str, &[&str]); 4] = [
    ("aarch64", &["armv7hf", "rpi"]),
    ("armv7hf", &["rpi"]),
    ("amd64", &["i386", "i386-nlp"]),
    ("i386", &["i386-nlp"]),
];

/// A device must run what is built for its fleet's device type.
fn check_architecture(fleet: &Value, device: &Value) -> Result<(), ApiError> {
    let of = |row: &Value| rows::text(&row["is_of__cpu_architecture"][0], "slug").to_owned();
    let (fleet, own) = (of(fleet), of(device));
    let also = ALSO_RUNS.iter().find(|(slug, _)| *slug == own).map_or(&[][..], |(_, also)| also);
    if fleet == own || also.contains(&fleet.as_str()) {
        return Ok(());
    }
    Err(ApiError::bad(format!(
        "a device of type {} ({own}) cannot run what is built for this fleet ({fleet})",
        rows::text(device, "slug")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_a_form() {
        assert!(is_uuid(&"a1".repeat(16)) && is_uuid(&"0f".repeat(31)));
        for bad in ["", "a1", &"A1".repeat(16), &"g1".repeat(16), &"a1".repeat(17)] {
            assert!(!is_uuid(bad), "{bad}");
        }
    }

    #[test]
    fn a_device_runs_what_its_architecture_runs() {
        let device = |slug: &str| json!({"slug": "d", "is_of__cpu_architecture": [{"slug": slug}]});
        assert!(check_architecture(&device("amd64"), &device("amd64")).is_ok());
        assert!(check_architecture(&device("rpi"), &device("aarch64")).is_ok());
        let error = check_architecture(&device("aarch64"), &device("armv7hf")).unwrap_err();
        assert!(error.to_string().contains("armv7hf") && error.to_string().contains("aarch64"));
    }
}
