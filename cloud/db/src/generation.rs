//! The state generation: numbers that move with everything a device's target state may say.
//!
//! Every application and every device counts the changes of its own part. A device's generation is
//! the text of the counts that its state depends on: its own, its fleet's, and those of the
//! applications whose releases manage and operate it. A device that points somewhere else has been
//! changed itself, so no text ever comes back. A release that nothing points to moves no count, and
//! neither do its images: to point to it is a change of its own.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::model::{Model, Resource};
use crate::store::{Engine, Session, Statement, list};
use crate::write::Changes;

/// Links that say what is to run. What no such link leads to is in no target state.
const TARGETS: [(&str, &str); 4] = [
    ("application", "should_be_running__release"),
    ("device", "is_pinned_on__release"),
    ("device", "should_be_managed_by__release"),
    ("device", "should_be_operated_by__release"),
];

/// What one committed transaction moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Row ids of applications: what they say to all of their devices.
    pub applications: BTreeSet<i64>,
    /// Row ids of devices: what is said to them alone.
    pub devices: BTreeSet<i64>,
}

/// Whether rows of this resource carry a count.
pub(crate) fn is_counted(resource: &Resource) -> bool {
    matches!(resource.name.as_str(), "application" | "device")
}

/// Whether a write of these columns can show in a target state.
pub(crate) fn shows(resource: &Resource, changes: &Changes) -> bool {
    let volatile = |name: &str| {
        resource.field(name).is_some_and(|f| f.volatile)
            || resource.link(name).is_some_and(|l| l.volatile)
    };
    resource.generation.is_some() && changes.names().any(|name| !volatile(name))
}

/// Whether a write takes rows from one owner to another.
pub(crate) fn moves(resource: &Resource, changes: &Changes) -> bool {
    let first = resource.generation.as_ref().and_then(|generation| generation.path.first());
    first.is_some_and(|link| changes.has(link))
}

/// Moves the counts that rows with these ids belong to. What belongs to a release shows only while that
/// is the target of something: what a push writes on its way there is no news to a device.
pub(crate) async fn bump(
    session: &mut Session,
    resource: &'static Resource,
    ids: &[i64],
) -> Result<()> {
    let Some(generation) = &resource.generation else { return Ok(()) };
    let (all, shown) = (owners(resource, ids, false), owners(resource, ids, true));
    if all != shown && session.engine() == Engine::Postgres {
        // Whoever makes a release a target takes this lock too. So it has done so before the look
        // below, or does it after this write is there to be seen.
        let sql = format!(
            "SELECT \"id\" FROM \"{}\" WHERE \"id\" IN ({all}) ORDER BY \"id\" FOR NO KEY UPDATE",
            generation.of
        );
        session.run("locking the owners of releases", &sql, []).await?;
    }
    let sql = format!(
        "UPDATE \"{}\" SET \"generation\" = \"generation\" + 1 WHERE \"id\" IN ({shown})",
        generation.of
    );
    let sql = Statement::raw(format!("{sql} RETURNING \"id\""), []);
    let moved = session.integers("moving a state generation", sql).await?;
    match generation.of.as_str() {
        "device" => session.moved.devices.extend(moved),
        _ => session.moved.applications.extend(moved),
    }
    Ok(())
}

/// The rows that keep the count of these, as the inside of an `IN (…)`: of all of them, or of those that
/// a target state may show.
fn owners(resource: &'static Resource, ids: &[i64], only_shown: bool) -> String {
    let path = resource.generation.as_ref().map_or(&[][..], |of| of.path.as_slice());
    at_the_end_of(path, resource, list(ids), only_shown)
}

fn at_the_end_of(
    path: &[String],
    start: &'static Resource,
    mut rows: String,
    only_shown: bool,
) -> String {
    let mut here = start;
    for step in path {
        if only_shown {
            rows = of_targets(here, rows);
        }
        rows = format!("SELECT \"{step}\" FROM \"{}\" WHERE \"id\" IN ({rows})", here.name);
        let Some(link) = here.link(step) else { break };
        here = Model::get().at(link.to);
    }
    rows
}

