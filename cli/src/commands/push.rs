//! `minke push`: pack the project, have the server build it, show what it says.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use minke_sdk_rust::{Body, BuildEvent, BuildOptions, Client, Fleet};
use serde_json::json;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::output;
use crate::project::{self, Packed};
use crate::session::Global;

/// Build a project on the server and release it to a fleet
///
/// The project is a folder with a docker-compose.yml or a Dockerfile. What .dockerignore lists
/// is not sent. Every device of the fleet then updates by itself, unless it is pinned.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Push {
    /// The fleet: its slug, name, uuid or id.
    fleet: String,
    /// The project's folder.
    #[arg(long, short = 's', default_value = ".")]
    source: PathBuf,
    /// The Dockerfile's path in the project's folder, for a project without a docker-compose.yml.
    #[arg(long, value_name = "PATH", value_parser = path_in_project)]
    dockerfile: Option<String>,
    /// Build every step anew.
    #[arg(long, short = 'c')]
    nocache: bool,
    /// Do not wait for the end of the build.
    #[arg(long, short = 'd')]
    detached: bool,
    /// Make a draft, to which the fleet does not move before it is finalized.
    #[arg(long)]
    draft: bool,
}

/// What came of a build.
#[derive(Default)]
struct Outcome {
    release: Option<i64>,
    error: Option<String>,
}

impl Push {
    pub async fn run(self, global: &Global) -> Result<()> {
        let client = global.client()?;
        let fleet = client.fleet(&self.fleet).await?;
        let begun = Instant::now();
        let Packed { file, entries, bytes } = self.pack(global.json)?;
        let packing = begun.elapsed();
        if !global.json {
            eprintln!(
                "Packed {} files, {} in {} ms",
                entries,
                output::bytes(bytes),
                packing.as_millis()
            );
        }
        let outcome = self.build(&client, &fleet, File::from_std(file), global.json).await?;
        if let Some(error) = outcome.error {
            bail!("{error}");
        }
        let release = outcome.release.context("the builder ended without naming a release")?;
        let seconds = begun.elapsed().as_secs_f64();
        if global.json {
            let millis = |time: Duration| time.as_millis() as u64;
            return output::json_line(&json!({
                "releaseId": release,
                "fleet": fleet.slug,
                "packMs": millis(packing),
                "totalMs": millis(begun.elapsed()),
            }));
        }
        let verb = if self.detached { "is being built" } else { "is ready" };
        output::line(&format!("Release {release} of {} {verb} ({seconds:.1} s)", fleet.slug))
    }

    fn pack(&self, json: bool) -> Result<Packed> {
        let bar = bar("Packing", "{msg} {wide_bar} {pos}/{len}", json)?;
        let packed = project::pack(&self.source, self.dockerfile.as_deref(), &bar);
        bar.finish_and_clear();
        packed
    }

    async fn build(
        &self,
        client: &Client,
        fleet: &Fleet,
        file: File,
        json: bool,
    ) -> Result<Outcome> {
        let size = file.metadata().await.context("cannot read the archive")?.len();
        let bar = bar("Sending", "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}", json)?;
        bar.set_length(size);
        let sent = bar.clone();
        let chunks = ReaderStream::with_capacity(file, 64 << 10).inspect_ok(move |chunk| {
            sent.inc(chunk.len() as u64);
            if sent.position() >= size {
                sent.finish_and_clear();
            }
        });
        let options = BuildOptions {
            dockerfile: self.dockerfile.clone(),
            no_cache: self.nocache,
            detached: self.detached,
            draft: self.draft,
        };
        let mut events = client.build(fleet, Body::wrap_stream(chunks), &options).await?;
        let mut outcome = Outcome::default();
        while let Some(event) = events.next().await {
            let event = event?;
            if json {
                output::json_line(&event)?;
            }
            outcome.take(event, json)?;
        }
        Ok(outcome)
    }
}

impl Outcome {
    fn take(&mut self, event: BuildEvent, json: bool) -> Result<()> {
        match event {
            BuildEvent::Metadata { resource, value, .. } if resource == "buildLogId" => {
                let id = value.as_i64().or_else(|| value.as_str()?.parse().ok());
                self.release = id.or(self.release);
            }
            BuildEvent::Metadata { .. } => {}
            BuildEvent::Message { message, is_error, .. } => {
                if !json {
                    output::line(&message)?;
                }
                if is_error {
                    self.error = Some(without_colours(message.trim()));
                }
            }
            BuildEvent::Started { started, release_id, message } => {
                self.release = release_id;
                if !started {
                    self.error =
                        Some(message.unwrap_or_else(|| "the build did not start".to_owned()));
                }
            }
        }
        Ok(())
    }
}

/// The path as the builder takes it: shells like to write `./` before it.
fn path_in_project(text: &str) -> Result<String, String> {
    let path = text.trim_start_matches("./");
    if path.is_empty() { Err("a path is needed".to_owned()) } else { Ok(path.to_owned()) }
}

fn bar(message: &'static str, template: &str, hidden: bool) -> Result<ProgressBar> {
    if hidden || !output::interactive() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template(template).context("the bar's template is wrong")?;
    Ok(ProgressBar::no_length().with_style(style).with_message(message))
}

/// Text without terminal colours, for error messages.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = escape.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &escape[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::without_colours;

    #[test]
    fn colours_go_and_text_stays() {
        assert_eq!(without_colours("\x1b[31m[Error]\x1b[39m  it failed"), "[Error]  it failed");
        assert_eq!(without_colours("plain"), "plain");
        assert_eq!(without_colours("torn \x1b[3"), "torn ");
    }
}
