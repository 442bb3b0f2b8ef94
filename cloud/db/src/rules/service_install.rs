//! Which services a device has: each one of the release that it should run, once it should.

use crate::cell::Cell;
use crate::error::Result;
use crate::store::{Session, list};

async fn fill(session: &mut Session, which: &str) -> Result<()> {
    let sql = format!(
        "INSERT INTO \"service_install\" (\"created_at\", \"modified_at\", \"device\", \
         \"installs__service\") SELECT DISTINCT CAST($1 AS BIGINT), CAST($1 AS BIGINT), d.\"id\", \
         i.\"is_a_build_of__service\" FROM \"device\" d LEFT JOIN \"application\" a ON a.\"id\" = \
         d.\"belongs_to__application\" JOIN \"release_image\" ri ON ri.\"is_part_of__release\" = \
         COALESCE(d.\"is_pinned_on__release\", a.\"should_be_running__release\") JOIN \"image\" i \
         ON i.\"id\" = ri.\"image\" WHERE {which} AND NOT EXISTS (SELECT 1 FROM \
         \"service_install\" s WHERE s.\"device\" = d.\"id\" AND s.\"installs__service\" = \
         i.\"is_a_build_of__service\")"
    );
    session.run("installing services", &sql, [Cell::Integer(session.now)]).await.map(drop)
}

pub(super) async fn for_devices(session: &mut Session, ids: &[i64]) -> Result<()> {
    fill(session, &format!("d.\"id\" IN ({})", list(ids))).await
}

pub(super) async fn for_applications(session: &mut Session, ids: &[i64]) -> Result<()> {
    fill(session, &format!("d.\"belongs_to__application\" IN ({})", list(ids))).await
}

/// For the devices that should run a release which has just got another image.
pub(super) async fn for_release(session: &mut Session, id: i64) -> Result<()> {
    let target = "COALESCE(d.\"is_pinned_on__release\", a.\"should_be_running__release\")";
    fill(session, &format!("{target} = {id}")).await
}
