//! What the database's own complaints mean, the same for both engines.

use std::time::Duration;

use crate::error::Error;
use crate::model::Model;

/// Unique indexes that hold for some rows only; the model lists those that hold for all.
const PARTIAL: [(&str, &str, &[&str]); 2] = [
    ("release_unique_commit", "release", &["belongs_to__application", "commit"]),
    (
        "release_unique_revision",
        "release",
        &[
            "belongs_to__application",
            "semver_major",
            "semver_minor",
            "semver_patch",
            "semver_prerelease",
            "semver_build",
            "variant",
            "revision",
        ],
    ),
];

/// More texts came than are taken in.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes, the limit: ask for fewer rows or columns")]
struct TooMuch(usize);

pub(super) fn too_much(limit: usize) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(TooMuch(limit)))
}

/// `limit` is how long the statement might run.
pub(super) fn explain(action: &'static str, limit: Duration, error: sqlx::Error) -> Error {
    if let sqlx::Error::Decode(cause) = &error
        && cause.is::<TooMuch>()
    {
        return Error::invalid(format!("{action} gave {cause}"));
    }
    let Some(database) = error.as_database_error() else {
        return Error::Storage { action, source: error };
    };
    if database.is_unique_violation() {
        let key = match database.constraint() {
            Some(name) => by_name(name),
            None => by_columns(database.message()),
        };
        if let Some((resource, key)) = key {
            return Error::Conflict { resource, key };
        }
    }
    // A key that restricts is a fault of its own to SQLite, and to PostgreSQL from 18 on.
    let restricted = database.message() == "FOREIGN KEY constraint failed"
        || database.code().as_deref() == Some("23001");
    if restricted || database.is_foreign_key_violation() {
        return Error::invalid("other rows still need a row that this would remove");
    }
    // SQLite's "interrupted", and PostgreSQL's "canceled".
    if matches!(database.code().as_deref(), Some("9" | "57014")) {
        return Error::TooSlow { action, limit };
    }
    if database.code().as_deref() == Some("22003") {
        return Error::invalid("a number in the request is out of range");
    }
    Error::Storage { action, source: error }
}

fn owned(resource: &str, key: &[&str]) -> (String, Vec<String>) {
    (resource.to_owned(), key.iter().map(|name| (*name).to_owned()).collect())
}

/// PostgreSQL names the index: `<resource>_unique_<n>` or `<resource>_pkey`.
fn by_name(index: &str) -> Option<(String, Vec<String>)> {
    if let Some((_, resource, key)) = PARTIAL.iter().find(|(name, ..)| *name == index) {
        return Some(owned(resource, key));
    }
    if let Some(resource) = index.strip_suffix("_pkey") {
        return Some(owned(resource, &["id"]));
    }
    let (resource, number) = index.rsplit_once("_unique_")?;
    let key = Model::get().resource(resource)?.unique.get(number.parse::<usize>().ok()?)?;
    Some((resource.to_owned(), key.clone()))
}

/// SQLite lists the columns: `UNIQUE constraint failed: service.application, service.service_name`.
fn by_columns(message: &str) -> Option<(String, Vec<String>)> {
    let list = message.strip_prefix("UNIQUE constraint failed: ")?;
    let columns: Vec<(&str, &str)> =
        list.split(", ").map(|column| column.split_once('.')).collect::<Option<_>>()?;
    let resource = columns.first()?.0;
    Some((resource.to_owned(), columns.iter().map(|(_, name)| (*name).to_owned()).collect()))
}
