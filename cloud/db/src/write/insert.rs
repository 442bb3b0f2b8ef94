//! Making a row.

use minke_cloud_fleet::Verb;
use sea_query::{Alias, Expr, Query};
use serde_json::{Map, Value};

use super::{Changes, all_permitted, check_links, denied, writable};
use crate::caller::Caller;
use crate::cell::Cell;
use crate::compile::{Compiler, Read};
use crate::database::Created;
use crate::error::{Error, Result};
use crate::generation;
use crate::model::{Kind, Resource};
use crate::rules;
use crate::store::{Engine, Session};

/// Makes a row for a caller.
pub(crate) async fn insert(
    session: &mut Session,
    caller: &Caller,
    name: &str,
    body: &Map<String, Value>,
) -> Result<Created> {
    let resource = writable(caller, name, Verb::Create)?;
    let changes = Changes::read(resource, body, caller)?;
    check_links(session, caller, resource, &changes, Verb::Create).await?;
    let id = insert_row(session, caller, resource, changes).await?;
    if !all_permitted(session, caller, resource, &[id], Verb::Create).await? {
        return Err(denied(resource, Verb::Create));
    }
    let row = read_back(session, caller, resource, id).await?;
    Ok(Created { id, row })
}

/// Makes a row by the rules of its resource, whoever may see it.
pub(crate) async fn insert_row(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    mut changes: Changes,
) -> Result<i64> {
    Box::pin(async move {
        generation::wait_for_releases(session, resource, &changes).await?;
        generation::lock_owners(session, resource, &[], &changes).await?;
        rules::before_insert(session, caller, resource, &mut changes).await?;
        changes.complete(resource, session.now)?;
        let id = store(session, resource, &changes).await?;
        rules::after_insert(session, caller, resource, id, &changes).await?;
        generation::bump(session, resource, &[id]).await?;
        Ok(id)
    })
    .await
}

async fn store(
    session: &mut Session,
    resource: &'static Resource,
    changes: &Changes,
) -> Result<i64> {
    let mut columns = changes.columns(resource, false)?;
    if generation::is_counted(resource) {
        columns.push(("generation".to_owned(), Cell::Integer(0), Kind::Integer));
    }
    let ids = session.integers("making a row", statement(&resource.name, columns)?).await?;
    let id =
        ids.first().copied().ok_or_else(|| Error::Corrupt("a row without an id".to_owned()))?;
    if changes.has("id") && session.engine() == Engine::Postgres {
        // SQLite goes on after the greatest id by itself.
        let table = &resource.name;
        let sql = format!(
            "SELECT setval(pg_get_serial_sequence('\"{table}\"', 'id'), (SELECT MAX(\"id\") FROM \
             \"{table}\"))"
        );
        session.run("numbering on after a given id", &sql, []).await?;
    }
    if resource.has_status() {
        let mut columns = changes.columns(resource, true)?;
        columns.push(("id".to_owned(), Cell::Integer(id), Kind::Integer));
        let insert = statement(&resource.status_table(), columns)?;
        session.integers("making the status of a row", insert).await?;
    }
    Ok(id)
}

fn statement(
    table: &str,
    columns: Vec<(String, Cell, Kind)>,
) -> Result<sea_query::InsertStatement> {
    let mut insert = Query::insert();
    insert.into_table(Alias::new(table));
    insert.columns(columns.iter().map(|(name, ..)| Alias::new(name)));
    insert
        .values(columns.into_iter().map(|(_, cell, kind)| Expr::val(cell.bound(kind))))
        .map_err(|error| Error::Corrupt(error.to_string()))?;
    insert.returning_col(Alias::new("id"));
    Ok(insert)
}

async fn read_back(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    id: i64,
) -> Result<Value> {
    let shared = std::sync::Arc::clone(&session.shared);
    let mut compiler = Compiler::new(session.engine(), caller, &shared.rules, session.now, &[]);
    match compiler.row_by_id(resource, id)? {
        Read::Rows(select, shape) => {
            let rows = session.texts("reading a new row", select).await?;
            match rows.into_iter().next().flatten() {
                Some(text) => shape.decode(&text),
                None => Err(Error::Corrupt("a new row is not there".to_owned())),
            }
        }
        Read::Count(_) => Ok(Value::Null),
    }
}
