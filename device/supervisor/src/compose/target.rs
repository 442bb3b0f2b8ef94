//! The whole target of a device to what the planner compares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use minke_common_model::ids::{AppId, AppUuid, DeviceUuid, NetworkName, ServiceName, VolumeName};
use minke_common_model::labels::{self, Features};
use minke_common_model::target_state::{AppTarget, DeviceTarget, ReleaseTarget, ServiceTarget};
use minke_common_model::update_strategy::UpdateSettings;
use minke_engine_client::wire::{CreateNetwork, CreateVolume, Ipam, IpamPool};
use serde_json::{Map, Value, json};

use super::environment::environment;
use super::fields::Fields;
use super::service::{self, Given, NetworkMode};
use super::{Warnings, features, volumes};
use crate::api_keys::ApiKeys;
use crate::state::{
    Condition, ImageKey, NetworkKey, SpecHash, Target, TargetApp, TargetNetwork, TargetRelease,
    TargetService, VolumeKey,
};

/// The network through which services reach the supervisor.
pub(crate) const SUPERVISOR_NETWORK: &str = "supervisor0";
/// Its gateway, where the device API listens.
pub(crate) const SUPERVISOR_GATEWAY: &str = "10.114.104.1";
const SUPERVISOR_SUBNET: &str = "10.114.104.0/25";
/// Label with the hash of what a container or network was made from.
pub(crate) const HASH_LABEL: &str = "io.minke.config";
/// Changes when what is hashed changes; never for another reason, for it replaces every container.
const HASH_VERSION: u32 = 1;

/// What the device knows of itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub uuid: DeviceUuid,
    pub name: String,
    pub device_type: String,
    pub arch: String,
    pub os_version: String,
    pub api_endpoint: Option<String>,
    pub device_key: Option<String>,
    pub listen_port: u16,
    pub supervisor_gateway: &'static str,
    pub lock_root: PathBuf,
    pub engine_socket: PathBuf,
    /// Those of [`features::HOST_PATHS`] that exist.
    pub host_paths: BTreeSet<PathBuf>,
    pub api_keys: ApiKeys,
}

/// A target, the apps that cannot be run (and why), and what was left out of the others.
pub(crate) struct Built {
    pub target: Target,
    pub rejected: BTreeMap<AppUuid, String>,
    pub warnings: Warnings,
}

/// Builds the planner's target.
pub(crate) fn build_target(facts: &Facts, device: &DeviceTarget) -> Built {
    let mut built =
        Built { target: Target::default(), rejected: BTreeMap::new(), warnings: Vec::new() };
    for (uuid, app) in device.apps.iter().filter(|(_, app)| !app.is_host) {
        match build_app(facts, uuid, app, &mut built.warnings) {
            Ok(target_app) => {
                built.target.apps.insert(uuid.clone(), target_app);
            }
            Err(reason) => {
                built.target.untouched.insert(uuid.clone());
                built.rejected.insert(uuid.clone(), reason);
            }
        }
    }
    let services = built.target.apps.values().flat_map(|app| app.services.values());
    if services.into_iter().any(|service| service.networks.contains(SUPERVISOR_NETWORK)) {
        built.target.system_networks.insert(SUPERVISOR_NETWORK.to_owned(), supervisor_network());
    }
    built
}

fn build_app(
    facts: &Facts,
    uuid: &AppUuid,
    app: &AppTarget,
    warnings: &mut Warnings,
) -> Result<TargetApp, String> {
    let mut target = TargetApp {
        id: app.id,
        name: app.name.clone(),
        release: None,
        services: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        purge: false,
        force: false,
    };
    let Some((commit, release)) = app.release() else { return Ok(target) };
    target.release = Some(TargetRelease { commit: commit.clone(), id: release.id });
    for (name, definition) in &release.volumes {
        target.volumes.insert(volumes::key(app.id, name), volume(uuid, app.id, name, definition));
    }
    for (name, service) in &release.services {
        let mut told = Warnings::new();
        let builder =
            ServiceBuilder { facts, uuid, app, release, name, service, warnings: &mut told };
        let built = builder.build(commit.as_str(), &mut target);
        target.services.insert(name.clone(), built);
        warnings.extend(told.into_iter().map(|warning| format!("service {name}: {warning}")));
    }
    check_dependencies(&target.services)?;
    mix_in_shared_namespaces(&mut target.services);
    Ok(target)
}

