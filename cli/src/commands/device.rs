//! `minke device`: list, show, watch, register, rename, remove.

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use minke_sdk_rust::{Client, Device as DeviceRow, Error, LogEntry};
use serde_json::json;

use super::fleet::short;
use super::logs::Logs;
use crate::output::{self, Style, paint};
use crate::session::Global;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How many looks in a row may fail before watching ends: a server that is started anew answers sooner.
const WATCH_FAILURES: u32 = 60;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Device {
    /// The device to show: its uuid or the beginning of it.
    uuid: Option<String>,
    /// Show it again whenever something changes, until it runs what it should.
    #[arg(long, short = 'w')]
    watch: bool,
    #[command(subcommand)]
    command: Option<DeviceCommand>,
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// List your devices.
    #[command(alias = "ls")]
    List {
        /// Only those of this fleet: its slug, name, uuid or id.
        #[arg(long, short = 'f', alias = "app")]
        fleet: Option<String>,
    },
    /// Show one device and what runs on it.
    Show {
        /// Its uuid or the beginning of it.
        uuid: String,
        /// Show it again whenever something changes, until it runs what it should.
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// Register a device before it exists, to make its config.json with `config generate`.
    Register {
        /// The fleet that it joins: its slug, name, uuid or id.
        fleet: String,
        /// Its uuid, 32 or 62 hex digits; by default a new one.
        #[arg(long, short = 'u')]
        uuid: Option<String>,
        /// Its type; by default the fleet's.
        #[arg(long, alias = "deviceType")]
        device_type: Option<String>,
    },
    /// Give a device another name.
    Rename {
        /// Its uuid or the beginning of it.
        uuid: String,
        /// The new name.
        name: String,
    },
    /// Remove a device and everything that the server knows of it.
    Rm {
        /// Its uuid or the beginning of it.
        uuid: String,
        /// Do not ask.
        #[arg(long, short = 'y')]
        yes: bool,
    },
    Logs(Logs),
}

impl Device {
    pub async fn run(self, global: &Global) -> Result<()> {
        if let Some(DeviceCommand::Logs(logs)) = self.command {
            return logs.run(global).await;
        }
        let client = global.client()?;
        match (self.command, self.uuid) {
            (Some(DeviceCommand::Show { uuid, watch }), _) => {
                show(&client, &uuid, watch, global.json).await
            }
            (None, Some(uuid)) => show(&client, &uuid, self.watch, global.json).await,
            (Some(DeviceCommand::Register { fleet, uuid, device_type }), _) => {
                let uuid = uuid.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
                let fleet = client.fleet(&fleet).await?;
                let device = client.register_device(&fleet, &uuid, device_type.as_deref()).await?;
                if global.json {
                    return output::json(&device);
                }
                output::line(&format!("Registered device {} in {}", device.uuid, fleet.slug))?;
                output::line(&format!(
                    "Its config.json: minke config generate --device {} --output config.json",
                    short(&device.uuid)
                ))
            }
            (Some(DeviceCommand::Rename { uuid, name }), _) => {
                let device = client.device(&uuid).await?;
                client.rename_device(&device, &name).await?;
                done(global, &device.uuid, &format!("Renamed {} to {name}", short(&device.uuid)))
            }
            (Some(DeviceCommand::Rm { uuid, yes }), _) => {
                let device = client.device(&uuid).await?;
                output::confirm(&format!("Remove {} ({})?", device.device_name, device.uuid), yes)?;
                client.remove_device(&device).await?;
                done(global, &device.uuid, &format!("Removed {}", device.device_name))
            }
            (Some(DeviceCommand::List { fleet }), _) => {
                list(&client, fleet.as_deref(), global.json).await
            }
            (Some(DeviceCommand::Logs(_)) | None, _) => list(&client, None, global.json).await,
        }
    }
}

fn done(global: &Global, uuid: &str, sentence: &str) -> Result<()> {
    if global.json { output::json(&json!({ "uuid": uuid })) } else { output::line(sentence) }
}

async fn list(client: &Client, fleet: Option<&str>, json: bool) -> Result<()> {
    let fleet = match fleet {
        Some(name) => Some(client.fleet(name).await?),
        None => None,
    };
    let devices = client.devices(fleet.as_ref()).await?;
    if json {
        return output::json(&devices);
    }
    if devices.is_empty() {
        return output::line(
            "No devices yet; `minke config generate` makes the file that brings one",
        );
    }
    let rows = devices
        .iter()
        .map(|device| {
            vec![
                device.id.to_string(),
                short(&device.uuid).to_owned(),
                device.device_name.clone(),
                device.fleet.clone().unwrap_or_default(),
                state(device),
                device.is_running.as_deref().map(short).unwrap_or_default().to_owned(),
                device.os_version.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["ID", "UUID", "NAME", "FLEET", "STATUS", "RELEASE", "OS"], rows)
}

/// The status, with the progress while there is one.
fn state(device: &DeviceRow) -> String {
    let status = device.overall_status.clone().unwrap_or_else(|| "unknown".to_owned());
    match device.overall_progress {
        Some(progress) => format!("{status} {progress}%"),
        None => status,
    }
}

async fn show(client: &Client, uuid: &str, watch: bool, json: bool) -> Result<()> {
    let mut last = String::new();
    let mut failures = 0;
    loop {
        let (device, failure) = match look(client, uuid).await {
            Ok(found) => found,
            Err(error) if !last.is_empty() && failures < WATCH_FAILURES && may_pass(&error) => {
                failures += 1;
                if failures == 1 {
                    eprintln!("{:#}; looking again", anyhow::Error::new(error));
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failures = 0;
        let message = failure.as_ref().map(|entry| &entry.message);
        let now = serde_json::to_string(&(
            &device.services,
            state(&device),
            &device.is_running,
            message,
        ))?;
        if now != last {
            match (json, watch) {
                (true, true) => output::json_line(&with_failure(&device, failure.as_ref())?)?,
                (true, false) => output::json(&with_failure(&device, failure.as_ref())?)?,
                (false, _) if last.is_empty() => print(&device, failure.as_ref())?,
                (false, _) => print_progress(&device, failure.as_ref())?,
            }
            last = now;
        }
        if !watch || is_settled(&device) {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn look(client: &Client, uuid: &str) -> Result<(DeviceRow, Option<LogEntry>), Error> {
    let device = client.device(uuid).await?;
    let failure = client.last_failure(&device).await?;
    Ok((device, failure))
}

/// Whether the same question may be answered a moment later.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Transport { .. } => true,
        Error::Refused { status, .. } => *status >= 500,
        _ => false,
    }
}

/// Runs what it should, as far as the server knows.
fn is_settled(device: &DeviceRow) -> bool {
    device.should_run.is_some()
        && device.is_running == device.should_run
        && device.services.iter().all(|service| is_at_rest(&service.status))
}

/// Whether nothing is being done with a service: one that does its work once has ended.
fn is_at_rest(status: &str) -> bool {
    ["Running", "exited", "Stopped"].contains(&status)
}

/// The device as JSON, with its failure where there is one.
fn with_failure(device: &DeviceRow, failure: Option<&LogEntry>) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(device)?;
    if let Some(failure) = failure {
        value["last_failure"] = serde_json::to_value(failure)?;
    }
    Ok(value)
}

fn print(device: &DeviceRow, failure: Option<&LogEntry>) -> Result<()> {
    let pair = |used: Option<i64>, total: Option<i64>| {
        used.zip(total).map(|(used, total)| format!("{used} of {total} MiB"))
    };
    let style = if device.is_online { Style::Good } else { Style::Dim };
    output::fields(&[
        ("device", Some(device.device_name.clone())),
        ("uuid", Some(device.uuid.clone())),
        ("fleet", device.fleet.clone()),
        ("type", device.device_type.clone()),
        ("status", Some(paint(style, &state(device)))),
        ("online", Some(if device.is_online { "yes" } else { "no" }.to_owned())),
        ("last contact", device.last_connectivity_event.as_deref().map(output::time)),
        ("runs", device.is_running.clone()),
        ("should run", device.should_run.clone()),
        ("last failure", failure.map(|entry| paint(Style::Bad, &entry.message))),
        ("address", device.ip_address.clone()),
        ("os", device.os_version.clone()),
        ("supervisor", device.supervisor_version.clone()),
        ("memory", pair(device.memory_usage, device.memory_total)),
        ("storage", pair(device.storage_usage, device.storage_total)),
        ("cpu", device.cpu_usage.map(|percent| format!("{percent} %"))),
    ])?;
    if device.services.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = device
        .services
        .iter()
        .map(|service| {
            vec![service.service.clone(), progress(service), short(&service.commit).to_owned()]
        })
        .collect();
    output::table(&["SERVICE", "STATUS", "RELEASE"], rows)
}

fn print_progress(device: &DeviceRow, failure: Option<&LogEntry>) -> Result<()> {
    let services: Vec<String> = device
        .services
        .iter()
        .map(|service| {
            format!("{} {} ({})", service.service, progress(service), short(&service.commit))
        })
        .collect();
    output::line(&format!("{}: {}", state(device), services.join(", ")))?;
    match failure {
        Some(entry) => output::line(&format!("  {}", paint(Style::Bad, &entry.message))),
        None => Ok(()),
    }
}

fn progress(service: &minke_sdk_rust::ServiceStatus) -> String {
    let text = match service.download_progress {
        Some(percent) if service.status != "Running" => format!("{} {percent}%", service.status),
        _ => service.status.clone(),
    };
    let style = if service.status == "Running" { Style::Good } else { Style::Busy };
    paint(style, &text)
}
