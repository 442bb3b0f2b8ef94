//! Writes: what a request changes, with the rules of the resource, in one transaction.
//!
//! Invariants:
//! * a row is touched only if it passes the caller's filter for the verb: before the write, and for
//!   a new or changed row after it as well;
//! * a link that a caller gives must lead to a row that the caller may read; one that is hidden and
//!   one that is not there are refused in the same words;
//! * a request's key and filter say all of what it touches: options that would take a part of that
//!   (`$top`, `$skip`, `$orderby`) are refused;
//! * a link by which a row gives access to an application must lead to one that the caller may change
//!   before the write;
//! * the state generation of every device that a write can show on moves in the same transaction.

mod changes;
mod delete;
mod insert;
mod update;

use minke_cloud_fleet::Verb;
use minke_common_odata::{Key, KeyValue, Literal, Request};
use serde_json::{Map, Value, json};

pub(crate) use changes::Changes;
pub(crate) use delete::{delete, delete_ids};
pub(crate) use insert::{insert, insert_row};
pub(crate) use update::{update, update_ids};

use crate::caller::Caller;
use crate::compile::Compiler;
use crate::error::{Error, Result};
use crate::model::{Model, Resource};
use crate::rules;
use crate::store::Session;

/// Rows that one statement, and one transaction of a bulk write, touches at most.
pub(crate) const CHUNK: usize = 500;

/// The resource of a write, if the caller may do that to any row of it at all.
fn writable(caller: &Caller, name: &str, verb: Verb) -> Result<&'static Resource> {
    let resource = Model::get()
        .resource(name)
        .ok_or_else(|| Error::invalid(format!("there is no resource {name:?}")))?;
    if !caller.is_root() && caller.permissions.filters(&resource.name, verb).is_empty() {
        return Err(denied(resource, verb));
    }
    if resource.is_readonly {
        return Err(Error::invalid(format!("{} is read-only", resource.name)));
    }
    Ok(resource)
}

fn denied(resource: &Resource, verb: Verb) -> Error {
    let doing = match verb {
        Verb::Read => "reading",
        Verb::Create => "creating",
        Verb::Update => "changing",
        Verb::Delete => "removing",
    };
    Error::Denied(format!("{doing} this {}", resource.name))
}

/// Ids of the rows that a request addresses and the caller may do `verb` with.
pub(crate) async fn addressed(
    session: &mut Session,
    caller: &Caller,
    request: &Request,
    verb: Verb,
) -> Result<Vec<i64>> {
    refuse_parts(request)?;
    let shared = std::sync::Arc::clone(&session.shared);
    let aliases = &request.options.aliases;
    let mut compiler = Compiler::new(session.engine(), caller, &shared.rules, session.now, aliases);
    let select = compiler.addressed(request, verb)?;
    session.integers("finding the rows of a write", select).await
}

/// A write is of every row that its key and filter find: an option that asks for some of them would
/// be taken for more than was asked.
fn refuse_parts(request: &Request) -> Result<()> {
    let options = &request.options;
    let parts = [
        ("$top", options.top.is_some()),
        ("$skip", options.skip.is_some()),
        ("$orderby", !options.orderby.is_empty()),
    ];
    match parts.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::invalid(format!(
            "{name} is for reads only: a write is of every row that its key and $filter find"
        ))),
        None => Ok(()),
    }
}

/// Whether the caller may do `verb` with every one of these rows, as they are now.
async fn all_permitted(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    ids: &[i64],
    verb: Verb,
) -> Result<bool> {
    if caller.is_root() {
        return Ok(true);
    }
    for chunk in ids.chunks(CHUNK) {
        let shared = std::sync::Arc::clone(&session.shared);
        let mut compiler = Compiler::new(session.engine(), caller, &shared.rules, session.now, &[]);
        let select = compiler.permitted(resource, chunk, verb)?;
        let found = session.integers("checking a permission", select).await?;
        if found.first().copied() != i64::try_from(chunk.len()).ok() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sees that each given link leads to a row that the caller may read, and one that gives access to a
/// row which is the caller's to give.
async fn check_links(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    changes: &Changes,
    verb: Verb,
) -> Result<()> {
    for link in resource.links.iter().filter(|link| link.computed.is_none()) {
        let Some(id) = changes.integer(&link.name) else { continue };
        let target = Model::get().at(link.to);
        let shared = std::sync::Arc::clone(&session.shared);
        let mut compiler = Compiler::new(session.engine(), caller, &shared.rules, session.now, &[]);
        let select = compiler.permitted(target, &[id], Verb::Read)?;
        let found = session.integers("following a link", select).await?;
        if found.first() != Some(&1) {
            let message =
                format!("{}.{}: there is no {} {id}", resource.name, link.name, target.name);
            return Err(Error::invalid(message));
        }
        // Once such a row is there, whoever it names passes the filter that is asked after the write.
        let gives = rules::gives_access(resource, &link.name);
        if gives && !all_permitted(session, caller, target, &[id], Verb::Update).await? {
            return Err(denied(resource, verb));
        }
    }
    Ok(())
}

/// Makes the row of a natural key, or changes it if it is there.
pub(crate) async fn put(
    session: &mut Session,
    caller: &Caller,
    request: &Request,
    body: &Map<String, Value>,
) -> Result<u64> {
    let Some(Key::Named(parts)) = &request.key else {
        return update(session, caller, request, body).await;
    };
    if !addressed(session, caller, request, Verb::Update).await?.is_empty() {
        return update(session, caller, request, body).await;
    }
    let mut whole = body.clone();
    for (name, value) in parts {
        let literal = match value {
            KeyValue::Literal(literal) => Some(literal),
            KeyValue::Alias(alias) => {
                let mut aliases = request.options.aliases.iter();
                aliases.find(|(known, _)| known == alias).map(|(_, literal)| literal)
            }
        };
        let literal =
            literal.ok_or_else(|| Error::invalid("a parameter of the key has no value"))?;
        whole.entry(name.clone()).or_insert_with(|| as_json(literal));
    }
    insert(session, caller, &request.resource, &whole).await.map(|_| 1)
}

fn as_json(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::Boolean(value) => json!(value),
        Literal::Integer(value) => json!(value),
        Literal::Real(value) => json!(value),
        Literal::Text(text) | Literal::DateTime(text) => json!(text),
    }
}