struct ServiceBuilder<'a> {
    facts: &'a Facts,
    uuid: &'a AppUuid,
    app: &'a AppTarget,
    release: &'a ReleaseTarget,
    name: &'a ServiceName,
    service: &'a ServiceTarget,
    warnings: &'a mut Warnings,
}

impl ServiceBuilder<'_> {
    fn build(self, commit: &str, target: &mut TargetApp) -> TargetService {
        let empty = Map::new();
        let fields = Fields(self.service.composition.as_ref().unwrap_or(&empty));
        let mut user_labels = fields.map("labels");
        user_labels.extend(self.service.labels.clone());
        let mut user_env = fields.map("environment");
        user_env.extend(self.service.environment.clone());
        let wants = Features::from_labels(&user_labels);
        let settings = UpdateSettings::from_labels(&user_labels);

        let mode = service::network_mode(fields, self.warnings);
        let (network_mode, mut endpoints) = self.networks(&mode, target);
        let uses_host = network_mode == "host";
        if wants.supervisor_api && matches!(mode, NetworkMode::Named(_)) {
            endpoints.push((SUPERVISOR_NETWORK.to_owned(), Default::default()));
        }
        let mounts = volumes::mounts(self.app.id, fields, self.warnings);
        for name in mounts.names.iter().filter(|name| !self.release.volumes.contains_key(*name)) {
            let key = volumes::key(self.app.id, name);
            target.volumes.insert(key, volume(self.uuid, self.app.id, name, &Value::Null));
        }
        let networks: BTreeSet<NetworkKey> = endpoints.iter().map(|(key, _)| key.clone()).collect();
        let hash = self.hash(&user_env, &user_labels, &networks, target);
        let keys: BTreeSet<VolumeKey> = mounts.keys.clone();
        let mut labels = user_labels;
        self.identify(&mut labels, &hash);
        let given = Given {
            env: environment(
                self.facts, self.uuid, self.app, self.name, wants, uses_host, &user_env,
            ),
            labels,
            binds: features::binds(self.facts, self.app.id, self.name, wants),
            mounts,
            network_mode,
            endpoints,
        };
        let shares_network_of = match mode {
            NetworkMode::Of(other) => Some(other),
            _ => None,
        };
        let mut depends_on = service::depends_on(fields);
        depends_on.extend(shares_network_of.clone().map(|other| (other, Condition::Started)));
        let (image_id, release_id) = (self.service.image_id, self.release.id);
        TargetService {
            id: self.service.id,
            reference: self.service.image.clone(),
            image: ImageKey::of(&self.service.image),
            hash,
            container_name: format!("{}_{image_id}_{release_id}_{commit}", self.name),
            running: self.service.running && fields.truth("running").unwrap_or(true),
            strategy: settings.strategy,
            handover_timeout: settings.handover_timeout,
            depends_on,
            networks,
            volumes: keys,
            shares_network_of,
            body: Arc::new(service::body(fields, given, self.warnings)),
        }
    }

    /// The network mode, and the endpoints in the release's networks, which `target` then names.
    fn networks(
        &self,
        mode: &NetworkMode,
        target: &mut TargetApp,
    ) -> (String, Vec<(NetworkKey, minke_engine_client::wire::EndpointSettings)>) {
        match mode {
            NetworkMode::BuiltIn(mode) => (mode.clone(), Vec::new()),
            NetworkMode::Of(_) => (String::new(), Vec::new()),
            NetworkMode::Named(named) => {
                let mut endpoints = Vec::new();
                for (name, settings) in named {
                    let key = network_key(self.uuid, name);
                    let definition = self.release.networks.get(name).unwrap_or(&Value::Null);
                    let wanted = || network(self.uuid, self.app.id, name, definition);
                    target.networks.entry(key.clone()).or_insert_with(wanted);
                    endpoints.push((key, service::endpoint(self.name, settings)));
                }
                (endpoints[0].0.clone(), endpoints)
            }
        }
    }

    /// Hashes what a new container is needed for. Not in it: the release, the image's host, names of
    /// app and device, versions, and where the server is.
    fn hash(
        &self,
        env: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
        networks: &BTreeSet<NetworkKey>,
        target: &TargetApp,
    ) -> SpecHash {
        let networks: BTreeMap<_, _> = networks
            .iter()
            .map(|key| (key, target.networks.get(key).map(|network| &network.hash.0)))
            .collect();
        hash_of(&json!({
            "version": HASH_VERSION,
            "app": [self.app.id.get().to_string(), self.uuid.as_str()],
            "service": [self.service.id.get().to_string(), self.name.as_str()],
            "image": ImageKey::of(&self.service.image).0,
            "environment": env,
            "labels": labels,
            "composition": self.service.composition,
            "networks": networks,
            "lock_root": self.facts.lock_root,
        }))
    }

    fn identify(&self, labels: &mut BTreeMap<String, String>, hash: &SpecHash) {
        for (name, value) in [
            (labels::SUPERVISED, "true".to_owned()),
            (labels::APP_ID, self.app.id.to_string()),
            (labels::APP_UUID, self.uuid.to_string()),
            (labels::SERVICE_ID, self.service.id.to_string()),
            (labels::SERVICE_NAME, self.name.to_string()),
            (HASH_LABEL, hash.0.clone()),
        ] {
            labels.insert(name.to_owned(), value);
        }
    }
}

