//! Fleets, apps and blocks.

use minke_cloud_fleet::names;
use uuid::Uuid;

use super::{Left, access, actor, release, service_install};
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::store::{Session, list};
use crate::write::{Changes, delete_ids};

/// Application type of a new fleet that names none.
const DEFAULT_TYPE: &str = "microservices-starter";
const FOREIGN_TARGET: &str = "the target release belongs to another fleet";

pub(super) async fn before_insert(
    session: &mut Session,
    caller: &Caller,
    changes: &mut Changes,
) -> Result<()> {
    check_name(changes)?;
    changes.set_if_absent("uuid", || Uuid::new_v4().simple().to_string().into());
    check_uuid(changes)?;
    if changes.integer("should_be_running__release").is_some() {
        // It has no releases yet.
        return Err(Error::invalid(FOREIGN_TARGET));
    }
    if !changes.has("application_type") {
        let rest = "FROM \"application_type\" WHERE \"slug\" = $1";
        let values = [Cell::from(DEFAULT_TYPE)];
        let rows = session.rows("finding the application type", "\"id\"", rest, values).await?;
        let id = rows.first().and_then(|row| row.first()?.as_i64());
        changes.set("application_type", id);
    }
    let given = caller.is_root() && changes.has("slug");
    if let (Some(organization), Some(name), false) =
        (changes.integer("organization"), changes.text("app_name"), given)
    {
        let rest = "FROM \"organization\" WHERE \"id\" = $1";
        let values = [Cell::Integer(organization)];
        let rows = session.rows("reading a handle", "\"handle\"", rest, values).await?;
        let handle = rows.first().and_then(|row| row.first()?.as_str()).unwrap_or_default();
        let slug = names::slug(handle, name);
        changes.set("slug", slug);
    }
    actor::give(session, caller, changes).await
}

fn check_name(changes: &Changes) -> Result<()> {
    match changes.text("app_name") {
        Some(name) => names::check_app_name(name).map_err(|e| Error::invalid(e.to_string())),
        None => Ok(()),
    }
}

fn check_uuid(changes: &Changes) -> Result<()> {
    let hex = |uuid: &str| uuid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match changes.text("uuid") {
        Some(uuid) if uuid.len() != 32 || !hex(uuid) => {
            Err(Error::invalid("application.uuid must be 32 lower-case hexadecimal digits"))
        }
        _ => Ok(()),
    }
}

/// A fleet is its organization's: only who administers that can give it to another.
async fn check_transfer(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let Some(organization) = changes.integer("organization") else { return Ok(()) };
    if caller.is_root() {
        return Ok(());
    }
    let rest = format!(
        "FROM \"application\" a WHERE a.\"id\" IN ({}) AND a.\"organization\" <> $1 AND NOT \
         EXISTS (SELECT 1 FROM \"organization_membership\" m JOIN \
         \"organization_membership_role\" r ON r.\"id\" = m.\"organization_membership_role\" \
         JOIN \"user\" u ON u.\"id\" = m.\"user\" WHERE r.\"name\" = 'administrator' AND \
         m.\"is_member_of__organization\" = a.\"organization\" AND u.\"actor\" = {}) LIMIT 1",
        list(ids),
        list(&caller.actor.into_iter().collect::<Vec<_>>()),
    );
    let values = [Cell::Integer(organization)];
    match session.rows("finding who owns a fleet", "a.\"id\"", &rest, values).await?.is_empty() {
        true => Ok(()),
        false => Err(Error::Denied("taking an application from its organization".to_owned())),
    }
}

pub(super) async fn before_update(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &mut Changes,
) -> Result<()> {
    check_transfer(session, caller, ids, changes).await?;
    check_name(changes)?;
    check_uuid(changes)?;
    let Some(target) = changes.integer("should_be_running__release") else { return Ok(()) };
    let rest = "FROM \"release\" WHERE \"id\" = $1";
    let columns = "\"belongs_to__application\", \"status\"";
    let rows =
        session.rows("reading a target release", columns, rest, [Cell::Integer(target)]).await?;
    let owner = rows.first().and_then(|row| row.first()?.as_i64());
    let status = rows.first().and_then(|row| row.get(1)?.as_str());
    if status != Some("success") {
        return Err(Error::invalid("only a successful release can be the target of a fleet"));
    }
    if ids.iter().any(|id| Some(*id) != owner) {
        return Err(Error::invalid(FOREIGN_TARGET));
    }
    Ok(())
}

pub(super) async fn after_update(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    if changes.has_any(&["app_name", "organization"]) && !changes.has("slug") {
        set_slugs(session, &format!("\"id\" IN ({})", list(ids))).await?;
    }
    if changes.has("organization") {
        access::of_applications(session, ids).await?;
    }
    if changes.is_true("should_track_latest_release") && !changes.has("should_be_running__release")
    {
        release::advance(session, caller, ids).await?;
    }
    if changes.has("should_be_running__release") {
        service_install::for_applications(session, ids).await?;
    }
    Ok(())
}

/// Makes the slugs of applications what their names and organizations say.
pub(super) async fn set_slugs(session: &mut Session, which: &str) -> Result<()> {
    let sql = format!(
        "UPDATE \"application\" SET \"slug\" = LOWER((SELECT o.\"handle\" FROM \"organization\" o \
         WHERE o.\"id\" = \"application\".\"organization\") || '/' || \"app_name\") WHERE {which}"
    );
    session.run("setting slugs", &sql, []).await.map(drop)
}

/// A fleet takes its devices with it.
pub(super) async fn before_delete(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
) -> Result<Left> {
    let model = Model::get();
    let (Some(application), Some(device)) =
        (model.resource("application"), model.resource("device"))
    else {
        return Err(Error::Corrupt("the model has no applications".to_owned()));
    };
    let rest = format!("FROM \"device\" WHERE \"belongs_to__application\" IN ({})", list(ids));
    let rows = session.rows("finding the devices of a fleet", "\"id\"", &rest, []).await?;
    let devices: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    delete_ids(session, caller, device, &devices).await?;
    actor::of_rows(session, application, ids).await
}
