//! What stands where in the arrays that a statement gives, and the answer made of them.

use serde_json::{Map, Value, json};

use super::rows::MAX_REPEATED;
use crate::cell::{print_time, version_parts};
use crate::error::{Error, Result};
use crate::model::Kind;

/// The columns of a row, in order.
#[derive(Debug)]
pub(crate) struct Shape {
    columns: Vec<(String, Cell)>,
    chunk: usize,
}

/// What one column holds.
#[derive(Debug)]
pub(super) enum Cell {
    /// A value of that kind.
    Field(Kind),
    /// The id of another row.
    Link,
    /// Rows of another resource.
    Rows(Shape),
    /// A number of rows.
    Count,
}

impl Shape {
    /// More than `chunk` columns come as arrays of at most that many.
    pub(super) fn new(columns: Vec<(String, Cell)>, chunk: usize) -> Self {
        Self { columns, chunk }
    }

    /// Makes the answer's row of the text that the database gave.
    pub fn decode(&self, text: &str) -> Result<Value> {
        let row = serde_json::from_str(text)
            .map_err(|error| Error::Corrupt(format!("a row is not JSON: {error}")))?;
        self.row(row)
    }

    fn row(&self, row: Value) -> Result<Value> {
        let torn = || Error::Corrupt("a row has another shape than asked for".to_owned());
        let Value::Array(mut values) = row else { return Err(torn()) };
        if self.columns.len() > self.chunk {
            let mut flat = Vec::with_capacity(self.columns.len());
            for chunk in values {
                let Value::Array(chunk) = chunk else { return Err(torn()) };
                flat.extend(chunk);
            }
            values = flat;
        }
        if values.len() != self.columns.len() {
            return Err(torn());
        }
        let mut object = Map::new();
        for ((name, cell), value) in self.columns.iter().zip(values) {
            object.insert(name.clone(), cell.decode(value).ok_or_else(torn)??);
        }
        Ok(Value::Object(object))
    }
}

impl Cell {
    /// `None`: the value is not what the column holds.
    fn decode(&self, value: Value) -> Option<Result<Value>> {
        Some(Ok(match (self, value) {
            (Self::Rows(shape), Value::Array(rows)) => {
                let rows = rows.into_iter().map(|row| shape.row(row)).collect::<Result<_>>();
                return Some(rows.map(Value::Array));
            }
            (Self::Rows(_), Value::Null) => {
                return Some(Err(Error::invalid(format!(
                    "the rows of one expand have more than {MAX_REPEATED} bytes, the limit: ask for fewer rows or columns"
                ))));
            }
            (Self::Rows(_), _) => return None,
            (Self::Count, count @ Value::Number(_)) => count,
            (Self::Count, _) => return None,
            (_, Value::Null) => Value::Null,
            (Self::Link, id) => json!({ "__id": id }),
            (Self::Field(kind), value) => decode(*kind, value)?,
        }))
    }
}

fn decode(kind: Kind, value: Value) -> Option<Value> {
    Some(match kind {
        Kind::Integer | Kind::Text => value,
        Kind::BigInteger => Value::String(value.as_i64()?.to_string()),
        Kind::Real => json!(value.as_str()?.parse::<f64>().ok()?),
        Kind::Boolean => match value {
            Value::Bool(_) => value,
            value => Value::Bool(value.as_i64()? != 0),
        },
        Kind::DateTime => Value::String(print_time(value.as_i64()?)),
        Kind::Json | Kind::WebResource => serde_json::from_str(value.as_str()?).ok()?,
        Kind::Version => version_parts(value.as_str()?),
    })
}
