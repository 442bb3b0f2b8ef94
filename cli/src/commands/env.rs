//! `minke env`: variables of fleets, devices and services.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use minke_sdk_rust::{Client, Scope, Variable, VariableKind};
use serde_json::json;

use crate::output;
use crate::session::Global;

#[derive(clap::Args)]
pub struct Env {
    #[command(subcommand)]
    command: EnvCommand,
}

/// What the variable belongs to.
#[derive(clap::Args)]
struct Target {
    /// Every device of this fleet.
    #[arg(long, short = 'f', alias = "app")]
    fleet: Option<String>,
    /// This device: its uuid or the beginning of it.
    #[arg(long, short = 'd', num_args = 0..=1, default_missing_value = "")]
    device: Option<String>,
    /// Only this service.
    #[arg(long, short = 's', num_args = 0..=1, default_missing_value = "")]
    service: Option<String>,
}

#[derive(Subcommand)]
enum EnvCommand {
    /// List variables.
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        target: Target,
        /// Only those that configure the device.
        #[arg(long, short = 'c')]
        config: bool,
    },
    /// Set a variable, or change its value. Names that begin with BALENA_ or RESIN_ configure devices.
    #[command(alias = "add")]
    Set {
        /// The name, or NAME=VALUE.
        name: String,
        /// The value; without one, the variable of this name in your own environment.
        value: Option<String>,
        #[command(flatten)]
        target: Target,
        /// Say nothing when it worked.
        #[arg(long, short = 'q')]
        quiet: bool,
    },
    /// Remove a variable.
    Rm {
        /// Its name, or the id that `env list` shows.
        variable: String,
        #[command(flatten)]
        target: Target,
        /// With an id: it configures devices.
        #[arg(long, short = 'c')]
        config: bool,
        /// Do not ask.
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

impl Env {
    pub async fn run(self, global: &Global) -> Result<()> {
        let client = global.client()?;
        match self.command {
            EnvCommand::List { target, config } => {
                list(&client, &target, config, global.json).await
            }
            EnvCommand::Set { name, value, target, quiet } => {
                let (name, value) = assignment(name, value)?;
                client.set_variable(&target.scope(&client).await?, &name, &value).await?;
                if global.json {
                    return output::json(&json!({ "name": name, "value": value }));
                }
                if quiet { Ok(()) } else { output::line(&format!("Set {name}")) }
            }
            EnvCommand::Rm { variable, target, config, yes } => {
                output::confirm(&format!("Remove the variable {variable}?"), yes)?;
                remove(&client, &variable, &target, config).await?;
                if global.json {
                    return output::json(&json!({ "removed": variable }));
                }
                output::line(&format!("Removed {variable}"))
            }
        }
    }
}

impl Target {
    async fn scope(&self, client: &Client) -> Result<Scope> {
        let device = self.device.as_deref().filter(|it| !it.is_empty());
        let service = self.service.clone().filter(|it| !it.is_empty());
        Ok(match (&self.fleet, device, service) {
            (Some(_), Some(_), _) => bail!("say --fleet or --device, not both"),
            (Some(fleet), None, None) => Scope::Fleet(client.fleet(fleet).await?.id),
            (Some(fleet), None, Some(service)) => {
                Scope::FleetService { fleet: client.fleet(fleet).await?.id, service }
            }
            (None, Some(device), None) => Scope::Device(client.device(device).await?.id),
            (None, Some(device), Some(service)) => {
                Scope::DeviceService { device: client.device(device).await?.id, service }
            }
            (None, None, _) => bail!("say whose variable it is: --fleet FLEET or --device UUID"),
        })
    }

    /// The kind of variable that an id is of, as balena's CLI tells it: flags without a value.
    fn scope_of_id(&self) -> Scope {
        match (self.device.is_some(), self.service.is_some()) {
            (false, false) => Scope::Fleet(0),
            (false, true) => Scope::FleetService { fleet: 0, service: String::new() },
            (true, false) => Scope::Device(0),
            (true, true) => Scope::DeviceService { device: 0, service: String::new() },
        }
    }
}

fn assignment(name: String, value: Option<String>) -> Result<(String, String)> {
    match (name.split_once('='), value) {
        (_, Some(value)) => Ok((name, value)),
        (Some((name, value)), None) => Ok((name.to_owned(), value.to_owned())),
        (None, None) => {
            let value = std::env::var(&name)
                .with_context(|| format!("no value given, and your environment has no {name}"))?;
            Ok((name, value))
        }
    }
}

async fn remove(client: &Client, variable: &str, target: &Target, config: bool) -> Result<()> {
    match variable.parse::<i64>() {
        Ok(id) => {
            let kind = if config { VariableKind::Config } else { VariableKind::Environment };
            Ok(client.remove_variable_by_id(&target.scope_of_id(), kind, id).await?)
        }
        Err(_) => Ok(client.remove_variable(&target.scope(client).await?, variable).await?),
    }
}

async fn list(client: &Client, target: &Target, config: bool, json: bool) -> Result<()> {
    let device = target.device.as_deref().filter(|it| !it.is_empty());
    let service = target.service.as_deref().filter(|it| !it.is_empty());
    let mut variables = match (&target.fleet, device) {
        (Some(_), Some(_)) => bail!("say --fleet or --device, not both"),
        (Some(fleet), None) => client.fleet_variables(&client.fleet(fleet).await?).await?,
        (None, Some(uuid)) => {
            let device = client.device(uuid).await?;
            let mut variables = client.device_variables(&device).await?;
            // What the fleet sets reaches the device too.
            if let Some(fleet) = &device.fleet {
                variables.extend(client.fleet_variables(&client.fleet(fleet).await?).await?);
            }
            variables
        }
        (None, None) => bail!("say whose variables: --fleet FLEET or --device UUID"),
    };
    variables.retain(|variable| {
        (variable.kind == VariableKind::Config) == config
            && (service.is_none()
                || variable.service.is_none()
                || variable.service.as_deref() == service)
    });
    if json {
        return output::json(&variables);
    }
    if variables.is_empty() {
        return output::line("No variables");
    }
    let row = |variable: &Variable| {
        vec![
            variable.id.to_string(),
            variable.name.clone(),
            variable.value.clone(),
            variable.scope.to_owned(),
            variable.service.clone().unwrap_or_else(|| "*".to_owned()),
        ]
    };
    output::table(
        &["ID", "NAME", "VALUE", "SET FOR", "SERVICE"],
        variables.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::assignment;

    #[test]
    fn both_ways_to_write_an_assignment() {
        let pair = |name: &str, value: Option<&str>| {
            assignment(name.to_owned(), value.map(str::to_owned)).unwrap()
        };
        assert_eq!(pair("A", Some("b=c")), ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("A=b=c", None), ("A".to_owned(), "b=c".to_owned()));
        assert!(assignment("MINKE_NO_SUCH_VARIABLE".to_owned(), None).is_err());
    }
}
