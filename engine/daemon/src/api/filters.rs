//! The filters of lists, prunes and events: `{"label":["a"]}`, or as old clients write it
//! `{"label":{"a":true}}`.

use std::collections::BTreeMap;

use regex::Regex;

use crate::error::{Error, Result};
use crate::stamp;

/// Most memory that the program of one pattern may take, bytes.
pub(crate) const LARGEST_PATTERN: usize = 64 * 1024;

/// What a request wants to see, by key; none is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the parameter's text.
    pub(crate) fn parse(text: &str) -> Result<Filters> {
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let old = serde_json::from_str::<BTreeMap<String, BTreeMap<String, bool>>>(text);
        if let Ok(old) = old {
            let values = |set: BTreeMap<String, bool>| {
                set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect()
            };
            return Ok(Filters(old.into_iter().map(|(key, set)| (key, values(set))).collect()));
        }
        let new = serde_json::from_str(text);
        new.map(Filters).map_err(|_| Error::Invalid(format!("invalid filter: {text:?}")))
    }

    /// Adds a value.
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
    }

    /// Refuses keys that are not known: a filter that is ignored shows too much.
    pub(crate) fn check(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::Invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// Every key with its values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// The values of a key.
    pub(crate) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// A switch, if it is there; it has one value.
    pub(crate) fn switch(&self, key: &str) -> Result<Option<bool>> {
        let mut found = None;
        for value in self.all(key) {
            let one = match value.to_ascii_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(invalid(key, value)),
            };
            if found.replace(one).is_some_and(|other| other != one) {
                return Err(invalid(key, &self.all(key).join(",")));
            }
        }
        Ok(found)
    }

    /// The time of `until`, nanoseconds since 1970.
    pub(crate) fn until(&self) -> Result<Option<i64>> {
        match self.all("until") {
            [] => Ok(None),
            [text] => {
                let time = stamp::parse_query(text, stamp::now());
                time.map(Some).ok_or_else(|| invalid("until", text))
            }
            _ => Err(Error::Invalid("more than one until filter specified".to_owned())),
        }
    }

    /// Whether labels have all that `label` names, and nothing that `label!` names.
    pub(crate) fn labels_pass(&self, labels: &BTreeMap<String, String>) -> bool {
        self.all("label").iter().all(|wanted| label_matches(labels, wanted))
            && !self.all("label!").iter().any(|wanted| label_matches(labels, wanted))
    }

    /// Whether a text is one of a key's values, or fits one of them as a pattern; without values all do.
    pub(crate) fn text_passes(&self, key: &str, text: &str) -> bool {
        let values = self.all(key);
        values.is_empty() || values.iter().any(|value| value == text || fits(value, text))
    }

    /// Whether a text is one of a key's values; without values all are.
    pub(crate) fn word_passes(&self, key: &str, word: &str) -> bool {
        let values = self.all(key);
        values.is_empty() || values.iter().any(|value| value == word)
    }
}

/// The refusal of a value.
pub(crate) fn invalid(key: &str, value: &str) -> Error {
    Error::Invalid(format!("invalid filter '{key}={value}'"))
}

/// Whether some piece of a text fits a pattern. What is no pattern fits nothing, as in Docker.
fn fits(pattern: &str, text: &str) -> bool {
    let compiled = regex::RegexBuilder::new(pattern).size_limit(LARGEST_PATTERN).build();
    compiled.is_ok_and(|regex: Regex| regex.is_match(text))
}

/// Whether labels have `name` or `name=value`.
pub(crate) fn label_matches(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).map(String::as_str) == Some(value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str) -> Filters {
        Filters::parse(text).unwrap()
    }

    #[test]
    fn both_ways_of_writing_filters_say_the_same() {
        assert_eq!(filters(r#"{"label":["a"]}"#), filters(r#"{"label":{"a":true,"b":false}}"#));
        assert_eq!(filters(""), Filters::default());
        for bad in ["x", r#"{"label":"a"}"#, r#"["label"]"#] {
            Filters::parse(bad).unwrap_err();
        }
        filters(r#"{"name":["x"]}"#).check(&["id"]).unwrap_err();
    }

    #[test]
    fn switches_and_times_have_one_value() {
        assert_eq!(filters(r#"{"dangling":["1","true"]}"#).switch("dangling").unwrap(), Some(true));
        assert_eq!(filters("{}").switch("dangling").unwrap(), None);
        filters(r#"{"dangling":["0","true"]}"#).switch("dangling").unwrap_err();
        filters(r#"{"dangling":["x"]}"#).switch("dangling").unwrap_err();
        filters(r#"{"until":["x"]}"#).until().unwrap_err();
        filters(r#"{"until":["1","2"]}"#).until().unwrap_err();
        assert_eq!(filters(r#"{"until":["2"]}"#).until().unwrap(), Some(2_000_000_000));
    }

    #[test]
    fn names_match_by_piece_or_by_pattern() {
        let passes = |pattern: &str, text: &str| {
            let mut filters = Filters::default();
            filters.add("name", pattern);
            filters.text_passes("name", text)
        };
        assert!(passes("eb", "web_1") && passes("^web", "web_1") && passes("web_[0-9]$", "web_1"));
        assert!(!passes("^eb", "web_1") && !passes("^web_1$", "web_12") && !passes("(", "web_1"));
        assert!(passes("(", "(") && Filters::default().text_passes("name", "x"));
        // A pattern whose program would take gigabytes fits nothing.
        assert!(!passes("(((a{1000}){1000}){1000})", "a"));
    }

    #[test]
    fn labels_are_all_wanted_or_all_unwanted() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert!(filters(r#"{"label":["a","a=1"]}"#).labels_pass(&labels));
        assert!(!filters(r#"{"label":["a","b"]}"#).labels_pass(&labels));
        assert!(!filters(r#"{"label!":["b","a=1"]}"#).labels_pass(&labels));
        assert!(filters(r#"{"label!":["a=2"]}"#).labels_pass(&labels));
    }
}
