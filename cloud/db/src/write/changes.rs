//! The columns that a write sets, read from a request's body.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::caller::Caller;
use crate::cell::{self, Cell};
use crate::error::{Error, Result};
use crate::model::{Access, Kind, Member, Resource};

/// Columns by their own names, with checked values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    cells: BTreeMap<String, Cell>,
}

impl Changes {
    /// Reads a body. Names may be synonyms; what only the server sets is refused.
    pub fn read(
        resource: &'static Resource,
        body: &Map<String, Value>,
        caller: &Caller,
    ) -> Result<Self> {
        let mut changes = Self::default();
        for (name, value) in body {
            let (column, cell) = read_one(resource, name, value, caller)?;
            if changes.cells.insert(column.to_owned(), cell).is_some() {
                return Err(Error::invalid(format!("{}.{column} is given twice", resource.name)));
            }
        }
        Ok(changes)
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Cell> {
        self.cells.get(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.cells.contains_key(name)
    }

    pub fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Cell::text)
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Cell::integer)
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some(&Cell::Boolean(true))
    }

    pub fn set(&mut self, name: &str, value: impl Into<Cell>) {
        self.cells.insert(name.to_owned(), value.into());
    }

    pub fn set_if_absent(&mut self, name: &str, value: impl FnOnce() -> Cell) {
        self.cells.entry(name.to_owned()).or_insert_with(value);
    }

    pub fn take(&mut self, name: &str) -> Option<Cell> {
        self.cells.remove(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.cells.keys().map(String::as_str)
    }

    /// Puts the model's defaults where nothing is given, and sees that nothing is missing.
    pub fn complete(&mut self, resource: &Resource, now: i64) -> Result<()> {
        for field in resource.fields.iter().filter(|f| f.computed.is_none()) {
            if self.has(&field.name) {
                continue;
            }
            let default = match &field.default {
                Some(Value::String(text)) if text == "now()" => Some(Cell::Integer(now)),
                Some(value) => Some(cell::of_field(resource, field, value)?),
                None if field.nullable || field.name == "id" => None,
                None if matches!(field.name.as_str(), "created_at" | "modified_at") => {
                    Some(Cell::Integer(now))
                }
                None => return Err(missing(resource, &field.name)),
            };
            if let Some(default) = default {
                self.set(&field.name, default);
            }
        }
        let needed = resource.links.iter().filter(|l| l.computed.is_none() && !l.nullable);
        for link in needed {
            if !self.has(&link.name) {
                return Err(missing(resource, &link.name));
            }
        }
        Ok(())
    }

    /// The values of one table's columns: the main one's or the volatile part's.
    pub fn columns(
        &self,
        resource: &Resource,
        volatile: bool,
    ) -> Result<Vec<(String, Cell, Kind)>> {
        let mut columns = Vec::new();
        for (name, cell) in &self.cells {
            let (is_volatile, computed, kind) = match resource.member(name) {
                Some(Member::Field(at)) => {
                    let field = &resource.fields[at];
                    (field.volatile, field.computed.is_some(), field.kind)
                }
                Some(Member::Link(at)) => {
                    let link = &resource.links[at];
                    (link.volatile, link.computed.is_some(), Kind::Integer)
                }
                _ => return Err(Error::Corrupt(format!("{}.{name} is no column", resource.name))),
            };
            if computed {
                return Err(Error::invalid(format!("{}.{name} cannot be written", resource.name)));
            }
            if is_volatile == volatile {
                columns.push((name.clone(), cell.clone(), kind));
            }
        }
        Ok(columns)
    }
}

fn missing(resource: &Resource, name: &str) -> Error {
    Error::invalid(format!("{}.{name} is required", resource.name))
}

fn read_one<'r>(
    resource: &'r Resource,
    name: &str,
    value: &Value,
    caller: &Caller,
) -> Result<(&'r str, Cell)> {
    let unknown = || Error::invalid(format!("{} has no field {name:?}", resource.name));
    let (column, readonly, cell) = match resource.member(name) {
        Some(Member::Field(at)) => {
            let field = &resource.fields[at];
            let allowed = match field.access {
                Access::Normal => true,
                Access::Root | Access::Secret => caller.is_root(),
            };
            if !allowed {
                return Err(unknown());
            }
            let readonly = field.readonly && (!caller.is_root() || field.computed.is_some());
            (&field.name, readonly, cell::of_field(resource, field, value))
        }
        Some(Member::Link(at)) => {
            let link = &resource.links[at];
            let readonly = link.readonly && (!caller.is_root() || link.computed.is_some());
            (&link.name, readonly, cell::of_link(resource, link, value))
        }
        Some(Member::Reverse(_)) | None => return Err(unknown()),
    };
    if readonly {
        return Err(Error::invalid(format!("{}.{column} is set by the server", resource.name)));
    }
    Ok((column, cell?))
}
