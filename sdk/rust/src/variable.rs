//! Variables: what services find in their environment, and what configures devices.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::odata::{Filter, Query};
use crate::{Client, Device, Error, Fleet};

/// What a variable belongs to.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Every service of every device of a fleet.
    Fleet(i64),
    /// One service of a fleet, on every device.
    FleetService {
        /// The fleet's id.
        fleet: i64,
        /// The service's name.
        service: String,
    },
    /// Every service of one device.
    Device(i64),
    /// One service of one device.
    DeviceService {
        /// The device's id.
        device: i64,
        /// The service's name.
        service: String,
    },
}

/// Whether a variable is for services or for the device itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VariableKind {
    /// In the environment of services.
    Environment,
    /// Configures the device: `BALENA_…` and `RESIN_…`.
    Config,
}

/// A variable as it is set.
#[derive(Debug, Clone, Serialize)]
pub struct Variable {
    /// Its id, which `env rm` takes.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The service that it is for; `None` means all.
    pub service: Option<String>,
    /// `fleet` or `device`.
    pub scope: &'static str,
    /// For services or for the device.
    pub kind: VariableKind,
}

#[derive(Deserialize)]
struct Row {
    id: i64,
    name: String,
    value: String,
    #[serde(default)]
    service: Value,
    #[serde(default)]
    service_install: Value,
}

#[derive(Deserialize)]
struct Id {
    id: i64,
}

impl VariableKind {
    /// What the name says: `BALENA_` and `RESIN_` are for the device.
    pub fn of(name: &str) -> VariableKind {
        if name.starts_with("BALENA_") || name.starts_with("RESIN_") {
            VariableKind::Config
        } else {
            VariableKind::Environment
        }
    }
}

impl Scope {
    /// The resource that holds such variables.
    fn resource(&self, kind: VariableKind) -> &'static str {
        match (self, kind) {
            (Scope::Fleet(_), VariableKind::Environment) => "application_environment_variable",
            (Scope::Fleet(_), VariableKind::Config) => "application_config_variable",
            (Scope::FleetService { .. }, _) => "service_environment_variable",
            (Scope::Device(_), VariableKind::Environment) => "device_environment_variable",
            (Scope::Device(_), VariableKind::Config) => "device_config_variable",
            (Scope::DeviceService { .. }, _) => "device_service_environment_variable",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Scope::Fleet(_) | Scope::FleetService { .. } => "fleet",
            Scope::Device(_) | Scope::DeviceService { .. } => "device",
        }
    }
}

impl Client {
    /// Sets a variable: a new one, or a new value for the one that is there.
    pub async fn set_variable(&self, scope: &Scope, name: &str, value: &str) -> Result<(), Error> {
        let what = format!("set {name}");
        let resource = scope.resource(VariableKind::of(name));
        let (parent, id) = self.parent(scope).await?;
        let mut body = Map::new();
        body.insert(parent.to_owned(), json!(id));
        body.insert("name".to_owned(), json!(name));
        body.insert("value".to_owned(), json!(value));
        match self.create::<Value>(&what, resource, &body).await {
            Err(error) if error.is_conflict() => {
                let query = Query::new(resource)
                    .filter(Filter::eq(parent, id).and(Filter::eq("name", name)));
                self.update(&what, &query, &json!({ "value": value })).await
            }
            other => other.map(drop),
        }
    }

    /// Deletes the variable called `name`; an error if there is none.
    pub async fn remove_variable(&self, scope: &Scope, name: &str) -> Result<(), Error> {
        let resource = scope.resource(VariableKind::of(name));
        let (parent, id) = self.parent(scope).await?;
        let query = Query::new(resource)
            .select(["id"])
            .filter(Filter::eq(parent, id).and(Filter::eq("name", name)));
        let found: Vec<Id> = self.rows("find the variable", &query).await?;
        let variable = found
            .first()
            .ok_or_else(|| Error::NotFound { kind: "variable", name: name.to_owned() })?;
        self.delete("remove the variable", &Query::by_id(resource, variable.id)).await
    }