fn hash_of(value: &Value) -> SpecHash {
    // Keys of a JSON object are sorted, so equal values have equal bytes.
    SpecHash(blake3::hash(value.to_string().as_bytes()).to_hex()[..32].to_owned())
}

/// The engine's name of an app's network.
pub(crate) fn network_key(app: &AppUuid, name: &NetworkName) -> NetworkKey {
    format!("{app}_{name}")
}

fn network(uuid: &AppUuid, app: AppId, name: &NetworkName, definition: &Value) -> TargetNetwork {
    let empty = Map::new();
    let fields = Fields(definition.as_object().unwrap_or(&empty));
    let mut ipam = None;
    if let Some(Value::Object(asked)) = fields.get("ipam") {
        let pools = asked.get("config").and_then(Value::as_array).cloned().unwrap_or_default();
        let pools = pools.iter().filter_map(Value::as_object).map(|pool| IpamPool {
            subnet: Fields(pool).text("subnet").unwrap_or_default(),
            gateway: Fields(pool).text("gateway").unwrap_or_default(),
            ip_range: Fields(pool).text("ip_range").unwrap_or_default(),
            ..IpamPool::default()
        });
        let config: Vec<_> = pools.collect();
        ipam = Some(Ipam { driver: "default".to_owned(), options: None, config });
    }
    let hash = hash_of(&json!({ "version": HASH_VERSION, "network": definition }));
    let mut labels = fields.map("labels");
    labels.extend([
        (labels::SUPERVISED.to_owned(), "true".to_owned()),
        (labels::APP_ID.to_owned(), app.to_string()),
        (labels::APP_UUID.to_owned(), uuid.to_string()),
        (HASH_LABEL.to_owned(), hash.0.clone()),
    ]);
    let body = CreateNetwork {
        name: network_key(uuid, name),
        check_duplicate: true,
        driver: fields.text("driver").unwrap_or_else(|| "bridge".to_owned()),
        internal: fields.truth("internal").unwrap_or(false),
        enable_ipv6: fields.truth("enable_ipv6").unwrap_or(false),
        ipam,
        options: fields.map("driver_opts"),
        labels,
        ..CreateNetwork::default()
    };
    TargetNetwork { hash, body: Arc::new(body) }
}

