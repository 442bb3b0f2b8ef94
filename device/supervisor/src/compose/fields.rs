//! Values of compose in their many spellings.

use std::collections::BTreeMap;

use minke_common_model::{durations, sizes};
use serde_json::{Map, Value};

/// One compose service with access by key, snake case first.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A key as compose writes it, or in camel case as old targets do.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        let value = self.0.get(key).or_else(|| self.0.get(&camel(key)));
        value.filter(|value| !value.is_null())
    }

    pub fn text(self, key: &str) -> Option<String> {
        scalar(self.get(key)?)
    }

    pub fn truth(self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) => Some(minke_common_model::lenient::is_truthy(text)),
            Value::Number(number) => Some(number.as_i64() == Some(1)),
            _ => None,
        }
    }

    pub fn number(self, key: &str) -> Option<i64> {
        number(self.get(key)?)
    }

    /// A size in bytes: a number, or one with `b`, `k`, `m` or `g` behind it.
    pub fn bytes(self, key: &str) -> Option<i64> {
        i64::try_from(sizes::bytes(&self.text(key)?)?).ok()
    }

    /// One text or a list of texts.
    pub fn list(self, key: &str) -> Vec<String> {
        self.get(key).map(list).unwrap_or_default()
    }

    /// `{name: value}` or `["name=value"]`.
    pub fn map(self, key: &str) -> BTreeMap<String, String> {
        self.get(key).map(pairs).unwrap_or_default()
    }

    /// A command: a list as it is, a text split as a shell would.
    pub fn words(self, key: &str) -> Option<Vec<String>> {
        match self.get(key)? {
            Value::String(line) => Some(split_words(line)),
            Value::Array(words) => Some(words.iter().filter_map(scalar).collect()),
            _ => None,
        }
    }

    /// Nanoseconds.
    pub fn duration(self, key: &str) -> Option<i64> {
        durations::seconds_or_units(scalar(self.get(key)?)?.trim())
    }
}

fn camel(key: &str) -> String {
    let mut parts = key.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut name, part| {
        let mut letters = part.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(scalar).collect(),
        other => scalar(other).into_iter().collect(),
    }
}

pub(super) fn pairs(value: &Value) -> BTreeMap<String, String> {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), scalar(value).unwrap_or_default()))
            .collect(),
        Value::Array(items) => items
            .iter()
            .filter_map(scalar)
            .map(|item| match item.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (item, String::new()),
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// Splits a line as a shell would: blanks separate, quotes and backslashes keep.
pub(super) fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().extend(letters.next());
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