    /// Deletes a variable by the id that a list shows.
    pub async fn remove_variable_by_id(
        &self,
        scope: &Scope,
        kind: VariableKind,
        id: i64,
    ) -> Result<(), Error> {
        self.delete("remove the variable", &Query::by_id(scope.resource(kind), id)).await
    }

    /// The row that variables of this scope hang from: the field that names it, and its id.
    async fn parent(&self, scope: &Scope) -> Result<(&'static str, i64), Error> {
        match scope {
            Scope::Fleet(fleet) => Ok(("application", *fleet)),
            Scope::Device(device) => Ok(("device", *device)),
            Scope::FleetService { fleet, service } => {
                let query = Query::new("service").select(["id"]).filter(
                    Filter::eq("application", *fleet).and(Filter::eq("service_name", service)),
                );
                Ok(("service", self.only("service", service, &query).await?))
            }
            Scope::DeviceService { device, service } => {
                let query = Query::new("service_install").select(["id"]).filter(
                    Filter::eq("device", *device)
                        .and(Filter::any("installs__service", Filter::eq("service_name", service))),
                );
                Ok(("service_install", self.only("service", service, &query).await?))
            }
        }
    }

    async fn only(&self, kind: &'static str, name: &str, query: &Query) -> Result<i64, Error> {
        let found: Vec<Id> = self.rows("find the service", query).await?;
        found
            .first()
            .map(|row| row.id)
            .ok_or_else(|| Error::NotFound { kind, name: name.to_owned() })
    }

    /// All variables of a fleet, those of its services included.
    pub async fn fleet_variables(&self, fleet: &Fleet) -> Result<Vec<Variable>, Error> {
        let own = Filter::eq("application", fleet.id);
        let services = Filter::any("service", Filter::eq("application", fleet.id));
        let scope = Scope::Fleet(fleet.id);
        let by_service = Scope::FleetService { fleet: fleet.id, service: String::new() };
        let expand = Query::new("service").select(["service_name"]);
        let mut all = self.variables(&scope, VariableKind::Environment, own.clone(), None).await?;
        all.extend(self.variables(&scope, VariableKind::Config, own, None).await?);
        all.extend(
            self.variables(&by_service, VariableKind::Environment, services, Some(expand)).await?,
        );
        Ok(all)
    }

    /// All variables of a device, those of its services included.
    pub async fn device_variables(&self, device: &Device) -> Result<Vec<Variable>, Error> {
        let own = Filter::eq("device", device.id);
        let services = Filter::any("service_install", Filter::eq("device", device.id));
        let scope = Scope::Device(device.id);
        let by_service = Scope::DeviceService { device: device.id, service: String::new() };
        let expand = Query::new("service_install")
            .select(["id"])
            .expand(Query::new("installs__service").select(["service_name"]));
        let mut all = self.variables(&scope, VariableKind::Environment, own.clone(), None).await?;
        all.extend(self.variables(&scope, VariableKind::Config, own, None).await?);
        all.extend(
            self.variables(&by_service, VariableKind::Environment, services, Some(expand)).await?,
        );
        Ok(all)
    }

    async fn variables(
        &self,
        scope: &Scope,
        kind: VariableKind,
        filter: Filter,
        expand: Option<Query>,
    ) -> Result<Vec<Variable>, Error> {
        let mut query = Query::new(scope.resource(kind))
            .select(["id", "name", "value"])
            .filter(filter)
            .order_by("name asc");
        if let Some(expand) = expand {
            query = query.expand(expand);
        }
        let rows: Vec<Row> = self.rows("list variables", &query).await?;
        Ok(rows
            .into_iter()
            .map(|row| Variable {
                id: row.id,
                name: row.name,
                value: row.value,
                service: service_name(&row.service)
                    .or_else(|| service_name(&row.service_install[0]["installs__service"])),
                scope: scope.name(),
                kind,
            })
            .collect())
    }
}

/// The name in an expanded `service` navigation.
fn service_name(expanded: &Value) -> Option<String> {
    expanded[0]["service_name"].as_str().map(str::to_owned)
}