fn supervisor_network() -> TargetNetwork {
    let hash = hash_of(&json!({ "version": HASH_VERSION, "subnet": SUPERVISOR_SUBNET }));
    let pool = IpamPool {
        subnet: SUPERVISOR_SUBNET.to_owned(),
        gateway: SUPERVISOR_GATEWAY.to_owned(),
        ..IpamPool::default()
    };
    let bridge = ("com.docker.network.bridge.name".to_owned(), SUPERVISOR_NETWORK.to_owned());
    let labels = [
        (labels::SUPERVISED.to_owned(), "true".to_owned()),
        (HASH_LABEL.to_owned(), hash.0.clone()),
    ];
    let body = CreateNetwork {
        name: SUPERVISOR_NETWORK.to_owned(),
        check_duplicate: true,
        driver: "bridge".to_owned(),
        ipam: Some(Ipam { driver: "default".to_owned(), options: None, config: vec![pool] }),
        options: BTreeMap::from([bridge]),
        labels: labels.into(),
        ..CreateNetwork::default()
    };
    TargetNetwork { hash, body: Arc::new(body) }
}

fn volume(uuid: &AppUuid, app: AppId, name: &VolumeName, definition: &Value) -> Arc<CreateVolume> {
    let empty = Map::new();
    let fields = Fields(definition.as_object().unwrap_or(&empty));
    let mut labels = fields.map("labels");
    labels.extend([
        (labels::SUPERVISED.to_owned(), "true".to_owned()),
        (labels::APP_ID.to_owned(), app.to_string()),
        (labels::APP_UUID.to_owned(), uuid.to_string()),
    ]);
    Arc::new(CreateVolume {
        name: volumes::key(app, name),
        driver: fields.text("driver").unwrap_or_else(|| "local".to_owned()),
        driver_opts: fields.map("driver_opts"),
        labels,
    })
}

/// Every dependency exists and none leads back to itself.
fn check_dependencies(services: &BTreeMap<ServiceName, TargetService>) -> Result<(), String> {
    for (name, service) in services {
        if let Some(missing) = service.depends_on.keys().find(|on| !services.contains_key(*on)) {
            return Err(format!("service {name} needs service {missing}, which is not there"));
        }
    }
    let mut settled: BTreeSet<&ServiceName> = BTreeSet::new();
    while settled.len() < services.len() {
        let ready: Vec<_> = services
            .iter()
            .filter(|(name, service)| {
                !settled.contains(name) && service.depends_on.keys().all(|on| settled.contains(on))
            })
            .map(|(name, _)| name)
            .collect();
        if ready.is_empty() {
            let mut stuck = services.keys().filter(|name| !settled.contains(name));
            let name = stuck.next().map_or("", ServiceName::as_str);
            return Err(format!("service {name} needs itself, through those it depends on"));
        }
        settled.extend(ready);
    }
    Ok(())
}

/// A container in another's namespace has to be made anew with it.
fn mix_in_shared_namespaces(services: &mut BTreeMap<ServiceName, TargetService>) {
    // A chain is at most as long as there are services, and there is no cycle.
    for _ in 0..services.len() {
        let hashes: BTreeMap<_, _> =
            services.iter().map(|(name, service)| (name.clone(), service.hash.clone())).collect();
        let mut is_changed = false;
        for service in services.values_mut() {
            let Some(host) = service.shares_network_of.as_ref().and_then(|of| hashes.get(of))
            else {
                continue;
            };
            let own = service.hash.0.split('+').next().unwrap_or_default();
            let mixed = SpecHash(format!("{own}+{}", hash_of(&json!(host.0)).0));
            if mixed != service.hash {
                let mut body = (*service.body).clone();
                body.config.labels.insert(HASH_LABEL.to_owned(), mixed.0.clone());
                service.body = Arc::new(body);
                service.hash = mixed;
                is_changed = true;
            }
        }
        if !is_changed {
            return;
        }
    }
}