/// Before rows are made or changed: locks the rows of others that keep their counts, which the write
/// moves at its end. Removing takes these first as well, so that of two writes to a release and what is
/// in it one waits for the other, and never each for the other.
pub(crate) async fn lock_owners(
    session: &mut Session,
    resource: &'static Resource,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let Some(generation) = &resource.generation else { return Ok(()) };
    let Some((first, rest)) = generation.path.split_first() else { return Ok(()) };
    if session.engine() != Engine::Postgres || !shows(resource, changes) {
        return Ok(());
    }
    let mut which = Vec::new();
    if !ids.is_empty() {
        which.push(owners(resource, ids, false));
    }
    if let (Some(id), Some(link)) = (changes.integer(first), resource.link(first)) {
        which.push(at_the_end_of(rest, Model::get().at(link.to), list(&[id]), false));
    }
    if which.is_empty() {
        return Ok(());
    }
    let which: Vec<String> = which.iter().map(|rows| format!("\"id\" IN ({rows})")).collect();
    let sql = format!(
        "SELECT \"id\" FROM \"{}\" WHERE {} ORDER BY \"id\" FOR NO KEY UPDATE",
        generation.of,
        which.join(" OR ")
    );
    session.run("locking the owners of rows", &sql, []).await.map(drop)
}

/// Of releases those that are a target, and of images those that are in such a release.
fn of_targets(resource: &Resource, rows: String) -> String {
    match resource.name.as_str() {
        "release" => format!(
            "SELECT r.\"id\" FROM \"release\" r WHERE r.\"id\" IN ({rows}) AND ({})",
            is_target()
        ),
        "image" => format!(
            "SELECT p.\"image\" FROM \"release_image\" p JOIN \"release\" r ON r.\"id\" = \
             p.\"is_part_of__release\" WHERE p.\"image\" IN ({rows}) AND ({})",
            is_target()
        ),
        _ => rows,
    }
}

/// Whether anything points to the release `r`.
fn is_target() -> String {
    let any = TARGETS.map(|(table, link)| {
        format!("EXISTS (SELECT 1 FROM \"{table}\" t WHERE t.\"{link}\" = r.\"id\")")
    });
    any.join(" OR ")
}

/// Before a device is made to run releases: waits for the writes to them that tell no device, as
/// nothing ran them. The target of an application needs no more than the write of its own row.
pub(crate) async fn wait_for_releases(
    session: &mut Session,
    resource: &Resource,
    changes: &Changes,
) -> Result<()> {
    if resource.name != "device" || session.engine() != Engine::Postgres {
        return Ok(());
    }
    let releases: Vec<i64> = TARGETS.iter().filter_map(|(_, link)| changes.integer(link)).collect();
    if releases.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT \"id\" FROM \"application\" WHERE \"id\" IN (SELECT \"belongs_to__application\" \
         FROM \"release\" WHERE \"id\" IN ({})) ORDER BY \"id\" FOR SHARE",
        list(&releases)
    );
    session.run("waiting for writes to releases", &sql, []).await.map(drop)
}

/// The generation of a device's target state; `None` if there is no such device.
pub(crate) async fn of_device(session: &mut Session, device: i64) -> Result<Option<String>> {
    let of_release = |link: &str| {
        format!(
            "(SELECT a.\"generation\" FROM \"release\" r JOIN \"application\" a ON a.\"id\" = \
             r.\"belongs_to__application\" WHERE r.\"id\" = d.\"{link}\")"
        )
    };
    let columns = format!(
        "d.\"generation\", (SELECT a.\"generation\" FROM \"application\" a WHERE a.\"id\" = \
         d.\"belongs_to__application\"), {}, {}",
        of_release("should_be_managed_by__release"),
        of_release("should_be_operated_by__release")
    );
    let rest = "FROM \"device\" d WHERE d.\"id\" = $1";
    let rows = session.rows("reading a state generation", &columns, rest, [device.into()]).await?;
    Ok(rows.first().map(|counts| {
        let texts: Vec<String> =
            counts.iter().map(|n| n.as_i64().map_or("-".to_owned(), |n| n.to_string())).collect();
        texts.join(".")
    }))
}
