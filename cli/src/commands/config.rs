//! `minke config generate`: the file with which a device joins a fleet.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use minke_sdk_rust::Client;
use serde_json::{Map, Value, json};

use crate::output;
use crate::session::Global;

#[derive(clap::Args)]
pub struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Make a config.json. It holds a key: keep it as you would keep a password.
    Generate(Box<Generate>),
}

#[derive(clap::Args)]
struct Generate {
    /// Any new device of this fleet: its slug, name, uuid or id.
    #[arg(long, short = 'f', alias = "app", conflicts_with = "device")]
    fleet: Option<String>,
    /// This registered device: its uuid or the beginning of it.
    #[arg(long, short = 'd')]
    device: Option<String>,
    /// The key that the device calls with; by default a new one.
    #[arg(long, short = 'k', alias = "deviceApiKey", requires = "device")]
    device_api_key: Option<String>,
    /// The device's type; by default the fleet's.
    #[arg(long, alias = "deviceType")]
    device_type: Option<String>,
    /// Write the file here (readable by you only) instead of printing it.
    #[arg(long, short = 'o')]
    output: Option<PathBuf>,
    /// The version of the operating system.
    #[arg(long)]
    version: Option<String>,
    /// For development: open access on the local network.
    #[arg(long)]
    dev: bool,
    /// `ethernet` or `wifi`.
    #[arg(long, default_value = "ethernet", value_parser = ["ethernet", "wifi"])]
    network: String,
    /// The name of the wireless network.
    #[arg(long, alias = "wifiSsid", required_if_eq("network", "wifi"))]
    wifi_ssid: Option<String>,
    /// The key of the wireless network.
    #[arg(long, alias = "wifiKey")]
    wifi_key: Option<String>,
    /// Minutes between two looks at the target.
    #[arg(long, alias = "appUpdatePollInterval", value_parser = clap::value_parser!(u32).range(1..=1440))]
    app_update_poll_interval: Option<u32>,
    /// The name of the provisioning key.
    #[arg(long)]
    provisioning_key_name: Option<String>,
    /// The name that the device gives itself.
    #[arg(long)]
    initial_device_name: Option<String>,
}

impl Config {
    pub async fn run(self, global: &Global) -> Result<()> {
        let ConfigCommand::Generate(generate) = self.command;
        let client = global.client()?;
        let config = generate.config(&client).await?;
        let text = serde_json::to_string_pretty(&config)? + "\n";
        match &generate.output {
            None => output::line(text.trim_end()),
            Some(path) => {
                store(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
                if global.json {
                    return output::json(&json!({ "file": path }));
                }
                output::line(&format!("Wrote {}", path.display()))
            }
        }
    }
}

/// Whole or not at all, and 0600: the file holds a key.
fn store(path: &std::path::Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(std::path::Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

impl Generate {
    async fn config(&self, client: &Client) -> Result<Value> {
        match (&self.fleet, &self.device) {
            (Some(fleet), _) => {
                let fleet = client.fleet(fleet).await?;
                Ok(client
                    .provisioning_config(&fleet, self.device_type.as_deref(), self.options())
                    .await?)
            }
            (None, Some(uuid)) => {
                let device = client.device(uuid).await?;
                let fleet = device.fleet.as_deref().context("the device belongs to no fleet")?;
                let fleet = client.fleet(fleet).await?;
                let device_type = self.device_type.as_deref().or(device.device_type.as_deref());
                let mut config =
                    client.provisioning_config(&fleet, device_type, self.options()).await?;
                let key = match &self.device_api_key {
                    Some(key) => key.clone(),
                    None => client.create_device_key(&device).await?,
                };
                let fields = config.as_object_mut().context("the server sent no object")?;
                // The device is registered, so it needs no key that could register others.
                fields.remove("apiKey");
                fields.insert("uuid".to_owned(), json!(device.uuid));
                fields.insert("deviceId".to_owned(), json!(device.id));
                fields.insert("deviceApiKey".to_owned(), json!(key));
                let now = jiff::Timestamp::now().as_second();
                fields.insert("registered_at".to_owned(), json!(now));
                Ok(config)
            }
            (None, None) => bail!("say for whom: --fleet FLEET or --device UUID"),
        }
    }

    fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                options.insert(name.to_owned(), value);
            }
        };
        set("network", Some(json!(self.network)));
        set("version", self.version.as_ref().map(|it| json!(it)));
        set("developmentMode", self.dev.then_some(json!(true)));
        set("wifiSsid", self.wifi_ssid.as_ref().map(|it| json!(it)));
        set("wifiKey", self.wifi_key.as_ref().map(|it| json!(it)));
        set("appUpdatePollInterval", self.app_update_poll_interval.map(|it| json!(it)));
        set("provisioningKeyName", self.provisioning_key_name.as_ref().map(|it| json!(it)));
        set("initialDeviceName", self.initial_device_name.as_ref().map(|it| json!(it)));
        options
    }
}
