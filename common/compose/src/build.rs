//! `build:` of a service, and paths that stay inside the project.

use minke_common_model::sizes::bytes;
use serde_json::{Map, Value as Json, json};

use crate::error::ComposeError;
use crate::shapes::{self, Notes};
use crate::yaml::{Node, Value};

/// What to build for a service. Paths are relative to the project, `/` between names, without
/// `.` or `..`; the project itself is `""`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// Directory that is the build's context.
    pub context: String,
    /// The Dockerfile, from the project's root; absent: found by name in the context.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text, where the compose file holds it.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: Vec<(String, String)>,
    /// The stage to build.
    pub target: Option<String>,
    /// Labels put on the image.
    pub labels: Vec<(String, String)>,
    /// Network of `RUN` steps: `default`, `host` or `none`.
    pub network: Option<String>,
    /// Entries for `/etc/hosts` while building.
    pub extra_hosts: Vec<(String, String)>,
    /// `/dev/shm` of `RUN` steps, in bytes.
    pub shm_size: Option<u64>,
    /// Line and column of `build`.
    pub place: (usize, usize),
}

impl Build {
    /// The `build` value of the composition.
    pub fn to_json(&self) -> Json {
        let context = if self.context.is_empty() { "." } else { &self.context };
        let mut out = Map::new();
        out.insert("context".into(), json!(context));
        if let Some(dockerfile) = &self.dockerfile {
            let inside = dockerfile.strip_prefix(&format!("{}/", self.context));
            out.insert("dockerfile".into(), json!(inside.unwrap_or(dockerfile)));
        }
        if let Some(target) = &self.target {
            out.insert("target".into(), json!(target));
        }
        if !self.args.is_empty() {
            out.insert("args".into(), shapes::object(self.args.clone()));
        }
        if !self.labels.is_empty() {
            out.insert("labels".into(), shapes::object(self.labels.clone()));
        }
        Json::Object(out)
    }
}

/// Reads `build`, in its short or long form.
pub(crate) fn build(node: &Node, notes: &mut Notes) -> Result<Build, ComposeError> {
    let mut out = Build { place: (node.line, node.column), ..Build::default() };
    match &node.value {
        Value::Scalar(text, _) => out.context = context(node, text)?,
        Value::Map(_) => long(node, &mut out, notes)?,
        _ => return Err(shapes::wrong(node, "build", "a path, or a mapping with `context`")),
    }
    Ok(out)
}

fn long(node: &Node, out: &mut Build, notes: &mut Notes) -> Result<(), ComposeError> {
    if let Some(value) = node.get("context") {
        out.context = context(value, shapes::string(value, "context")?)?;
    } else if node.get("dockerfile_inline").is_none() {
        return Err(node.error("`build` has no `context`; expected `context: path`"));
    }
    for (key, value) in shapes::mapping(node, "build")? {
        let what = key.text.as_str();
        match what {
            "context" | "tags" | "cache_from" | "cache_to" | "pull" | "no_cache" => {}
            "dockerfile" => {
                let text = shapes::string(value, what)?;
                out.dockerfile = Some(inside(value, &out.context, text)?);
            }
            "dockerfile_inline" => {
                out.dockerfile_inline = Some(shapes::string(value, what)?.to_owned());
            }
            "args" => out.args = shapes::pairs(value, what, &['='], notes)?,
            "labels" => out.labels = shapes::pairs(value, what, &['='], notes)?,
            "extra_hosts" => out.extra_hosts = shapes::pairs(value, what, &[':', '='], notes)?,
            "target" => out.target = Some(shapes::string(value, what)?.to_owned()),
            "shm_size" => {
                shapes::size(value, what)?;
                out.shm_size = value.text().and_then(bytes);
            }
            "network" => {
                let text = shapes::string(value, what)?;
                if !["default", "bridge", "host", "none"].contains(&text) {
                    return Err(shapes::wrong(value, what, "default, host or none"));
                }
                out.network = Some(text.to_owned());
            }
            _ => {
                let message = format!("`{what}` in `build` is not supported and is left out");
                notes.warn(key.line, key.column, message);
            }
        }
    }
    if out.dockerfile.is_some() && out.dockerfile_inline.is_some() {
        return Err(node.error("both `dockerfile` and `dockerfile_inline`; expected one of them"));
    }
    Ok(())
}

fn context(node: &Node, text: &str) -> Result<String, ComposeError> {
    if text.contains("://") || text.starts_with("git@") {
        let message = format!("the context `{text}` is a URL; expected a directory of the project");
        return Err(node.error(message));
    }
    inside(node, "", text)
}

/// Joins a path to a directory of the project; refuses one that leads outside.
pub(crate) fn inside(node: &Node, base: &str, text: &str) -> Result<String, ComposeError> {
    let outside = || {
        node.error(format!(
            "the path `{text}` leads outside the project; expected a path inside it"
        ))
    };
    if text.starts_with('/') || text.starts_with('~') || text.contains(['\0', '\\']) {
        return Err(outside());
    }
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
