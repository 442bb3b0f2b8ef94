//! `minke logs`: what a device's services write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::StreamExt;
use jiff::Timestamp;
use minke_sdk_rust::{Client, Device, LogCount, LogEntry, LogOptions};

use super::tail::Place;
use crate::output::{self, Style, paint};
use crate::session::Global;

/// How many old lines come before new ones.
const BEFORE_TAIL: u32 = 100;
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Show what a device's services write, and what the device itself says.
#[derive(clap::Args)]
pub struct Logs {
    /// The device: its uuid or the beginning of it.
    device: String,
    /// Go on with new lines as they come.
    #[arg(long, short = 't', alias = "follow", short_alias = 'f')]
    tail: bool,
    /// Only lines of this service; may be said several times.
    #[arg(long, short = 's', value_name = "SERVICE")]
    service: Vec<String>,
    /// Only what the device itself says, or also that beside --service.
    #[arg(long, short = 'S')]
    system: bool,
    /// At most so many old lines; without it, 1000, or 100 with --tail.
    #[arg(long, short = 'n', visible_alias = "lines")]
    count: Option<u32>,
    /// With --tail: how often to connect again when the stream breaks.
    #[arg(long, default_value_t = 10)]
    max_retry: u32,
}

impl Logs {
    pub async fn run(self, global: &Global) -> Result<()> {
        let client = global.client()?;
        let device = client.device(&self.device).await?;
        let mut printer = Printer::new(&client, &device, &self, global.json).await?;
        if self.tail {
            return self.follow(&client, &device, &mut printer).await;
        }
        let options = LogOptions { count: self.count.map(LogCount::Last), start: None };
        for entry in client.logs(&device, &options).await? {
            printer.print(&entry).await?;
        }
        Ok(())
    }

    async fn follow(
        &self,
        client: &Client,
        device: &Device,
        printer: &mut Printer<'_>,
    ) -> Result<()> {
        let mut place = Place::new(self.count.unwrap_or(BEFORE_TAIL));
        let mut failures = 0;
        loop {
            let error = match client.follow_logs(device, &place.connect()).await {
                Ok(mut entries) => loop {
                    match entries.next().await {
                        Some(Ok(entry)) => {
                            failures = 0;
                            if place.take(&entry) {
                                printer.print(&entry).await?;
                            }
                        }
                        Some(Err(error)) => break anyhow::Error::new(error),
                        None => break anyhow::anyhow!("the server ended the stream"),
                    }
                },
                Err(error) => error.into(),
            };
            failures += 1;
            if failures > self.max_retry {
                bail!("{error:#} (tried {failures} times)");
            }
            let pause = (RETRY * 2u32.saturating_pow(failures - 1).min(30)).min(MAX_RETRY);
            eprintln!("The stream broke ({error:#}); connecting again in {} s", pause.as_secs());
            tokio::time::sleep(pause).await;
        }
    }
}

/// Chooses and writes lines.
struct Printer<'a> {
    client: &'a Client,
    device: &'a Device,
    /// Services by id; asked for again when an unknown one writes.
    names: BTreeMap<i64, String>,
    services: BTreeSet<String>,
    system: bool,
    json: bool,
}

impl<'a> Printer<'a> {
    async fn new(
        client: &'a Client,
        device: &'a Device,
        logs: &Logs,
        json: bool,
    ) -> Result<Printer<'a>> {
        let names = client.service_names(device).await?;
        let services: BTreeSet<String> = logs.service.iter().cloned().collect();
        for service in &services {
            if !names.values().any(|name| name == service) {
                let known: Vec<&str> = names.values().map(String::as_str).collect();
                bail!("the device has no service `{service}`; it has: {}", known.join(", "));
            }
        }
        Ok(Printer { client, device, names, services, system: logs.system, json })
    }

    async fn print(&mut self, entry: &LogEntry) -> Result<()> {
        let name = match entry.service_id {
            Some(id) => Some(self.name(id).await?),
            None => None,
        };
        let is_named = name.as_ref().is_some_and(|name| self.services.contains(name));
        let wanted = if entry.is_system {
            self.system || self.services.is_empty() || is_named
        } else {
            is_named || (self.services.is_empty() && !self.system)
        };
        if !wanted {
            return Ok(());
        }
        if self.json {
            let mut value = serde_json::to_value(entry)?;
            value["service"] = name.into();
            return output::json_line(&value);
        }
        let time = Timestamp::from_millisecond(entry.timestamp.max(0))?
            .strftime("%H:%M:%S%.3f")
            .to_string();
        let text = if entry.is_std_err {
            paint(Style::Bad, &entry.message)
        } else {
            entry.message.clone()
        };
        let label = match &name {
            Some(name) => {
                let colour = self.names.values().position(|it| it == name).unwrap_or(0);
                format!("[{}] ", paint(Style::Tag(colour), name))
            }
            None => String::new(),
        };
        output::line(&format!("{} {label}{text}", paint(Style::Dim, &time)))
    }

    async fn name(&mut self, id: i64) -> Result<String> {
        if !self.names.contains_key(&id) {
            self.names.extend(self.client.service_names(self.device).await?);
            // A service that is gone from the fleet keeps its number as its name.
            self.names.entry(id).or_insert_with(|| format!("service {id}"));
        }
        Ok(self.names[&id].clone())
    }
}
