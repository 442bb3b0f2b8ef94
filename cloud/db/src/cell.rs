//! Values on their way between JSON and columns: checked against the model, bounded.

use jiff::Timestamp;
use sea_query::Value as Bound;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::{Field, Kind, Link, Resource};

/// Latest time that is taken: the last one that can be printed, two days before the year 10000.
const MAX_TIME: i64 = 253_402_207_200_999;
/// Earliest time that is taken: the start of year 1.
const MIN_TIME: i64 = -62_135_596_800_000;
/// Largest whole number that JSON readers keep exactly.
const MAX_INTEGER: i64 = (1 << 53) - 1;
/// Longest stored JSON document in bytes.
const MAX_JSON: usize = 4 * 1024 * 1024;

/// A value as a column holds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A number, a link or a time.
    Integer(i64),
    /// A double.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// Text or a JSON document.
    Text(String),
}

impl Cell {
    /// The whole number, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            _ => None,
        }
    }

    /// As a bound parameter; a null has the type of the column.
    pub(crate) fn bound(self, kind: Kind) -> Bound {
        match (self, kind) {
            (Self::Integer(value), _) => Bound::BigInt(Some(value)),
            (Self::Real(value), _) => Bound::Double(Some(value)),
            (Self::Boolean(value), _) => Bound::Bool(Some(value)),
            (Self::Text(value), _) => Bound::String(Some(value)),
            (Self::Null, Kind::Integer | Kind::BigInteger | Kind::DateTime) => Bound::BigInt(None),
            (Self::Null, Kind::Real) => Bound::Double(None),
            (Self::Null, Kind::Boolean) => Bound::Bool(None),
            (Self::Null, Kind::Text | Kind::Json | Kind::WebResource | Kind::Version) => {
                Bound::String(None)
            }
        }
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Reads an ISO date and time.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).ok()?;
    let time = time.as_millisecond();
    (MIN_TIME..=MAX_TIME).contains(&time).then_some(time)
}

/// Writes milliseconds since the epoch as `2026-11-14T01:41:16.638Z`.
pub(crate) fn print_time(time: i64) -> String {
    Timestamp::from_millisecond(time)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .unwrap_or_default()
}

/// Now, in milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

fn refused(resource: &Resource, name: &str, wanted: &str) -> Error {
    Error::invalid(format!("{}.{name} must be {wanted}", resource.name))
}

/// Reads the value of a field from a request's body.
pub(crate) fn of_field(resource: &Resource, field: &Field, value: &Value) -> Result<Cell> {
    let refuse = |wanted: &str| refused(resource, &field.name, wanted);
    if value.is_null() {
        return match field.nullable {
            true => Ok(Cell::Null),
            false => Err(refuse("given: it may not be null")),
        };
    }
    match field.kind {
        Kind::Integer => match value.as_i64().or_else(|| whole(value)) {
            Some(number) if number.abs() <= MAX_INTEGER => Ok(Cell::Integer(number)),
            _ => Err(refuse("a whole number of at most 53 bits")),
        },
        Kind::BigInteger => value
            .as_i64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
            .map(Cell::Integer)
            .ok_or_else(|| refuse("a whole number of at most 64 bits, as a number or a string")),
        Kind::Real => match value.as_f64() {
            Some(number) if number.is_finite() => Ok(Cell::Real(number)),
            _ => Err(refuse("a number")),
        },
        Kind::Boolean => match (value, value.as_i64()) {
            (Value::Bool(value), _) => Ok(Cell::Boolean(*value)),
            (_, Some(0)) => Ok(Cell::Boolean(false)),
            (_, Some(1)) => Ok(Cell::Boolean(true)),
            _ => Err(refuse("true or false")),
        },
        Kind::Text => {
            let text = value.as_str().ok_or_else(|| refuse("a text"))?;
            check_text(resource, field, text)?;
            Ok(Cell::Text(text.to_owned()))
        }
        Kind::DateTime => {
            time(value).ok_or_else(|| refuse("an ISO date or milliseconds since 1970"))
        }
        Kind::Json => document(value).ok_or_else(|| refuse("a JSON document of at most 4 MiB")),
        Kind::WebResource => {
            web_resource(value).ok_or_else(|| refuse("a file: filename, href, content_type, size"))
        }
        Kind::Version => Err(refuse("left out: the server makes it")),
    }
}

fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

