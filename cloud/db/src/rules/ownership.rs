//! What a release is made of is of one application: the release, its images and their services.
//!
//! A device is told the variables of every service in its release, and hears of changes through the
//! state generation of its own fleet: another fleet's service in it would show what that fleet keeps to
//! itself, and change unnoticed.

use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::model::Resource;
use crate::store::{Session, list};
use crate::write::Changes;

/// Refuses to take rows to another application than the one that `link` leads to.
pub(super) async fn stays(
    session: &mut Session,
    resource: &Resource,
    link: &str,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let Some(application) = changes.integer(link) else { return Ok(()) };
    let name = &resource.name;
    let rest =
        format!("FROM \"{name}\" WHERE \"id\" IN ({}) AND \"{link}\" <> $1 LIMIT 1", list(ids));
    let values = [Cell::Integer(application)];
    match session.rows("finding owners", "\"id\"", &rest, values).await?.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!("a {name} stays in its application"))),
    }
}

/// Checks the places of images that were given to a service.
pub(super) async fn of_images(session: &mut Session, ids: &[i64], changes: &Changes) -> Result<()> {
    match changes.has("is_a_build_of__service") {
        true => check(session, "image", ids).await,
        false => Ok(()),
    }
}

/// Checks these places of images in releases.
pub(super) async fn of_places(session: &mut Session, ids: &[i64]) -> Result<()> {
    check(session, "id", ids).await
}

/// Checks the rows of `release_image` with these values in `column`.
async fn check(session: &mut Session, column: &str, ids: &[i64]) -> Result<()> {
    let rest = format!(
        "FROM \"release_image\" p JOIN \"release\" r ON r.\"id\" = p.\"is_part_of__release\" JOIN \
         \"image\" i ON i.\"id\" = p.\"image\" JOIN \"service\" s ON s.\"id\" = \
         i.\"is_a_build_of__service\" WHERE p.\"{column}\" IN ({}) AND s.\"application\" <> \
         r.\"belongs_to__application\" LIMIT 1",
        list(ids)
    );
    match session.rows("finding owners of images", "p.\"id\"", &rest, []).await?.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(
            "an image can be part of releases of its service's application only",
        )),
    }
}
