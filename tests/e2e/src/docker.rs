//! An engine as the docker command line sees it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The docker command line, bound to one engine.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: String,
}

/// A container of an app, as far as tests compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The whole id.
    pub id: String,
    /// The image's id.
    pub image: String,
    /// `running` and so on.
    pub status: String,
    /// When it was started last.
    pub started: String,
}

impl Docker {
    /// The engine at a socket.
    pub fn at(socket: &str) -> Docker {
        Docker { socket: socket.to_owned() }
    }

    /// A command, not yet started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &format!("unix://{}", self.socket)]).args(words);
        command
    }

    /// Runs a command; an error holds what it wrote to stderr.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot start docker")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("`docker {}` failed: {}", words.join(" "), text.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// All containers by name. One that goes between the two questions is asked for again.
    pub fn containers(&self) -> Result<BTreeMap<String, Container>> {
        loop {
            match self.containers_now() {
                Err(error) if error.to_string().contains("No such object") => {}
                result => return result,
            }
        }
    }

    fn containers_now(&self) -> Result<BTreeMap<String, Container>> {
        let ids = self.run(&["ps", "--all", "--quiet", "--no-trunc"])?;
        let ids: Vec<&str> = ids.lines().collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let text = self.run(&[&["inspect"], ids.as_slice()].concat())?;
        let all: Vec<Value> = serde_json::from_str(&text).context("docker wrote no JSON")?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = all.iter().map(|it| {
            let container = Container {
                id: word(&it["Id"]),
                image: word(&it["Image"]),
                status: word(&it["State"]["Status"]),
                started: word(&it["State"]["StartedAt"]),
            };
            (word(&it["Name"]).trim_start_matches('/').to_owned(), container)
        });
        Ok(named.collect())
    }

    /// Starts to follow the engine's events, one JSON document a line.
    pub fn events(&self) -> Result<Child> {
        self.command(&["events", "--format", "{{json .}}"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start docker")
    }
}
