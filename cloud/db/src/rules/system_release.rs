//! Releases of the system: the supervisor that manages a device, and the host OS that operates it.
//!
//! A device is told what such a release holds, variables included, and its owner may read it there. So
//! only what is made for devices of everybody can be one.

use crate::error::{Error, Result};
use crate::store::{Session, list};
use crate::write::Changes;

const MANAGED: &str = "should_be_managed_by__release";
const OPERATED: &str = "should_be_operated_by__release";

/// Checks the devices after a write of these columns.
pub(super) async fn check(session: &mut Session, ids: &[i64], changes: &Changes) -> Result<()> {
    if changes.integer(MANAGED).is_some() {
        let wrong = "a.\"slug\" <> 'balena_os/' || c.\"slug\" || '-supervisor'";
        if any(session, ids, MANAGED, wrong).await? {
            return Err(Error::invalid(format!(
                "device.{MANAGED}: not a release of balena_os/<architecture of the device>-supervisor"
            )));
        }
    }
    if changes.integer(OPERATED).is_some() {
        let wrong = "NOT a.\"is_host\" OR a.\"is_for__device_type\" <> d.\"is_of__device_type\"";
        if any(session, ids, OPERATED, wrong).await? {
            return Err(Error::invalid(format!(
                "device.{OPERATED}: not a release of a host application for the device's type"
            )));
        }
    }
    Ok(())
}

/// Whether the application `a` of the release that `link` leads to is `wrong` for one of the devices.
async fn any(session: &mut Session, ids: &[i64], link: &str, wrong: &str) -> Result<bool> {
    let rest = format!(
        "FROM \"device\" d JOIN \"release\" r ON r.\"id\" = d.\"{link}\" JOIN \"application\" a ON \
         a.\"id\" = r.\"belongs_to__application\" JOIN \"device_type\" t ON t.\"id\" = \
         d.\"is_of__device_type\" JOIN \"cpu_architecture\" c ON c.\"id\" = \
         t.\"is_of__cpu_architecture\" WHERE d.\"id\" IN ({}) AND ({wrong}) LIMIT 1",
        list(ids)
    );
    let rows = session.rows("reading releases of the system", "d.\"id\"", &rest, []).await?;
    Ok(!rows.is_empty())
}
