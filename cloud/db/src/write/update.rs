//! Changing rows.

use minke_cloud_fleet::Verb;
use minke_common_odata::Request;
use sea_query::{Alias, Expr, ExprTrait, Query};
use serde_json::{Map, Value};

use super::{CHUNK, Changes, addressed, all_permitted, check_links, denied, writable};
use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::Result;
use crate::generation;
use crate::model::{Kind, Resource};
use crate::rules;
use crate::store::Session;

/// Changes the rows that a request addresses; gives how many.
pub(crate) async fn update(
    session: &mut Session,
    caller: &Caller,
    request: &Request,
    body: &Map<String, Value>,
) -> Result<u64> {
    let resource = writable(caller, &request.resource, Verb::Update)?;
    let changes = Changes::read(resource, body, caller)?;
    check_links(session, caller, resource, &changes, Verb::Update).await?;
    let ids = addressed(session, caller, request, Verb::Update).await?;
    if ids.is_empty() || changes.is_empty() {
        return Ok(ids.len() as u64);
    }
    update_ids(session, caller, resource, &ids, changes).await?;
    if !all_permitted(session, caller, resource, &ids, Verb::Update).await? {
        return Err(denied(resource, Verb::Update));
    }
    Ok(ids.len() as u64)
}

/// Changes rows by the rules of their resource, whoever may see them.
pub(crate) async fn update_ids(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    ids: &[i64],
    changes: Changes,
) -> Result<()> {
    Box::pin(async move {
        generation::wait_for_releases(session, resource, &changes).await?;
        for chunk in ids.chunks(CHUNK) {
            let mut changes = changes.clone();
            generation::lock_owners(session, resource, chunk, &changes).await?;
            rules::before_update(session, caller, resource, chunk, &mut changes).await?;
            let shows = generation::shows(resource, &changes);
            if shows && generation::moves(resource, &changes) {
                generation::bump(session, resource, chunk).await?;
            }
            store(session, resource, chunk, &changes).await?;
            if shows {
                generation::bump(session, resource, chunk).await?;
            }
            rules::after_update(session, caller, resource, chunk, &changes).await?;
        }
        Ok(())
    })
    .await
}

async fn store(
    session: &mut Session,
    resource: &'static Resource,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let mut columns = changes.columns(resource, false)?;
    if !columns.is_empty() {
        if !changes.has("modified_at") {
            columns.push(("modified_at".to_owned(), Cell::Integer(session.now), Kind::Integer));
        }
        session.execute("changing rows", statement(&resource.name, columns, ids)).await?;
    }
    if resource.has_status() {
        let columns = changes.columns(resource, true)?;
        if !columns.is_empty() {
            let update = statement(&resource.status_table(), columns, ids);
            session.execute("changing the status of rows", update).await?;
        }
    }
    Ok(())
}

fn statement(
    table: &str,
    columns: Vec<(String, Cell, Kind)>,
    ids: &[i64],
) -> sea_query::UpdateStatement {
    let mut update = Query::update();
    update.table(Alias::new(table));
    let bound = |cell: Cell, kind| Expr::val(cell.bound(kind));
    update.values(
        columns.into_iter().map(|(name, cell, kind)| (Alias::new(name), bound(cell, kind))),
    );
    update.and_where(Expr::col(Alias::new("id")).is_in(ids.iter().copied()));
    update
}
