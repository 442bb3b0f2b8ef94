//! What devices are told to be: the target state, with an ETag that spares most of the answers.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minke_cloud_db::{Caller, Report};
use minke_cloud_fleet::Role;
use minke_cloud_fleet::device_state::{self, FleetRow};
use serde_json::Value;

use crate::api::{Api, now_ms};
use crate::error::{ApiError, chain};
use crate::identity::Identity;
use crate::{query, rows};

/// Changed whenever the same rows make another document.
const DOCUMENT_VERSION: u32 = 1;

/// A device as the endpoints address it.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) id: i64,
    pub(crate) uuid: String,
    pub(crate) actor: i64,
}

impl Api {
    /// The device if the caller sees it; 401 otherwise, whether there is one or not.
    pub(crate) async fn device(&self, caller: &Caller, uuid: &str) -> Result<Device, ApiError> {
        self.device_and(caller, uuid, "").await.map(|(device, _)| device)
    }

    /// The same, with its row, and what the query's options `more` add to that.
    async fn device_and(
        &self,
        caller: &Caller,
        uuid: &str,
        more: &str,
    ) -> Result<(Device, Value), ApiError> {
        let filter = query::literal(uuid);
        let text = format!("device(uuid={filter})?$select=id,uuid,actor&{more}");
        let row = self.row(caller, text.trim_end_matches('&')).await?;
        let row = row.ok_or_else(ApiError::unauthorized)?;
        match (rows::number(&row, "id"), rows::target(&row, "actor")) {
            (Some(id), Some(actor)) => Ok((Device { id, uuid: uuid.to_owned(), actor }, row)),
            _ => Err(ApiError::unauthorized()),
        }
    }

    /// The device that asks for its own state, which shows it to be there until it should ask again.
    async fn polling_device(&self, caller: &Caller, uuid: &str) -> Result<Device, ApiError> {
        let (device, row) = self.device_and(caller, uuid, device_state::POLLING).await?;
        let row = device_state::read_row(&row)
            .map_err(|error| ApiError::internal("reading a poll interval", error))?;
        // Half as long again as it waits between two polls.
        let wait = device_state::poll_interval(&row, &self.state_options()) as i64 * 3 / 2;
        let heard_until = Some(now_ms() + wait);
        let heard = Report { device: device.id, heard_until, ..Report::default() };
        if let Err(error) = self.db.report(heard).await {
            // On a full disk devices still learn what to run; they only seem to be away.
            tracing::warn!(uuid, "noting that a device was heard of: {}", chain(&error));
        }
        Ok(device)
    }

    /// The tag of what a device would be told now. It is read before the document, so that a change
    /// between the two costs one more answer and never a lost one.
    async fn state_tag(&self, device: &Device) -> Result<String, ApiError> {
        let generation = self.db.state_generation(device.id).await?;
        let generation = generation.ok_or_else(ApiError::unauthorized)?;
        let mut hash = DefaultHasher::new();
        let options = self.state_options();
        (DOCUMENT_VERSION, &options.registry_host, options.min_poll_interval).hash(&mut hash);
        Ok(format!("W/\"{generation}-{:x}\"", hash.finish()))
    }

    /// The document for a device.
    async fn state_document(&self, device: &Device) -> Result<Value, ApiError> {
        let text = device_state::device_query(&device.uuid).ok_or_else(ApiError::unauthorized)?;
        let row = self.row(&Caller::root(), &text).await?.ok_or_else(ApiError::unauthorized)?;
        let row = device_state::read_row(&row)
            .map_err(|error| ApiError::internal("building a target state", error))?;
        Ok(device_state::of_device(&row, &self.state_options()))
    }
}

/// `GET /device/v3/:uuid/state`.
pub(crate) async fn version_3(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(&api, &uuid, &identity, &headers, |document| document).await
}

/// `GET /device/v2/:uuid/state`, the older form.
pub(crate) async fn version_2(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(&api, &uuid, &identity, &headers, |document| device_state::version_2(&document)).await
}

async fn answer(
    api: &Api,
    uuid: &str,
    identity: &Identity,
    headers: &HeaderMap,
    form: impl FnOnce(Value) -> Value,
) -> Result<Response, ApiError> {
    let device = match identity.role {
        Role::Device => api.polling_device(&identity.caller, uuid).await?,
        _ => api.device(&identity.caller, uuid).await?,
    };
    let tag = api.state_tag(&device).await?;
    let mut response = if is_known(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(form(api.state_document(&device).await?)).into_response()
    };
    let tag = HeaderValue::from_str(&tag)
        .map_err(|error| ApiError::internal("writing an ETag", error))?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// Whether the client has the body of this tag, as far as `If-None-Match` says.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| opaque(known) == opaque(tag))
}

/// `GET /device/v3/fleet/:uuid/state`: what any device of a fleet would be told, as far as the caller
/// may see it: who only sees a public fleet gets none of its variables.
pub(crate) async fn of_fleet(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    RawQuery(raw): RawQuery,
    identity: Identity,
) -> Result<Json<Value>, ApiError> {
    let commit = query::value(raw.as_deref(), "releaseUuid").filter(|commit| !commit.is_empty());
    let text = device_state::fleet_query(&uuid, commit.as_deref())
        .ok_or_else(|| ApiError::bad("a uuid or a commit is letters and digits only"))?;
    let row = api.row(&identity.caller, &text).await?.ok_or_else(ApiError::unauthorized)?;
    let fleet: FleetRow = device_state::read_row(&row)
        .map_err(|error| ApiError::internal("building a target state", error))?;
    let release = fleet.owns__release.first().or(fleet.should_be_running__release.first());
    if commit.is_some() && release.is_none() {
        return Err(ApiError::NotFound("the fleet has no such successful release".to_owned()));
    }
    Ok(Json(device_state::of_fleet(&fleet, release, &api.state_options())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_in_any_spelling_of_the_header() {
        let known = |value: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
            is_known(&headers, "W/\"5-a\"")
        };
        assert!(known("W/\"5-a\"") && known("\"5-a\"") && known("\"1\", W/\"5-a\""));
        assert!(!known("W/\"5-b\"") && !known("") && !known("\"5\""));
    }
}
