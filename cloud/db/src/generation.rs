//! The state generation: numbers that move with everything a device's target state may say.
//!
//! Every application and every device counts the changes of its own part. A device's generation is
//! the text of the counts that its state depends on: its own, its fleet's, and those of the
//! applications whose releases manage and operate it. A device that points somewhere else has been
//! changed itself, so no text ever comes back.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::model::{Model, Resource};
use crate::store::{Session, Statement, list};
use crate::write::Changes;

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

/// Moves the counts that rows with these ids belong to.
pub(crate) async fn bump(
    session: &mut Session,
    resource: &'static Resource,
    ids: &[i64],
) -> Result<()> {
    let Some(generation) = &resource.generation else { return Ok(()) };
    let mut rows = list(ids);
    let mut here = resource;
    for step in &generation.path {
        rows = format!("SELECT \"{step}\" FROM \"{}\" WHERE \"id\" IN ({rows})", here.name);
        let Some(link) = here.link(step) else { break };
        here = Model::get().at(link.to);
    }
    let sql = format!(
        "UPDATE \"{}\" SET \"generation\" = \"generation\" + 1 WHERE \"id\" IN ({rows})",
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
