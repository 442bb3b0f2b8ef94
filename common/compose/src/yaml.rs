//! YAML as a tree of values that know where they stand.
//!
//! Built from parser events, so that aliases are counted before they are copied: a file cannot
//! grow beyond [`MAX_NODES`] values.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Number, Value as Json};

use crate::error::ComposeError;
use crate::{MAX_BYTES, MAX_DEPTH, MAX_NODES};

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub line: usize,
    pub column: usize,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    /// A scalar as written, and whether it was unquoted.
    Scalar(String, bool),
    Seq(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub line: usize,
    pub column: usize,
    pub text: String,
}

impl Node {
    pub fn error(&self, message: impl Into<String>) -> ComposeError {
        ComposeError::new(self.line, self.column, message)
    }

    /// What the value is, for a message.
    pub fn kind(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Scalar(text, _) => {
                let shown: String = text.chars().take(40).collect();
                format!("`{shown}`")
            }
            Value::Seq(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The scalar's text, whatever it means.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, n)| n),
            _ => None,
        }
    }

    /// The value as JSON, unquoted scalars by YAML's core schema.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Scalar(text, false) => Json::String(text.clone()),
            Value::Scalar(text, true) => plain(text),
            Value::Seq(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|(k, v)| (k.text.clone(), v.to_json()));
                Json::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Seq(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|(_, n)| 1 + n.count()).sum(),
            _ => 0,
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Seq(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|(_, n)| n.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

fn plain(text: &str) -> Json {
    match text {
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let starts = text.trim_start_matches(['-', '+']);
    if starts.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        if let Ok(int) = text.parse::<i64>() {
            return Json::Number(int.into());
        }
        if let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64) {
            return Json::Number(number);
        }
    }
    Json::String(text.to_owned())
}

/// Reads one document.
pub(crate) fn read(text: &str) -> Result<Node, ComposeError> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; the limit is {MAX_BYTES}", text.len());
        return Err(ComposeError::new(1, 1, message));
    }
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let (line, column) = place(e.marker());
            ComposeError::new(line, column, format!("this is not YAML: {}", e.info()))
        })?;
        loader.event(event, place(&span.start))?;
    }
    match loader.root {
        Some(root) => Ok(root),
        None => Err(ComposeError::new(1, 1, "the file is empty; expected `services:`")),
    }
}

fn place(marker: &Marker) -> (usize, usize) {
    (marker.line().max(1), marker.col() + 1)
}

/// A list or mapping being read.
struct Frame {
    node: Node,
    anchor: usize,
    key: Option<Key>,
}

#[derive(Default)]
struct Loader {
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Loader {
    fn event(
        &mut self,
        event: Event<'_>,
        (line, column): (usize, usize),
    ) -> Result<(), ComposeError> {
        let node = |value| Node { line, column, value };
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(ComposeError::new(line, column, "a second document; expected one"))
            }
            Event::Scalar(text, style, anchor, _tag) => {
                let unquoted = style == ScalarStyle::Plain;
                let null = unquoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value =
                    if null { Value::Null } else { Value::Scalar(text.into_owned(), unquoted) };
                self.count(1, line, column)?;
                self.put(node(value), anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(node(Value::Seq(Vec::new())), anchor),
            Event::MappingStart(anchor, _) => self.open(node(Value::Map(Vec::new())), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else { return Ok(()) };
                let mut done = frame.node;
                merge(&mut done)?;
                self.put(done, frame.anchor)
            }
            Event::Alias(id) => {
                let Some(mut copy) = self.anchors.get(&id).cloned() else {
                    return Err(ComposeError::new(
                        line,
                        column,
                        "an alias to something unfinished",
                    ));
                };
                self.count(copy.count(), line, column)?;
                if self.stack.len() + copy.depth() > MAX_DEPTH {
                    return Err(too_deep(line, column));
                }
                (copy.line, copy.column) = (line, column);
                self.put(copy, 0)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, more: usize, line: usize, column: usize) -> Result<(), ComposeError> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            let message = format!("the file holds more than {MAX_NODES} values; that is the limit");
            return Err(ComposeError::new(line, column, message));
        }
        Ok(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), ComposeError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(node.line, node.column));
        }
        self.count(1, node.line, node.column)?;
        self.stack.push(Frame { node, anchor, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), ComposeError> {
        if anchor > 0 {
            self.count(node.count(), node.line, node.column)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut frame.node.value, frame.key.take()) {
            (Value::Seq(items), _) => items.push(node),
            (Value::Map(entries), Some(key)) => entries.push((key, node)),
            (Value::Map(entries), None) => {
                let text = match &node.value {
                    Value::Scalar(text, _) => text.clone(),
                    Value::Null => "null".into(),
                    _ => return Err(node.error("this key is no text; expected a name")),
                };
                if text != "<<" && entries.iter().any(|(k, _)| k.text == text) {
                    let message = format!("the key `{text}` is given twice; expected it once");
                    return Err(node.error(message));
                }
                frame.key = Some(Key { line: node.line, column: node.column, text });
            }
            _ => {}
        }
        Ok(())
    }
}

fn too_deep(line: usize, column: usize) -> ComposeError {
    let message = format!("values are nested deeper than {MAX_DEPTH}; that is the limit");
    ComposeError::new(line, column, message)
}

/// Carries out `<<`: keys of the merged mappings that are not given themselves.
fn merge(node: &mut Node) -> Result<(), ComposeError> {
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    if !entries.iter().any(|(k, _)| k.text == "<<") {
        return Ok(());
    }
    let all = std::mem::take(entries);
    let (merges, own): (Vec<_>, Vec<_>) = all.into_iter().partition(|(k, _)| k.text == "<<");
    *entries = own;
    for (_, source) in merges {
        let sources = match source.value {
            Value::Seq(items) => items,
            _ => vec![source],
        };
        for source in sources {
            let kind = source.kind();
            let Value::Map(more) = source.value else {
                let message = format!("`<<` is followed by {kind}; expected a mapping");
                return Err(ComposeError::new(source.line, source.column, message));
            };
            for (key, value) in more {
                if !entries.iter().any(|(k, _)| k.text == key.text) {
                    entries.push((key, value));
                }
            }
        }
    }
    Ok(())
}

/// Reads one YAML document as JSON, within the limits of this crate; for files beside the compose
/// file, such as `balena.yml`.
pub fn read_json(text: &str) -> Result<Json, ComposeError> {
    Ok(read(text)?.to_json())
}
