//! What a device must not change of its own row: whose it is, and by what everybody knows it.

use serde_json::Value;

use crate::caller::Caller;
use crate::error::{Error, Result};
use crate::store::{Session, list};
use crate::write::Changes;

/// A device without a fleet, or in one that its owner does not see, would be out of the owner's hands.
pub(super) async fn before_update(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let Some(actor) = caller.actor else { return Ok(()) };
    if !changes.has_any(&["uuid", "belongs_to__application"]) {
        return Ok(());
    }
    let rest = format!("FROM \"device\" WHERE \"id\" IN ({}) AND \"actor\" = $1", list(ids));
    let columns = "\"uuid\", \"belongs_to__application\"";
    let rows = session.rows("finding the calling device", columns, &rest, [actor.into()]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let uuid = row.first().and_then(Value::as_str);
    if changes.has("uuid") && changes.text("uuid") != uuid {
        return Err(Error::Denied("changing device.uuid".to_owned()));
    }
    let fleet = row.get(1).and_then(Value::as_i64);
    if changes.get("belongs_to__application").is_some_and(|new| new.integer() != fleet) {
        return Err(Error::Denied("changing device.belongs_to__application".to_owned()));
    }
    Ok(())
}
