//! `minke fleet`: list, show, create.

use anyhow::Result;
use clap::Subcommand;
use minke_sdk_rust::Fleet as FleetRow;
use serde_json::{Value, json};

use crate::output;
use crate::session::Global;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Fleet {
    /// The fleet to show: its slug, name, uuid or id.
    fleet: Option<String>,
    #[command(subcommand)]
    command: Option<FleetCommand>,
}

#[derive(Subcommand)]
enum FleetCommand {
    /// List your fleets.
    #[command(alias = "ls")]
    List,
    /// Show one fleet.
    Show {
        /// Its slug, name, uuid or id.
        fleet: String,
    },
    /// Create a fleet.
    Create {
        /// Its name: 4 to 100 letters, digits, `-` and `_`.
        name: String,
        /// The type of its devices, as generic-amd64 or raspberrypi4-64.
        #[arg(long, short = 't', default_value = "generic-amd64")]
        r#type: String,
        /// The handle of the organization that owns it; needed if you are in several.
        #[arg(long, short = 'o')]
        organization: Option<String>,
    },
}

impl Fleet {
    pub async fn run(self, global: &Global) -> Result<()> {
        let client = global.client()?;
        match (self.command, self.fleet) {
            (Some(FleetCommand::Show { fleet }), _) | (None, Some(fleet)) => {
                show(&client.fleet(&fleet).await?, global.json)
            }
            (Some(FleetCommand::Create { name, r#type, organization }), _) => {
                let fleet = client.create_fleet(&name, &r#type, organization.as_deref()).await?;
                if global.json {
                    return output::json(&as_json(&fleet));
                }
                output::line(&format!("Created fleet {} for {}", fleet.slug, fleet.device_type))
            }
            (Some(FleetCommand::List) | None, _) => list(&client.fleets().await?, global.json),
        }
    }
}

fn as_json(fleet: &FleetRow) -> Value {
    json!({
        "id": fleet.id,
        "name": fleet.name,
        "slug": fleet.slug,
        "uuid": fleet.uuid,
        "device_type": fleet.device_type,
        "commit": fleet.commit,
        "devices": fleet.devices,
        "online": fleet.online,
    })
}

fn list(fleets: &[FleetRow], json: bool) -> Result<()> {
    if json {
        return output::json(&fleets.iter().map(as_json).collect::<Vec<_>>());
    }
    if fleets.is_empty() {
        return output::line("No fleets yet; `minke fleet create NAME` makes one");
    }
    let rows = fleets
        .iter()
        .map(|fleet| {
            vec![
                fleet.id.to_string(),
                fleet.slug.clone(),
                fleet.device_type.clone(),
                format!("{}/{}", fleet.online, fleet.devices),
                fleet.commit.as_deref().map(short).unwrap_or("none").to_owned(),
            ]
        })
        .collect();
    output::table(&["ID", "FLEET", "DEVICE TYPE", "ONLINE", "RELEASE"], rows)
}

fn show(fleet: &FleetRow, json: bool) -> Result<()> {
    if json {
        return output::json(&as_json(fleet));
    }
    output::fields(&[
        ("fleet", Some(fleet.slug.clone())),
        ("name", Some(fleet.name.clone())),
        ("id", Some(fleet.id.to_string())),
        ("uuid", Some(fleet.uuid.clone())),
        ("device type", Some(fleet.device_type.clone())),
        ("devices", Some(format!("{} of {} online", fleet.online, fleet.devices))),
        ("release", Some(fleet.commit.clone().unwrap_or_else(|| "none yet".to_owned()))),
    ])
}

/// The first seven digits of a commit or uuid.
pub fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}
