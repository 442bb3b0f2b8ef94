//! `minke release`: list and show.

use anyhow::Result;
use clap::Subcommand;
use minke_sdk_rust::{Client, ReleaseDetail};

use super::fleet::short;
use crate::output::{self, Style, paint};
use crate::session::Global;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Release {
    /// The release to show: its commit, the beginning of it, or its id.
    release: Option<String>,
    /// Print only the compose file as it was understood, as JSON.
    #[arg(long, short = 'c')]
    composition: bool,
    #[command(subcommand)]
    command: Option<ReleaseCommand>,
}

#[derive(Subcommand)]
enum ReleaseCommand {
    /// List the releases of a fleet, newest first.
    #[command(alias = "ls")]
    List {
        /// The fleet: its slug, name, uuid or id.
        fleet: String,
    },
    /// Show one release: its images, their sizes, why it failed.
    Show {
        /// Its commit, the beginning of it, or its id.
        release: String,
        /// Print only the compose file as it was understood, as JSON.
        #[arg(long, short = 'c')]
        composition: bool,
        /// Print what the builder wrote.
        #[arg(long)]
        log: bool,
    },
}

impl Release {
    pub async fn run(self, global: &Global) -> Result<()> {
        let client = global.client()?;
        match (self.command, self.release) {
            (Some(ReleaseCommand::List { fleet }), _) => list(&client, &fleet, global.json).await,
            (Some(ReleaseCommand::Show { release, composition, log }), _) => {
                show(&client.release(&release).await?, composition, log, global.json)
            }
            (None, name) => {
                let release = client.release(&name.unwrap_or_default()).await?;
                show(&release, self.composition, false, global.json)
            }
        }
    }
}

async fn list(client: &Client, fleet: &str, json: bool) -> Result<()> {
    let fleet = client.fleet(fleet).await?;
    let releases = client.releases(&fleet).await?;
    if json {
        return output::json(&releases);
    }
    if releases.is_empty() {
        return output::line(&format!("No releases yet; `minke push {}` makes one", fleet.slug));
    }
    let rows = releases
        .iter()
        .map(|release| {
            vec![
                release.id.to_string(),
                short(&release.commit).to_owned(),
                output::time(&release.created_at),
                release.status.clone(),
                release.raw_version.clone().unwrap_or_default(),
                if release.is_final { "yes" } else { "draft" }.to_owned(),
                if fleet.commit.as_ref() == Some(&release.commit) { "← fleet" } else { "" }
                    .to_owned(),
            ]
        })
        .collect();
    output::table(&["ID", "COMMIT", "CREATED", "STATUS", "VERSION", "FINAL", ""], rows)
}

fn show(detail: &ReleaseDetail, composition: bool, log: bool, json: bool) -> Result<()> {
    if composition {
        return output::json(&detail.composition);
    }
    if json {
        return output::json(detail);
    }
    if log {
        return output::line(
            detail.build_log.as_deref().unwrap_or("The builder wrote nothing").trim_end(),
        );
    }
    let release = &detail.release;
    let style = match release.status.as_str() {
        "success" => Style::Good,
        "running" => Style::Busy,
        _ => Style::Bad,
    };
    output::fields(&[
        ("release", Some(release.commit.clone())),
        ("id", Some(release.id.to_string())),
        ("version", release.raw_version.clone()),
        ("status", Some(paint(style, &release.status))),
        ("final", Some(if release.is_final { "yes" } else { "no, a draft" }.to_owned())),
        ("created", Some(output::time(&release.created_at))),
        ("ended", detail.end_timestamp.as_deref().map(output::time)),
    ])?;
    if detail.images.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = detail
        .images
        .iter()
        .map(|image| {
            vec![
                image.service.clone(),
                image.status.clone(),
                image.size.map(output::bytes).unwrap_or_default(),
                image.error_message.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["SERVICE", "STATUS", "SIZE", "ERROR"], rows)
}
