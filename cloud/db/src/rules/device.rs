//! Devices.

use minke_cloud_fleet::names;
use uuid::Uuid;

use super::{actor, service_install, system_release};
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::store::{Session, list};
use crate::write::Changes;

pub(super) async fn before_insert(
    session: &mut Session,
    caller: &Caller,
    changes: &mut Changes,
) -> Result<()> {
    changes.set_if_absent("uuid", || Uuid::new_v4().simple().to_string().into());
    check(changes)?;
    let seed = u64::from_le_bytes(first_eight(Uuid::new_v4().as_bytes()));
    changes.set_if_absent("device_name", || names::device_name(seed).into());
    if let Some(pin) = changes.integer("is_pinned_on__release") {
        check_pin(session, pin, changes.integer("belongs_to__application")).await?;
    }
    stamp(session.now, changes);
    actor::give(session, caller, changes).await
}

pub(super) async fn after_insert(session: &mut Session, id: i64, changes: &Changes) -> Result<()> {
    system_release::check(session, &[id], changes).await?;
    service_install::for_devices(session, &[id]).await
}

fn first_eight(bytes: &[u8; 16]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    eight
}

fn check(changes: &Changes) -> Result<()> {
    let hex = |uuid: &str| uuid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match changes.text("uuid") {
        Some(uuid) if !matches!(uuid.len(), 32 | 62) || !hex(uuid) => {
            let rule = "device.uuid must be 32 or 62 lower-case hexadecimal digits";
            return Err(Error::invalid(rule));
        }
        _ => {}
    }
    match changes.text("device_name") {
        Some(name) if name.trim().is_empty() || name.contains(['\n', '\r']) => {
            Err(Error::invalid("device.device_name must be a line that is not blank"))
        }
        _ => Ok(()),
    }
}

async fn check_pin(session: &mut Session, pin: i64, application: Option<i64>) -> Result<()> {
    let rest = "FROM \"release\" WHERE \"id\" = $1";
    let columns = "\"belongs_to__application\", \"status\"";
    let rows =
        session.rows("reading a pinned release", columns, rest, [Cell::Integer(pin)]).await?;
    if rows.first().and_then(|row| row.get(1)?.as_str()) != Some("success") {
        return Err(Error::invalid("only a successful release can be pinned"));
    }
    if rows.first().and_then(|row| row.first()?.as_i64()) != application {
        return Err(Error::invalid("the pinned release belongs to another fleet than the device"));
    }
    Ok(())
}

/// Notes when a connection or an update was last heard of.
fn stamp(now: i64, changes: &mut Changes) {
    if let Some(connected) = changes.get("is_connected_to_vpn").cloned() {
        changes.set_if_absent("is_online", || connected);
        changes.set_if_absent("last_vpn_event", || Cell::Integer(now));
    }
    if changes.has("is_online") {
        changes.set_if_absent("last_connectivity_event", || Cell::Integer(now));
    }
    if changes.has("update_status") {
        changes.set_if_absent("last_update_status_event", || Cell::Integer(now));
    }
}

pub(super) async fn before_update(
    session: &mut Session,
    ids: &[i64],
    changes: &mut Changes,
) -> Result<()> {
    check(changes)?;
    stamp(session.now, changes);
    if let Some(pin) = changes.integer("is_pinned_on__release") {
        let fleets = match changes.get("belongs_to__application") {
            Some(application) => vec![application.integer()],
            None => fleets(session, ids).await?,
        };
        for fleet in fleets {
            check_pin(session, pin, fleet).await?;
        }
    } else if let Some(application) = changes.integer("belongs_to__application") {
        // A pin is for a release of the old fleet.
        let sql = format!(
            "UPDATE \"device\" SET \"is_pinned_on__release\" = NULL WHERE \"id\" IN ({}) AND \
             (\"belongs_to__application\" IS NULL OR \"belongs_to__application\" <> $1)",
            list(ids)
        );
        session.run("clearing pins", &sql, [Cell::Integer(application)]).await?;
    }
    Ok(())
}

async fn fleets(session: &mut Session, ids: &[i64]) -> Result<Vec<Option<i64>>> {
    let rest = format!("FROM \"device\" WHERE \"id\" IN ({})", list(ids));
    let fleet = "\"belongs_to__application\"";
    let rows = session.rows("finding the fleets of devices", fleet, &rest, []).await?;
    let mut fleets: Vec<Option<i64>> =
        rows.iter().map(|row| row.first().and_then(serde_json::Value::as_i64)).collect();
    fleets.sort_unstable();
    fleets.dedup();
    Ok(fleets)
}

pub(super) async fn after_update(
    session: &mut Session,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    system_release::check(session, ids, changes).await?;
    if changes.has("belongs_to__application") {
        let sql = format!(
            "DELETE FROM \"service_install\" WHERE \"device\" IN ({}) AND NOT EXISTS (SELECT 1 \
             FROM \"device\" d JOIN \"service\" s ON s.\"application\" = \
             d.\"belongs_to__application\" WHERE d.\"id\" = \"service_install\".\"device\" AND \
             s.\"id\" = \"service_install\".\"installs__service\")",
            list(ids)
        );
        session.run("removing services of the old fleet", &sql, []).await?;
    }
    if changes.has_any(&["belongs_to__application", "is_pinned_on__release"]) {
        service_install::for_devices(session, ids).await?;
    }
    Ok(())
}
