//! Shapes that values may have, each with the words that say what was expected.

use minke_common_model::durations;
use minke_common_model::sizes::bytes;
use serde_json::{Map, Value as Json};

use crate::error::{ComposeError, Warning};
use crate::yaml::{Key, Node, Value};

/// Collected while a file is read.
#[derive(Default)]
pub(crate) struct Notes(pub Vec<Warning>);

impl Notes {
    pub fn warn(&mut self, line: usize, column: usize, message: impl Into<String>) {
        self.0.push(Warning { line, column, message: message.into() });
    }
}

pub(crate) fn wrong(node: &Node, what: &str, expected: &str) -> ComposeError {
    node.error(format!("`{what}` is {}; expected {expected}", node.kind()))
}

pub(crate) fn mapping<'n>(node: &'n Node, what: &str) -> Result<&'n [(Key, Node)], ComposeError> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        _ => Err(wrong(node, what, "a mapping")),
    }
}

pub(crate) fn list<'n>(node: &'n Node, what: &str) -> Result<&'n [Node], ComposeError> {
    match &node.value {
        Value::Seq(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => Err(wrong(node, what, "a list")),
    }
}

pub(crate) fn string<'n>(node: &'n Node, what: &str) -> Result<&'n str, ComposeError> {
    node.text().ok_or_else(|| wrong(node, what, "text"))
}

pub(crate) fn boolean(node: &Node, what: &str) -> Result<bool, ComposeError> {
    match node.text().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "yes" | "on" | "1") => Ok(true),
        Some("false" | "no" | "off" | "0") => Ok(false),
        _ => Err(wrong(node, what, "true or false")),
    }
}

pub(crate) fn integer(node: &Node, what: &str) -> Result<i64, ComposeError> {
    node.text().and_then(|t| t.parse().ok()).ok_or_else(|| wrong(node, what, "a whole number"))
}

pub(crate) fn number(node: &Node, what: &str) -> Result<f64, ComposeError> {
    let parsed = node.text().and_then(|t| t.parse::<f64>().ok()).filter(|n| n.is_finite());
    parsed.ok_or_else(|| wrong(node, what, "a number"))
}

/// One text or a list of texts, as a list.
pub(crate) fn strings(node: &Node, what: &str) -> Result<Vec<String>, ComposeError> {
    match &node.value {
        Value::Seq(items) => items.iter().map(|i| string(i, what).map(str::to_owned)).collect(),
        Value::Scalar(text, _) => Ok(vec![text.clone()]),
        _ => Err(wrong(node, what, "text or a list of texts")),
    }
}

/// A command: text (split by the device as a shell would) or a list.
pub(crate) fn command(node: &Node, what: &str) -> Result<Json, ComposeError> {
    match &node.value {
        Value::Scalar(text, _) => Ok(Json::String(text.clone())),
        Value::Seq(_) => Ok(strings(node, what)?.into()),
        Value::Null => Ok(Json::Null),
        Value::Map(_) => Err(wrong(node, what, "text or a list of texts")),
    }
}

/// A mapping of texts, or a list of `key=value`; `separator` also accepts other marks.
pub(crate) fn pairs(
    node: &Node,
    what: &str,
    separators: &[char],
    notes: &mut Notes,
) -> Result<Vec<(String, String)>, ComposeError> {
    match &node.value {
        Value::Null => Ok(Vec::new()),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| match &value.value {
                Value::Null => {
                    no_value(notes, key.line, key.column, what, &key.text);
                    Ok((key.text.clone(), String::new()))
                }
                Value::Scalar(text, _) => Ok((key.text.clone(), text.clone())),
                _ => Err(wrong(value, &key.text, "text or a number")),
            })
            .collect(),
        Value::Seq(items) => items
            .iter()
            .map(|item| {
                let text = string(item, what)?;
                match text.split_once(separators) {
                    Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
                    None if !text.is_empty() => {
                        no_value(notes, item.line, item.column, what, text);
                        Ok((text.to_owned(), String::new()))
                    }
                    _ => Err(wrong(item, what, "`key=value`")),
                }
            })
            .collect(),
        Value::Scalar(..) => Err(wrong(node, what, "a mapping, or a list of `key=value`")),
    }
}

fn no_value(notes: &mut Notes, line: usize, column: usize, what: &str, key: &str) {
    if what != "labels" {
        let message = format!("`{key}` in `{what}` has no value; it will be empty");
        notes.warn(line, column, message);
    }
}

pub(crate) fn object(pairs: Vec<(String, String)>) -> Json {
    Json::Object(pairs.into_iter().map(|(k, v)| (k, Json::String(v))).collect::<Map<_, _>>())
}

/// `10s`, `1m30s`, `1.5h`, or a number of seconds.
pub(crate) fn duration(node: &Node, what: &str) -> Result<Json, ComposeError> {
    let text = string(node, what)?;
    if durations::seconds_or_units(text).is_none() {
        return Err(wrong(node, what, "a duration such as 1m30s"));
    }
    Ok(Json::String(text.to_owned()))
}

/// `64m`, `1gb`, or a number of bytes.
pub(crate) fn size(node: &Node, what: &str) -> Result<Json, ComposeError> {
    let text = string(node, what)?;
    bytes(text).map(|_| node.to_json()).ok_or_else(|| wrong(node, what, "a size such as 64m"))
}

/// Names of services, networks and volumes.
pub(crate) fn name(key: &Key, what: &str) -> Result<(), ComposeError> {
    let first = key.text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = key.text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest && key.text.len() <= crate::MAX_NAME {
        return Ok(());
    }
    let message = format!(
        "`{}` cannot name a {what}; expected letters, digits, `_`, `.` and `-`, a letter or digit first, at most {} characters",
        key.text.chars().take(40).collect::<String>(),
        crate::MAX_NAME
    );
    Err(ComposeError::new(key.line, key.column, message))
}
