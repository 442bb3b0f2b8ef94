//! Images: the server says where they are stored.

use uuid::Uuid;

use crate::error::Result;
use crate::write::Changes;

/// A path without a host: a server may move.
pub(super) fn before_insert(changes: &mut Changes) -> Result<()> {
    changes.set_if_absent("is_stored_at__image_location", || {
        format!("v2/{}", Uuid::new_v4().simple()).into()
    });
    Ok(())
}
