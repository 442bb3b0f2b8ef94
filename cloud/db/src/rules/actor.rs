//! Actors: what a user, a fleet and a device have in common is that keys can speak for them.

use super::Left;
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::model::{Model, Resource};
use crate::store::{Session, list};
use crate::write::{Changes, insert_row};

/// Gives a new row an actor of its own.
pub(super) async fn give(
    session: &mut Session,
    caller: &Caller,
    changes: &mut Changes,
) -> Result<()> {
    if changes.has("actor") {
        return Ok(());
    }
    let actor = Model::get()
        .resource("actor")
        .ok_or_else(|| Error::Corrupt("the model has no actors".to_owned()))?;
    let id = insert_row(session, caller, actor, Changes::default()).await?;
    changes.set("actor", id);
    Ok(())
}

/// The actors of rows that are about to go.
pub(super) async fn of_rows(
    session: &mut Session,
    resource: &Resource,
    ids: &[i64],
) -> Result<Left> {
    let rest = format!("FROM \"{}\" WHERE \"id\" IN ({})", resource.name, list(ids));
    let rows = session.rows("finding actors", "\"actor\"", &rest, []).await?;
    let actors = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    Ok(Left { actors, ..Left::default() })
}

/// Removes actors, and with them their keys.
pub(super) async fn remove(session: &mut Session, actors: &[i64]) -> Result<()> {
    if actors.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM \"actor\" WHERE \"id\" IN ({})", list(actors));
    session.run("removing actors", &sql, []).await.map(drop)
}

/// The user that a caller is, if they are one.
pub(super) async fn user_of(session: &mut Session, caller: &Caller) -> Result<Option<i64>> {
    let Some(actor) = caller.actor else { return Ok(None) };
    let rest = "FROM \"user\" WHERE \"actor\" = $1";
    let rows =
        session.rows("finding the caller's user", "\"id\"", rest, [Cell::Integer(actor)]).await?;
    Ok(rows.first().and_then(|row| row.first()?.as_i64()))
}
