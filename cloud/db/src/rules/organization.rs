//! Organizations and who belongs to them.

use minke_cloud_fleet::names;

use super::{access, actor, application};
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::store::{Session, list};
use crate::write::{Changes, insert_row};

pub(super) fn before_insert(changes: &mut Changes) -> Result<()> {
    if let (Some(name), false) = (changes.text("name"), changes.has("handle")) {
        let handle = names::handle_from(name);
        changes.set("handle", handle);
    }
    before_update(changes)
}

pub(super) fn before_update(changes: &mut Changes) -> Result<()> {
    match changes.text("handle") {
        Some(handle) => names::check_handle(handle).map_err(|e| Error::invalid(e.to_string())),
        None => Ok(()),
    }
}

/// Whoever makes an organization administers it.
pub(super) async fn after_insert(session: &mut Session, caller: &Caller, id: i64) -> Result<()> {
    let Some(user) = actor::user_of(session, caller).await? else { return Ok(()) };
    let membership = Model::get()
        .resource("organization_membership")
        .ok_or_else(|| Error::Corrupt("the model has no memberships".to_owned()))?;
    let mut changes = Changes::default();
    changes.set("user", user);
    changes.set("is_member_of__organization", id);
    changes.set("organization_membership_role", role(session, "administrator").await?);
    changes.set("effective_seat_role", "administrator");
    insert_row(session, caller, membership, changes).await.map(drop)
}

async fn role(session: &mut Session, name: &str) -> Result<Option<i64>> {
    let rest = "FROM \"organization_membership_role\" WHERE \"name\" = $1";
    let rows = session.rows("finding a role", "\"id\"", rest, [Cell::from(name)]).await?;
    Ok(rows.first().and_then(|row| row.first()?.as_i64()))
}

pub(super) async fn before_membership(session: &mut Session, changes: &mut Changes) -> Result<()> {
    if !changes.has("organization_membership_role") {
        changes.set("organization_membership_role", role(session, "member").await?);
    }
    Ok(())
}

pub(super) async fn after_update(
    session: &mut Session,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    if !changes.has("handle") {
        return Ok(());
    }
    let which = format!("\"organization\" IN ({})", list(ids));
    application::set_slugs(session, &which).await?;
    let rest = format!("FROM \"application\" WHERE {which}");
    let rows = session.rows("finding the fleets of an organization", "\"id\"", &rest, []).await?;
    let fleets: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    access::of_applications(session, &fleets).await
}
