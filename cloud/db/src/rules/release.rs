//! Releases: versions, finalising, and which one a fleet that tracks the latest runs.

use minke_cloud_fleet::target_release::{Candidate, latest};
use minke_common_model::semver::Semver;
use serde_json::Value;

use super::{Left, actor, image, ownership, service_install};
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::store::{Engine, Session, list};
use crate::write::{Changes, update_ids};

/// Columns that a version is made of, and the text that sets most of them.
const VERSION: [&str; 7] = [
    "semver",
    "semver_major",
    "semver_minor",
    "semver_patch",
    "semver_prerelease",
    "semver_build",
    "variant",
];
/// Columns that decide whether a release can be the latest.
const DECIDING: [&str; 5] =
    ["status", "revision", "is_passing_tests", "is_invalidated", "start_timestamp"];

pub(super) async fn before_insert(
    session: &mut Session,
    caller: &Caller,
    changes: &mut Changes,
) -> Result<()> {
    read_semver(changes)?;
    if !changes.has("is_created_by__user") {
        let user = actor::user_of(session, caller).await?;
        changes.set("is_created_by__user", user);
    }
    let is_final = changes.take("is_final") != Some(Cell::Boolean(false));
    if is_final && !changes.has("revision") {
        let application = changes.integer("belongs_to__application").unwrap_or_default();
        lock(session, application).await?;
        let part = |name: &str| changes.integer(name).unwrap_or_default().to_string();
        let text = |name: &str| changes.text(name).unwrap_or_default().to_owned();
        let numbers = ["semver_major", "semver_minor", "semver_patch"].map(part);
        let texts = ["semver_prerelease", "semver_build", "variant"].map(text);
        let revision = next_revision(session, application, &numbers, &texts).await?;
        changes.set("revision", revision);
        changes.set_if_absent("is_finalized_at__date", || Cell::Integer(session.now));
    }
    Ok(())
}

/// Splits `semver` into its columns.
fn read_semver(changes: &mut Changes) -> Result<()> {
    let Some(text) = changes.take("semver") else { return Ok(()) };
    let text = text.text().unwrap_or_default().to_owned();
    let version = Semver::parse(&text).map_err(|error| Error::invalid(error.to_string()))?;
    changes.set("semver_major", i64::from(version.major));
    changes.set("semver_minor", i64::from(version.minor));
    changes.set("semver_patch", i64::from(version.patch));
    changes.set("semver_prerelease", version.prerelease);
    changes.set("semver_build", version.build);
    Ok(())
}

/// Revisions of a fleet are given one after the other. SQLite has one writer anyway.
async fn lock(session: &mut Session, application: i64) -> Result<()> {
    if session.engine() == Engine::Postgres {
        let sql = "UPDATE \"application\" SET \"generation\" = \"generation\" WHERE \"id\" = $1";
        session.run("locking a fleet", sql, [Cell::Integer(application)]).await?;
    }
    Ok(())
}

async fn next_revision(
    session: &mut Session,
    application: i64,
    [major, minor, patch]: &[String; 3],
    [prerelease, build, variant]: &[String; 3],
) -> Result<i64> {
    let rest = format!(
        "FROM \"release\" WHERE \"belongs_to__application\" = {application} AND \"semver_major\" = \
         {major} AND \"semver_minor\" = {minor} AND \"semver_patch\" = {patch} AND \
         \"semver_prerelease\" = $1 AND \"semver_build\" = $2 AND \"variant\" = $3"
    );
    let values = [prerelease, build, variant].map(|text| Cell::Text(text.clone()));
    let rows = session.rows("counting revisions", "MAX(\"revision\")", &rest, values).await?;
    let last = rows.first().and_then(|row| row.first()?.as_i64());
    Ok(last.map_or(0, |last| last + 1))
}