fn time(value: &Value) -> Option<Cell> {
    let time = match value {
        Value::String(text) => parse_time(text)?,
        value => value.as_i64().or_else(|| whole(value))?,
    };
    (MIN_TIME..=MAX_TIME).contains(&time).then_some(Cell::Integer(time))
}

fn document(value: &Value) -> Option<Cell> {
    let text = value.to_string();
    (text.len() <= MAX_JSON && !text.contains("\\u0000")).then_some(Cell::Text(text))
}

fn web_resource(value: &Value) -> Option<Cell> {
    let file = value.as_object()?;
    file.get("filename")?.as_str()?;
    file.get("href")?.as_str()?;
    let known = ["filename", "href", "content_type", "content_disposition", "size"];
    file.keys().all(|name| known.contains(&name.as_str())).then(|| document(value))?
}

/// Checks length, characters and the list of allowed texts.
fn check_text(resource: &Resource, field: &Field, text: &str) -> Result<()> {
    let refuse = |wanted: &str| Err(refused(resource, &field.name, wanted));
    if text.contains('\0') {
        return refuse("a text without NUL characters");
    }
    if text.len() > field.max && text.chars().count() > field.max {
        return refuse(&format!("at most {} characters long", field.max));
    }
    if !field.values.is_empty() && !field.values.iter().any(|value| value == text) {
        return refuse(&format!("one of: {}", field.values.join(", ")));
    }
    Ok(())
}

/// Reads the value of a link from a request's body.
pub(crate) fn of_link(resource: &Resource, link: &Link, value: &Value) -> Result<Cell> {
    if let ("invitee", Some(address)) = (link.name.as_str(), value.as_str()) {
        return invitee(resource, address);
    }
    let id = match value {
        Value::Null if link.nullable => return Ok(Cell::Null),
        Value::Object(object) => object.get("__id").and_then(Value::as_i64),
        value => value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())),
    };
    id.map(Cell::Integer).ok_or_else(|| refused(resource, &link.name, "the id of a row"))
}

/// An invited person may be given by address; the rule of the invitation makes an id of it.
fn invitee(resource: &Resource, address: &str) -> Result<Cell> {
    let plain = address.len() <= 255 && !address.chars().any(|c| c.is_control() || c == ' ');
    match address.split_once('@') {
        Some((name, domain)) if plain && !name.is_empty() && !domain.is_empty() => {
            Ok(Cell::Text(address.to_owned()))
        }
        _ => Err(refused(resource, "invitee", "an id or an address of at most 255 characters")),
    }
}

/// The parts of a release's version text, as clients want them.
pub(crate) fn version_parts(raw: &str) -> Value {
    let (rest, build) = raw.split_once('+').unwrap_or((raw, ""));
    let (numbers, prerelease) = rest.split_once('-').unwrap_or((rest, ""));
    let mut parts = numbers.split('.').map(|n| n.parse::<i64>().unwrap_or_default());
    let identifiers = |text: &str| -> Vec<Value> {
        let split = text.split('.').filter(|part| !part.is_empty());
        split.map(|part| part.parse::<i64>().map_or_else(|_| json!(part), |n| json!(n))).collect()
    };
    let mut version = Map::new();
    for name in ["major", "minor", "patch"] {
        version.insert(name.to_owned(), json!(parts.next().unwrap_or_default()));
    }
    version.insert("raw".to_owned(), json!(raw));
    version.insert("version".to_owned(), json!(rest));
    version.insert("prerelease".to_owned(), json!(identifiers(prerelease)));
    let builds: Vec<&str> = build.split('.').filter(|part| !part.is_empty()).collect();
    version.insert("build".to_owned(), json!(builds));
    Value::Object(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_225_276_638, "2026-11-21T01:41:16.638Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(print_time(time), text);
            assert_eq!(parse_time(text), Some(time));
        }
        assert_eq!(parse_time("2026-11-14"), parse_time("2026-11-14T00:00:00Z"));
        assert_eq!(parse_time("soon"), None);
    }

    #[test]
    fn a_version_text_falls_into_parts() {
        assert_eq!(
            version_parts("1.2.3-rc.1+rev2.dev"),
            json!({
                "major": 1, "minor": 2, "patch": 3, "raw": "1.2.3-rc.1+rev2.dev",
                "version": "1.2.3-rc.1", "prerelease": ["rc", 1], "build": ["rev2", "dev"],
            })
        );
    }
}
