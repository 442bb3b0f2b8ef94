//! Invitations: clients name the invited person by address.

use super::actor;
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::store::Session;
use crate::write::{Changes, insert_row};

pub(super) async fn before_insert(
    session: &mut Session,
    caller: &Caller,
    changes: &mut Changes,
) -> Result<()> {
    if !changes.has("is_created_by__user") {
        let user = actor::user_of(session, caller).await?;
        changes.set("is_created_by__user", user);
    }
    let Some(address) = changes.text("invitee").map(str::to_owned) else { return Ok(()) };
    let rest = "FROM \"invitee\" WHERE \"email\" = $1";
    let known =
        session.rows("finding an invitee", "\"id\"", rest, [address.clone().into()]).await?;
    let known = known.first().and_then(|row| row.first()?.as_i64());
    let id = match known {
        Some(id) => id,
        None => {
            let resource = Model::get()
                .resource("invitee")
                .ok_or_else(|| Error::Corrupt("the model has no invitees".to_owned()))?;
            let mut invitee = Changes::default();
            invitee.set("email", Cell::Text(address));
            insert_row(session, caller, resource, invitee).await?
        }
    };
    changes.set("invitee", id);
    Ok(())
}
