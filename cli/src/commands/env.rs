//! `minke env`: variables of fleets, devices and services.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use minke_sdk_rust::{Client, Error, Owner, Scope, Variable, VariableKind};
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
    /// Every device of this fleet: its slug, name, uuid or id.
    #[arg(long, short = 'f', alias = "app")]
    fleet: Option<String>,
    /// This device: its uuid or the beginning of it.
    #[arg(long, short = 'd', num_args = 0..=1, default_missing_value = "")]
    device: Option<String>,
    /// Only this service of them.
    #[arg(long, short = 's', num_args = 0..=1, default_missing_value = "")]
    service: Option<String>,
}

#[derive(Subcommand)]
enum EnvCommand {
    /// List variables: those of a device with those of its fleet
    ///
    /// Those that configure devices are listed by --config alone. With --service, those for all
    /// services are listed too, as they reach it.
    #[command(alias = "ls", verbatim_doc_comment)]
    List {
        #[command(flatten)]
        target: Target,
        /// Those that configure devices, instead of those for services.
        #[arg(long, short = 'c')]
        config: bool,
    },
    /// Set a variable, or change its value
    ///
    /// Services find it in their environment, and are started anew for it. Where several have one name,
    /// that of a device's service wins, then the device's, then the fleet's service's, then the
    /// fleet's. Names that begin with BALENA_ or RESIN_ configure devices.
    #[command(alias = "add", verbatim_doc_comment)]
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
    /// Remove a variable
    ///
    /// By its name: say whose it is, as for `env set`. By its id: each kind of variable has ids of its
    /// own, so flags, which here need no value, say the kind:
    ///
    ///                         for services    that configures devices
    ///   of a fleet                            --config
    ///   of a fleet's service  --service
    ///   of a device           --device        --device --config
    ///   of a device's service --device --service
    ///
    /// If the flags name a fleet, device or service, the variable must be theirs.
    #[command(verbatim_doc_comment)]
    Rm {
        /// Its name, or the id that `env list` shows.
        variable: String,
        #[command(flatten)]
        target: Target,
        /// With an id: it configures devices.
        #[arg(long, short = 'c', conflicts_with = "service")]
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
                    // The value may be a secret, and answers end in logs.
                    return output::json(&json!({ "name": name }));
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
    async fn owner(&self, client: &Client) -> Result<Owner> {
        let service = self.service.clone().filter(|it| !it.is_empty());
        let fleet = match &self.fleet {
            Some(_) if self.device.is_some() => bail!("say --fleet or --device, not both"),
            Some(fleet) => Some(client.fleet(fleet).await?.id),
            None => None,
        };
        let device = match self.device.as_deref() {
            None | Some("") => None,
            Some(device) => Some(client.device(device).await?.id),
        };
        Ok(match (self.device.is_some(), self.service.is_some()) {
            (false, false) => Owner::Fleet(fleet),
            (false, true) => Owner::FleetService { fleet, service },
            (true, false) => Owner::Device(device),
            (true, true) => Owner::DeviceService { device, service },
        })
    }

    /// Whose variables these flags mean, in words.
    fn words(&self) -> String {
        let named = |kind: &str, name: Option<&str>| match name.filter(|it| !it.is_empty()) {
            Some(name) => format!("the {kind} `{name}`"),
            None => format!("a {kind}"),
        };
        let whose = match &self.device {
            Some(device) => named("device", Some(device)),
            None => named("fleet", self.fleet.as_deref()),
        };
        match &self.service {
            Some(service) => format!("{} of {whose}", named("service", Some(service))),
            None => whose,
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
    let Ok(id) = variable.parse::<i64>() else {
        return Ok(client.remove_variable(&target.scope(client).await?, variable).await?);
    };
    let (kind, what) = match config {
        true => (VariableKind::Config, "configuration variable"),
        false => (VariableKind::Environment, "variable"),
    };
    let owner = target.owner(client).await?;
    match client.remove_variable_by_id(&owner, kind, id).await {
        Err(Error::NotFound { .. }) => bail!(
            "no {what} of {} has the id {id} (or it is not yours); each kind has its own ids: say \
             --config for one that configures devices, --device for one of a device, --service for \
             one of a service",
            target.words()
        ),
        other => Ok(other?),
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
