//! What every line of a log is marked with: `labels`, `env`, `tag` of the log options. Pure.

use std::collections::BTreeMap;

use minke_engine_client::wire::ContainerConfig;
use regex::Regex;

use crate::api::filters::LARGEST_PATTERN;
use crate::error::{Error, Result};

/// Longest marks of a line, bytes: they stand in each of them.
const LONGEST: usize = 8 * 1024;

/// The container that the marks are of.
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) image_id: &'a str,
    pub(crate) config: &'a ContainerConfig,
}

/// The options, read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    labels: Vec<String>,
    labels_regex: Option<Regex>,
    env: Vec<String>,
    env_regex: Option<Regex>,
    tag: Option<Vec<Piece>>,
}

impl PartialEq for Marks {
    fn eq(&self, other: &Marks) -> bool {
        let patterns = |marks: &Marks| {
            [&marks.labels_regex, &marks.env_regex]
                .map(|p| p.as_ref().map(|p| p.as_str().to_owned()))
        };
        (&self.labels, &self.env, &self.tag) == (&other.labels, &other.env, &other.tag)
            && patterns(self) == patterns(other)
    }
}

impl Eq for Marks {}

/// A piece of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    FullId,
    Name,
    ImageId,
    ImageFullId,
    ImageName,
    DaemonName,
}

const FIELDS: [(&str, Field); 7] = [
    (".ID", Field::Id),
    (".FullID", Field::FullId),
    (".Name", Field::Name),
    (".ImageID", Field::ImageId),
    (".ImageFullID", Field::ImageFullId),
    (".ImageName", Field::ImageName),
    (".DaemonName", Field::DaemonName),
];

impl Marks {
    /// Takes an option in; false if it is of another matter.
    pub(super) fn option(&mut self, name: &str, value: &str) -> Result<bool> {
        let list = || value.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned);
        let pattern = || {
            let compiled = regex::RegexBuilder::new(value).size_limit(LARGEST_PATTERN).build();
            compiled.map(Some).map_err(|_| {
                Error::Invalid(format!("invalid value {value:?} of log option {name}: no pattern"))
            })
        };
        match name {
            "labels" => self.labels = list().collect(),
            "labels-regex" => self.labels_regex = pattern()?,
            "env" => self.env = list().collect(),
            "env-regex" => self.env_regex = pattern()?,
            "tag" => self.tag = Some(pieces(value)?).filter(|pieces| !pieces.is_empty()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The marks of a container's lines.
    pub(super) fn of(&self, subject: &Subject<'_>) -> Result<BTreeMap<String, String>> {
        let fits = |names: &[String], pattern: &Option<Regex>, name: &str| {
            names.iter().any(|wanted| wanted == name)
                || pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
        };
        let labels = subject.config.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let labels = labels.filter(|(name, _)| fits(&self.labels, &self.labels_regex, name));
        let env = subject.config.env.iter().filter_map(|variable| variable.split_once('='));
        let env = env.filter(|(name, _)| fits(&self.env, &self.env_regex, name));
        let mut marks: BTreeMap<String, String> =
            labels.chain(env).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        if let Some(pieces) = &self.tag {
            let text = pieces.iter().map(|piece| piece.of(subject)).collect();
            marks.insert("tag".to_owned(), text);
        }
        let size: usize = marks.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > LONGEST {
            return Err(Error::Invalid(format!(
                "labels, env and tag of the log options make {size} bytes in every line; the limit is {LONGEST}"
            )));
        }
        Ok(marks)
    }
}

impl Piece {
    fn of(&self, subject: &Subject<'_>) -> String {
        let short = |id: &str| {
            let plain = id.strip_prefix("sha256:").unwrap_or(id);
            plain.chars().take(12).collect::<String>()
        };
        match self {
            Piece::Text(text) => text.clone(),
            Piece::Field(Field::Id) => short(subject.id),
            Piece::Field(Field::FullId) => subject.id.to_owned(),
            Piece::Field(Field::Name) => subject.name.to_owned(),
            Piece::Field(Field::ImageId) => short(subject.image_id),
            Piece::Field(Field::ImageFullId) => subject.image_id.to_owned(),
            Piece::Field(Field::ImageName) => subject.config.image.clone(),
            Piece::Field(Field::DaemonName) => "docker".to_owned(),
        }
    }
}

/// Reads a tag: text with fields in double braces.
fn pieces(mut text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once("{{") {
        let invalid = |name: &str| {
            let known = FIELDS.map(|(name, _)| name).join(", ");
            Error::Invalid(format!("the log tag names {name:?}; there are {known}"))
        };
        let (field, after) = rest.split_once("}}").ok_or_else(|| invalid(rest))?;
        let field = field.trim();
        let known = FIELDS.iter().find(|(name, _)| *name == field);
        let (_, known) = known.ok_or_else(|| invalid(field))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Field(*known));
        text = after;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_variables_and_a_tag_are_marks() {
        let mut marks = Marks::default();
        for (name, value) in [
            ("labels", "team, none"),
            ("env-regex", "^A"),
            ("tag", "{{.ImageName}}/{{ .Name }}-{{.ID}}"),
        ] {
            assert!(marks.option(name, value).unwrap());
        }
        assert!(!marks.option("max-size", "1").unwrap());
        let config = ContainerConfig {
            image: "busybox".to_owned(),
            labels: [("team", "one"), ("other", "x")].map(|(k, v)| (k.into(), v.into())).into(),
            env: vec!["AB=1".to_owned(), "B=2".to_owned(), "A".to_owned()],
            ..ContainerConfig::default()
        };
        let id = "0123456789abcdef";
        let subject = Subject { id, name: "web", image_id: "sha256:1", config: &config };
        let found: Vec<(String, String)> = marks.of(&subject).unwrap().into_iter().collect();
        let expected = [("AB", "1"), ("tag", "busybox/web-0123456789ab"), ("team", "one")];
        let env = vec![format!("A={}", "x".repeat(LONGEST))];
        let long = ContainerConfig { env, ..ContainerConfig::default() };
        assert!(marks.of(&Subject { config: &long, ..subject }).is_err());
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_tag_with_an_unknown_field_is_refused() {
        for bad in ["{{.Nothing}}", "{{", "{{.ID"] {
            pieces(bad).unwrap_err();
        }
        assert_eq!(pieces("plain").unwrap().len(), 1);
        assert!(pieces("").unwrap().is_empty());
    }
}
