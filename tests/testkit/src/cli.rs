//! `minke` as a person uses it, with a login of its own.

use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The command line, logged in to one server.
#[derive(Debug, Clone)]
pub struct Cli {
    binary: PathBuf,
    config: PathBuf,
}

impl Cli {
    /// A command line that keeps its login in `config`.
    pub fn new(binary: PathBuf, config: &Path) -> Cli {
        Cli { binary, config: config.to_owned() }
    }

    /// `minke` with these words, not yet started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(words)
            .env("MINKE_CONFIG_DIR", &self.config)
            .env_remove("MINKE_SERVER")
            .env_remove("MINKE_TOKEN")
            .env("NO_COLOR", "1");
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        self.command(words)
            .output()
            .with_context(|| format!("cannot start `minke {}`", words.join(" ")))
    }

    /// Runs it; an error holds what it wrote to stderr.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        if !output.status.success() {
            bail!(
                "`minke {}` ended with {}: {}{}",
                words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                String::from_utf8_lossy(&output.stdout).trim(),
            );
        }
        String::from_utf8(output.stdout).context("minke wrote text that is not UTF-8")
    }

    /// Runs it with `--json` and reads its answer.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.run(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`minke {} --json` wrote no JSON: {text}", words.join(" ")))
    }

    /// Runs it with `--json` and reads one value per line.
    pub fn json_lines(&self, words: &[&str]) -> Result<Vec<Value>> {
        let text = self.run(&[words, &["--json"]].concat())?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect()
    }

    /// The same, and `hear` gets each value when it is written.
    pub fn json_stream(&self, words: &[&str], hear: &mut dyn FnMut(&Value)) -> Result<Vec<Value>> {
        let words = [words, &["--json"]].concat();
        let said = || format!("`minke {}`", words.join(" "));
        let errors = tempfile::tempfile().context("no file for errors")?;
        let stderr = errors.try_clone().context("no file for errors")?;
        let mut command = self.command(&words);
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().with_context(said)?;
        let lines = BufReader::new(child.stdout.take().with_context(said)?).lines();
        let mut values = Vec::new();
        for line in lines {
            let line = line.with_context(said)?;
            let value = serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
            hear(&value);
            values.push(value);
        }
        let status = child.wait().with_context(said)?;
        if !status.success() {
            let mut text = String::new();
            let mut errors = errors;
            errors.rewind().and_then(|()| errors.read_to_string(&mut text)).with_context(said)?;
            bail!("{} ended with {status}: {}", said(), text.trim());
        }
        Ok(values)
    }

    /// The token of its login.
    pub fn token(&self) -> Result<String> {
        let path = self.config.join("session.json");
        let text = std::fs::read(&path)
            .with_context(|| format!("cannot read the login in {}", path.display()))?;
        let session: Value = serde_json::from_slice(&text)
            .with_context(|| format!("cannot understand {}", path.display()))?;
        Ok(session["token"].as_str().context("the login has no token")?.to_owned())
    }
}