pub(super) async fn before_update(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &mut Changes,
) -> Result<()> {
    let wanted = changes.take("is_final");
    let renamed = changes.has_any(&VERSION);
    read_semver(changes)?;
    changes.set_if_absent("update_timestamp", || Cell::Integer(session.now));
    if wanted.is_none() && (!renamed || caller.is_root()) {
        return Ok(());
    }
    let columns = "\"id\", \"revision\", \"belongs_to__application\", \"semver_major\", \
                   \"semver_minor\", \"semver_patch\", \"semver_prerelease\", \"semver_build\", \
                   \"variant\"";
    // Another write may be making one of them final: what it is must hold until this one is done. The
    // application is locked already, as it is by whoever removes a release.
    let lock = match session.engine() {
        Engine::Postgres => "FOR NO KEY UPDATE",
        Engine::Sqlite => "",
    };
    let rest = format!("FROM \"release\" WHERE \"id\" IN ({}) ORDER BY \"id\" {lock}", list(ids));
    for row in session.rows("reading releases", columns, &rest, []).await? {
        let is_final = row.get(1).is_some_and(|revision| !revision.is_null());
        if is_final && renamed {
            return Err(Error::invalid("the version of a final release cannot be changed"));
        }
        match (&wanted, is_final) {
            (Some(Cell::Boolean(false)), true) => {
                return Err(Error::invalid("a final release cannot become a draft again"));
            }
            (Some(Cell::Boolean(true)), false) => finalise(session, &row, changes).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Gives a draft its revision; what the same write says of its version counts already.
async fn finalise(session: &mut Session, row: &[Value], changes: &Changes) -> Result<()> {
    let number = |at: usize| row.get(at).and_then(Value::as_i64).unwrap_or_default();
    let (id, application) = (number(0), number(2));
    lock(session, application).await?;
    let part = |name: &str, at: usize| changes.integer(name).unwrap_or(number(at)).to_string();
    let numbers = [part("semver_major", 3), part("semver_minor", 4), part("semver_patch", 5)];
    let text = |name: &str, at: usize| {
        let old = row.get(at).and_then(Value::as_str).unwrap_or_default();
        changes.text(name).unwrap_or(old).to_owned()
    };
    let texts = [text("semver_prerelease", 6), text("semver_build", 7), text("variant", 8)];
    let revision = next_revision(session, application, &numbers, &texts).await?;
    let sql = "UPDATE \"release\" SET \"revision\" = $1, \"is_finalized_at__date\" = $2 WHERE \"id\" = $3";
    let values = [Cell::Integer(revision), Cell::Integer(session.now), Cell::Integer(id)];
    session.run("finalising a release", sql, values).await?;
    session.pending.finalised = true;
    Ok(())
}

pub(super) async fn after_write(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let finalised = std::mem::take(&mut session.pending.finalised);
    if !finalised && !changes.has_any(&DECIDING) {
        return Ok(());
    }
    let rest = format!("FROM \"release\" WHERE \"id\" IN ({})", list(ids));
    let rows = session
        .rows("finding the fleets of releases", "\"belongs_to__application\"", &rest, [])
        .await?;
    let mut fleets: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    fleets.sort_unstable();
    fleets.dedup();
    advance(session, caller, &fleets).await
}

/// Sets the target of each fleet that tracks the latest release.
pub(super) async fn advance(session: &mut Session, caller: &Caller, fleets: &[i64]) -> Result<()> {
    for fleet in fleets {
        let rest = "FROM \"application\" WHERE \"id\" = $1 AND \"should_track_latest_release\"";
        let target = "\"should_be_running__release\"";
        let rows =
            session.rows("reading a fleet's target", target, rest, [Cell::Integer(*fleet)]).await?;
        let Some(row) = rows.first() else { continue };
        let current = row.first().and_then(Value::as_i64);
        let wanted = latest_of(session, *fleet).await?;
        if wanted == current {
            continue;
        }
        let application = Model::get()
            .resource("application")
            .ok_or_else(|| Error::Corrupt("the model has no applications".to_owned()))?;
        let mut changes = Changes::default();
        changes.set("should_be_running__release", wanted);
        update_ids(session, caller, application, &[*fleet], changes).await?;
    }
    Ok(())
}

async fn latest_of(session: &mut Session, fleet: i64) -> Result<Option<i64>> {
    // The order and the limit only keep the list short; the rule itself is in `latest`.
    let rest = "FROM (SELECT * FROM \"release\" WHERE \"belongs_to__application\" = $1 AND \"status\" \
                = 'success' AND \"revision\" IS NOT NULL AND \"is_passing_tests\" AND NOT \
                \"is_invalidated\" ORDER BY \"start_timestamp\" DESC, \"id\" DESC LIMIT 1) r";
    let columns = "r.\"id\", r.\"start_timestamp\"";
    let rows =
        session.rows("finding the latest release", columns, rest, [Cell::Integer(fleet)]).await?;
    let candidates: Vec<Candidate<'_>> = rows
        .iter()
        .filter_map(|row| {
            Some(Candidate {
                id: row.first()?.as_i64()?,
                status: "success",
                is_final: true,
                is_passing_tests: true,
                is_invalidated: false,
                start_timestamp: row.get(1)?.as_i64()?,
            })
        })
        .collect();
    Ok(latest(&candidates))
}

pub(super) async fn before_delete(session: &mut Session, ids: &[i64]) -> Result<Left> {
    let rest = format!("FROM \"release\" WHERE \"id\" IN ({})", list(ids));
    let rows = session
        .rows("finding the fleets of releases", "\"belongs_to__application\"", &rest, [])
        .await?;
    let applications = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    let images = image::of_releases(session, ids).await?;
    Ok(Left { applications, images, ..Left::default() })
}

/// A second image needs a fleet that runs several services.
pub(super) async fn before_image(session: &mut Session, changes: &mut Changes) -> Result<()> {
    let Some(release) = changes.integer("is_part_of__release") else { return Ok(()) };
    let rest = "FROM \"release\" r JOIN \"application\" a ON a.\"id\" = \
                r.\"belongs_to__application\" JOIN \"application_type\" t ON t.\"id\" = \
                a.\"application_type\" WHERE r.\"id\" = $1 AND NOT t.\"supports_multicontainer\" \
                AND EXISTS (SELECT 1 FROM \"release_image\" i WHERE i.\"is_part_of__release\" = $1)";
    let rows = session
        .rows("reading an application type", "t.\"name\"", rest, [Cell::Integer(release)])
        .await?;
    match rows.first().and_then(|row| row.first()?.as_str()) {
        Some(name) => Err(Error::invalid(format!(
            "a release of an application of type {name} has one image only"
        ))),
        None => Ok(()),
    }
}

pub(super) async fn after_image(session: &mut Session, id: i64, changes: &Changes) -> Result<()> {
    ownership::of_places(session, &[id]).await?;
    match changes.integer("is_part_of__release") {
        Some(release) => service_install::for_release(session, release).await,
        None => Ok(()),
    }
}
