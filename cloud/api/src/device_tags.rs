//! Tags that a device sets on itself.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use minke_cloud_db::Caller;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::report::own_device;
use crate::{body, query};

/// Tags in one request.
const MAX_TAGS: usize = 100;

/// `PATCH /device/v3/tags`: `{<uuid>: {<key>: <value>}}`; a value of null removes the tag.
pub(crate) async fn patch(
    State(api): State<Api>,
    identity: Identity,
    body: Body,
) -> Result<(), ApiError> {
    let body: BTreeMap<String, BTreeMap<String, Option<String>>> =
        body::json(body, body::SMALL).await?;
    if body.values().map(BTreeMap::len).sum::<usize>() > MAX_TAGS {
        return Err(ApiError::bad(format!("at most {MAX_TAGS} tags can be set at once")));
    }
    let internal = |error| ApiError::internal("reading a query", error);
    for (uuid, tags) in body {
        let device = own_device(&api, &identity, &uuid).await?;
        let mut tx = api.db.begin().await?;
        for (key, value) in tags {
            let text = format!("device_tag(device={},tag_key={})", device.id, query::literal(&key));
            let request = minke_common_odata::parse(&text).map_err(internal)?;
            match value {
                None => {
                    tx.delete(&Caller::root(), &request).await?;
                }
                Some(value) => {
                    let row = Map::from_iter([("value".to_owned(), json!(value))]);
                    if tx.patch(&Caller::root(), &request, &row).await? == 0 {
                        let row: Map<String, Value> = Map::from_iter([
                            ("device".to_owned(), json!(device.id)),
                            ("tag_key".to_owned(), json!(key)),
                            ("value".to_owned(), json!(value)),
                        ]);
                        tx.post(&Caller::root(), "device_tag", &row).await?;
                    }
                }
            }
        }
        tx.commit().await?;
    }
    Ok(())
}
