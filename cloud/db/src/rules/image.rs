//! Images: the server says where they are stored, and removes those of releases that are gone.

use uuid::Uuid;

use crate::caller::Caller;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::store::{Engine, Session, list};
use crate::write::{CHUNK, Changes, delete_ids};

/// A path without a host: a server may move.
pub(super) fn before_insert(changes: &mut Changes) -> Result<()> {
    changes.set_if_absent("is_stored_at__image_location", || {
        format!("v2/{}", Uuid::new_v4().simple()).into()
    });
    Ok(())
}

/// The images in these releases that are of the releases' own applications.
pub(super) async fn of_releases(session: &mut Session, releases: &[i64]) -> Result<Vec<i64>> {
    let rest = format!(
        "FROM \"release_image\" p JOIN \"release\" r ON r.\"id\" = p.\"is_part_of__release\" JOIN \
         \"image\" i ON i.\"id\" = p.\"image\" JOIN \"service\" s ON s.\"id\" = \
         i.\"is_a_build_of__service\" WHERE r.\"id\" IN ({}) AND s.\"application\" = \
         r.\"belongs_to__application\" ORDER BY i.\"id\"",
        list(releases)
    );
    let rows = session.rows("finding images of releases", "i.\"id\"", &rest, []).await?;
    let mut images: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    images.dedup();
    Ok(images)
}

/// Removes those of the images that are in no release any more: without its row the repository of an
/// image is removed, so the disk has room again.
pub(super) async fn remove_unused(
    session: &mut Session,
    caller: &Caller,
    images: &[i64],
) -> Result<()> {
    let image = Model::get()
        .resource("image")
        .ok_or_else(|| Error::Corrupt("the model has no images".to_owned()))?;
    for chunk in images.chunks(CHUNK) {
        let which = list(chunk);
        if session.engine() == Engine::Postgres {
            // Whoever puts one into a release has done so before the look below, or finds it gone.
            let sql = format!("SELECT \"id\" FROM \"image\" WHERE \"id\" IN ({which}) FOR UPDATE");
            session.run("locking images", &sql, []).await?;
        }
        let rest = format!(
            "FROM \"image\" WHERE \"id\" IN ({which}) AND NOT EXISTS (SELECT 1 FROM \
             \"release_image\" p WHERE p.\"image\" = \"image\".\"id\") ORDER BY \"id\""
        );
        let rows = session.rows("finding unused images", "\"id\"", &rest, []).await?;
        let unused: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
        delete_ids(session, caller, image, &unused).await?;
    }
    Ok(())
}
