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

/// Whose variables are meant, as far as it is known: all of a kind, or those of one fleet, device or
/// service. Each kind counts its ids by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A fleet, for every service.
    Fleet(Option<i64>),
    /// A service of a fleet.
    FleetService {
        /// The fleet's id.
        fleet: Option<i64>,
        /// The service's name.
        service: Option<String>,
    },
    /// A device, for every service.
    Device(Option<i64>),
    /// A service of a device.
    DeviceService {
        /// The device's id.
        device: Option<i64>,
        /// The service's name.
        service: Option<String>,
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
    fn owner(&self) -> Owner {
        match self {
            Scope::Fleet(fleet) => Owner::Fleet(Some(*fleet)),
            Scope::FleetService { fleet, service } => {
                Owner::FleetService { fleet: Some(*fleet), service: Some(service.clone()) }
            }
            Scope::Device(device) => Owner::Device(Some(*device)),
            Scope::DeviceService { device, service } => {
                Owner::DeviceService { device: Some(*device), service: Some(service.clone()) }
            }
        }
    }
}

impl Owner {
    /// The resource that holds such variables.
    fn resource(&self, kind: VariableKind) -> &'static str {
        match (self, kind) {
            (Owner::Fleet(_), VariableKind::Environment) => "application_environment_variable",
            (Owner::Fleet(_), VariableKind::Config) => "application_config_variable",
            (Owner::FleetService { .. }, _) => "service_environment_variable",
            (Owner::Device(_), VariableKind::Environment) => "device_environment_variable",
            (Owner::Device(_), VariableKind::Config) => "device_config_variable",
            (Owner::DeviceService { .. }, _) => "device_service_environment_variable",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Owner::Fleet(_) | Owner::FleetService { .. } => "fleet",
            Owner::Device(_) | Owner::DeviceService { .. } => "device",
        }
    }

    /// What holds for the variables of this owner.
    fn conditions(&self) -> Vec<Filter> {
        let named = |service: &String| Filter::eq("service_name", service);
        let both = match self {
            Owner::Fleet(fleet) => [fleet.map(|id| Filter::eq("application", id)), None],
            Owner::Device(device) => [device.map(|id| Filter::eq("device", id)), None],
            Owner::FleetService { fleet, service } => [
                fleet.map(|id| Filter::any("service", Filter::eq("application", id))),
                service.as_ref().map(|name| Filter::any("service", named(name))),
            ],
            Owner::DeviceService { device, service } => [
                device.map(|id| Filter::any("service_install", Filter::eq("device", id))),
                service.as_ref().map(|name| {
                    let of_service = Filter::any("installs__service", named(name));
                    Filter::any("service_install", of_service)
                }),
            ],
        };
        both.into_iter().flatten().collect()
    }

    /// The navigation to the service, where there is one.
    fn service(&self) -> Option<Query> {
        match self {
            Owner::Fleet(_) | Owner::Device(_) => None,
            Owner::FleetService { .. } => Some(Query::new("service").select(["service_name"])),
            Owner::DeviceService { .. } => Some(
                Query::new("service_install")
                    .select(["id"])
                    .expand(Query::new("installs__service").select(["service_name"])),
            ),
        }
    }
}

impl Client {
    /// Sets a variable: a new one, or a new value for the one that is there.
    pub async fn set_variable(&self, scope: &Scope, name: &str, value: &str) -> Result<(), Error> {
        let what = format!("set {name}");
        let resource = scope.owner().resource(VariableKind::of(name));
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
        let resource = scope.owner().resource(VariableKind::of(name));
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

    /// Deletes the variable with the id that a list shows; an error if there is none of this kind
    /// and owner.
    pub async fn remove_variable_by_id(
        &self,
        owner: &Owner,
        kind: VariableKind,
        id: i64,
    ) -> Result<(), Error> {
        let resource = owner.resource(kind);
        let mut conditions = owner.conditions();
        conditions.push(Filter::eq("id", id));
        let query = Query::new(resource).select(["id"]).filter(Filter::And(conditions));
        // Deleting what is not there is no error of the API.
        let found: Vec<Id> = self.rows("find the variable", &query).await?;
        if found.is_empty() {
            return Err(Error::NotFound { kind: "variable", name: id.to_string() });
        }
        self.delete("remove the variable", &Query::by_id(resource, id)).await
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
        let own = Owner::Fleet(Some(fleet.id));
        let of_services = Owner::FleetService { fleet: Some(fleet.id), service: None };
        self.all_variables(&own, &of_services).await
    }

    /// All variables of a device, those of its services included.
    pub async fn device_variables(&self, device: &Device) -> Result<Vec<Variable>, Error> {
        let own = Owner::Device(Some(device.id));
        let of_services = Owner::DeviceService { device: Some(device.id), service: None };
        self.all_variables(&own, &of_services).await
    }

    async fn all_variables(
        &self,
        own: &Owner,
        of_services: &Owner,
    ) -> Result<Vec<Variable>, Error> {
        let mut all = self.variables(own, VariableKind::Environment).await?;
        all.extend(self.variables(own, VariableKind::Config).await?);
        all.extend(self.variables(of_services, VariableKind::Environment).await?);
        Ok(all)
    }

    async fn variables(&self, owner: &Owner, kind: VariableKind) -> Result<Vec<Variable>, Error> {
        let mut query = Query::new(owner.resource(kind))
            .select(["id", "name", "value"])
            .filter(Filter::And(owner.conditions()))
            .order_by("name asc");
        if let Some(service) = owner.service() {
            query = query.expand(service);
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
                scope: owner.name(),
                kind,
            })
            .collect())
    }
}

/// The name in an expanded `service` navigation.
fn service_name(expanded: &Value) -> Option<String> {
    expanded[0]["service_name"].as_str().map(str::to_owned)
}
