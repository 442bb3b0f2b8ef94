//! The networks of one engine: what is asked of them, done to documents and kernel.
//!
//! Order of every change: check, write the document, change the kernel. A crash in between is made good
//! by [`Networks::restore`], which takes the documents for the truth. Changes are made one at a time.

mod attach;
mod describe;
mod restore;
mod sharing;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use minke_engine_documents::{self as documents, Sync};

use crate::document::{NetworkOptions, NetworkRecord};
use crate::link::Links;
use crate::sysctl::{self, Uplinks};
use crate::{ForwardDrop, NetworkError, firewall, forward, names, netns};

/// Where a shim's name service listens in its container's namespace, at 127.0.0.11. Questions to port
/// 53 are led there: a port that no program uses, so that the container can have 53 for itself.
pub const NAME_SERVICE_PORT: u16 = 1011;

/// All networks of an engine. Cheap to clone.
#[derive(Clone)]
pub struct Networks {
    shared: Arc<Shared>,
}

struct Shared {
    /// `networks/` of the data directory.
    directory: PathBuf,
    /// `netns/` of the run directory.
    namespaces: PathBuf,
    engine: String,
    uplinks: Uplinks,
    records: Mutex<BTreeMap<String, NetworkRecord>>,
    /// Ids of networks that the kernel does not have as they should be: the last try failed.
    unmade: Mutex<BTreeSet<String>>,
    /// Held over every change.
    change: tokio::sync::Mutex<()>,
}

/// A container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// File that names it.
    pub netns: PathBuf,
    /// Sources file for the shim's name service; kept up to date by attaching and detaching.
    pub dns: PathBuf,
    /// File that names the user namespace which owns it; only where there is one.
    pub user: PathBuf,
}

impl Networks {
    /// Read the stored networks. Nothing is changed until [`restore`](Self::restore) is called.
    /// `engine` is a short id of plain characters that tells engines on one host apart.
    pub fn open(data: &Path, run: &Path, engine: &str) -> Result<Self, NetworkError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if engine.is_empty() || engine.len() > 32 || !engine.bytes().all(plain) {
            return Err(NetworkError::Invalid { what: "engine id", value: engine.to_owned() });
        }
        let directory = data.join("networks");
        fs::create_dir_all(&directory).map_err(|source| NetworkError::File {
            action: "making",
            path: directory.clone(),
            source,
        })?;
        let records = load(&directory)?;
        let shared = Shared {
            uplinks: Uplinks::new(directory.join("forwarding.json")),
            directory,
            namespaces: run.join("netns"),
            engine: engine.to_owned(),
            records: Mutex::new(records),
            unmade: Mutex::default(),
            change: tokio::sync::Mutex::new(()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, NetworkRecord>> {
        self.shared.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unmade(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.shared.unmade.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All networks, oldest first.
    pub fn list(&self) -> Vec<NetworkRecord> {
        let mut list: Vec<_> = self.records().values().cloned().collect();
        list.sort_by_key(|record| record.created_at);
        list
    }

    /// A network by its id, its name, or the beginning of its id.
    pub fn get(&self, name: &str) -> Result<NetworkRecord, NetworkError> {
        let records = self.records();
        if let Some(record) =
            records.get(name).or_else(|| records.values().find(|r| r.name == name))
        {
            return Ok(record.clone());
        }
        let mut found = records.values().filter(|r| !name.is_empty() && r.id.starts_with(name));
        match (found.next(), found.count()) {
            (None, _) => Err(NetworkError::NotFound(name.to_owned())),
            (Some(record), 0) => Ok(record.clone()),
            (Some(_), more) => {
                Err(NetworkError::Ambiguous { name: name.to_owned(), count: more + 1 })
            }
        }
    }

    /// Make a network and its bridge.
    pub async fn create(&self, options: NetworkOptions) -> Result<NetworkRecord, NetworkError> {
        let _change = self.shared.change.lock().await;
        if self.records().values().any(|record| record.name == options.name) {
            return Err(NetworkError::NameInUse(options.name));
        }
        let links = Links::here()?;
        let record = self.describe(options, &links).await?;
        if let Some(parent) = &record.parent {
            describe::check_mode(parent)?;
            sharing::try_out(&links, parent, &record.id).await?;
        }
        let made = match self.store(&record).and_then(|()| self.keep(&record.id)) {
            Ok(()) => self.make(&record, &links).await,
            error => error,
        };
        let made = match made {
            Ok(()) => firewall::apply(&self.rebuild_script()).await,
            error => error,
        };
        if let Err(error) = made {
            // A network that cannot be made must not come back at the next start.
            let _ = self.erase(&record.id);
            if let Some(bridge) = record.own_link() {
                let _ = links.delete_bridge(bridge).await;
            }
            return Err(error);
        }
        Ok(record)
    }

    /// Make the kernel have a network's bridge, whatever is there already. What fails is tried again when
    /// a container enters.
    async fn make(&self, record: &NetworkRecord, links: &Links) -> Result<(), NetworkError> {
        let made = self.make_bridge(record, links).await;
        match &made {
            Ok(()) => self.unmade().remove(&record.id),
            Err(_) => self.unmade().insert(record.id.clone()),
        };
        made
    }

    async fn make_bridge(&self, record: &NetworkRecord, links: &Links) -> Result<(), NetworkError> {
        if record.parent.is_some() {
            return self.write_names(record);
        }
        let bridge = &record.bridge;
        let mac = mac_of(record.gateway);
        let index = links.ensure_bridge(bridge, mac, record.mtu).await?;
        let prefix = record.subnet.prefix();
        links.ensure_address(bridge, index, record.gateway.into(), prefix).await?;
        match &record.v6 {
            Some(pool) => {
                let enabled = match record.borrowed {
                    true => sysctl::allow_ipv6(bridge),
                    false => sysctl::with_ipv6(bridge),
                };
                enabled.map_err(NetworkError::enabling_ipv6(bridge))?;
                let gateway = pool.gateway.into();
                links.ensure_address(bridge, index, gateway, pool.subnet.prefix()).await?;
            }
            // The host's own bridge may have addresses of its own, which this would take from it.
            None if record.borrowed => {}
            None => sysctl::without_ipv6(bridge),
        }
        links.set_up(bridge).await?;
        sysctl::set(bridge, "route_localnet", "1")?;
        if record.v6.is_some() {
            links.ensure_localnet6(bridge, index).await?;
        }
        if !record.internal {
            sysctl::set(bridge, "forwarding", "1")?;
            self.forward_uplinks(links).await?;
            if record.v6.is_some() {
                self.forward6(bridge, links).await?;
            }
        }
        self.write_names(record)
    }

    /// Let packets that come in from outside be forwarded, unless the host does so anyway.
    async fn forward_uplinks(&self, links: &Links) -> Result<(), NetworkError> {
        if sysctl::forwards_globally() {
            return Ok(());
        }
        let default = links.routes().await?.default_links;
        let uplinks = self.uplinks(links, &default).await?;
        self.shared.uplinks.forward(&uplinks)
    }

    async fn forward6(&self, bridge: &str, links: &Links) -> Result<(), NetworkError> {
        if sysctl::forwards6_globally() {
            return Ok(());
        }
        let default = links.routes().await?.default_links6;
        let uplinks = self.uplinks(links, &default).await?;
        self.shared.uplinks.forward6(bridge, &uplinks)
    }

    /// The host's links to others.
    async fn uplinks(&self, links: &Links, default: &[u32]) -> Result<Vec<String>, NetworkError> {
        let ours: Vec<String> = self.records().values().map(|r| r.bridge.clone()).collect();
        let links = links.list().await?.into_iter();
        Ok(links
            .filter(|link| link.up && !link.loopback && !ours.contains(&link.name))
            .filter(|link| default.contains(&link.index) || !(link.bridge || link.veth))
            .map(|link| link.name)
            .collect())
    }

    /// Remove a network that no container is in.
    pub async fn remove(&self, name: &str) -> Result<NetworkRecord, NetworkError> {
        let _change = self.shared.change.lock().await;
        let record = self.get(name)?;
        if !record.endpoints.is_empty() {
            let containers: Vec<&str> =
                record.endpoints.keys().map(|id| &id[..id.len().min(12)]).collect();
            let containers = containers.join(", ");
            return Err(NetworkError::InUse { name: record.name, containers });
        }
        self.erase(&record.id)?;
        firewall::apply(&self.rebuild_script()).await?;
        if let Some(bridge) = record.own_link() {
            Links::here()?.delete_bridge(bridge).await?;
        }
        Ok(record)
    }

    /// Make a namespace for a container, with its loopback up. `upstreams`: where names that are no
    /// container's are looked up as long as it is in a network with a way out; empty: where the host looks
    /// them up.
    pub async fn make_namespace(
        &self,
        container: &str,
        upstreams: &[SocketAddr],
    ) -> Result<Namespace, NetworkError> {
        let namespace = self.namespace(container)?;
        netns::create(&namespace.netns)?;
        self.fill_namespace(namespace, upstreams).await
    }

    /// As [`Networks::make_namespace`], but `make` makes it, and mounts it at [`Namespace::netns`]: for
    /// one that a user namespace owns, which it keeps at [`Namespace::user`].
    pub async fn make_namespace_by(
        &self,
        container: &str,
        upstreams: &[SocketAddr],
        make: impl FnOnce(&Namespace) -> std::io::Result<()>,
    ) -> Result<Namespace, NetworkError> {
        let namespace = self.namespace(container)?;
        netns::remove(&namespace.user)?;
        netns::create_by(&namespace.netns, || make(&namespace))?;
        self.fill_namespace(namespace, upstreams).await
    }

    /// Let `make` keep a user namespace at [`Namespace::user`] of a container that has no network of its
    /// own. [`Networks::release`] gives it up.
    pub fn make_user_namespace_by(
        &self,
        container: &str,
        make: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<(), NetworkError> {
        let path = self.namespace(container)?.user;
        netns::prepare(&path)?;
        make(&path).map_err(|source| NetworkError::Namespace { action: "making", path, source })
    }

    async fn fill_namespace(
        &self,
        namespace: Namespace,
        upstreams: &[SocketAddr],
    ) -> Result<Namespace, NetworkError> {
        Links::inside(&namespace.netns)?.set_up("lo").await?;
        sources::begin(&namespace.dns, upstreams)?;
        Ok(namespace)
    }

    /// Where a container's namespace is or would be.
    pub fn namespace(&self, container: &str) -> Result<Namespace, NetworkError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if container.is_empty() || container.len() > 128 || !container.bytes().all(plain) {
            let value = container.to_owned();
            return Err(NetworkError::Invalid { what: "container id", value });
        }
        let netns = self.shared.namespaces.join(container);
        let dns = self.shared.namespaces.join(format!("{container}.dns"));
        let user = self.shared.namespaces.join(format!("{container}.user"));
        Ok(Namespace { netns, dns, user })
    }

    /// Look for a firewall of the host that drops our traffic. Costs a few milliseconds.
    pub async fn detect_forward_drop(&self) -> Option<ForwardDrop> {
        forward::detect().await
    }

    fn rebuild_script(&self) -> String {
        let uplinks = self.shared.uplinks.changed();
        firewall::rebuild_script(&self.shared.engine, self.records().values(), &uplinks)
    }

    fn document_path(&self, id: &str) -> PathBuf {
        self.shared.directory.join(id).join("network.json")
    }

    fn names_path(&self, id: &str) -> PathBuf {
        self.shared.directory.join(id).join("names")
    }

    fn write_names(&self, record: &NetworkRecord) -> Result<(), NetworkError> {
        names::replace(&self.names_path(&record.id), &names::text(record))
    }

    /// Store a record on disk and in memory.
    fn store(&self, record: &NetworkRecord) -> Result<(), NetworkError> {
        let path = self.document_path(&record.id);
        let directory = self.shared.directory.join(&record.id);
        fs::create_dir_all(&directory).map_err(|source| NetworkError::File {
            action: "making",
            path: directory,
            source,
        })?;
        // What it says of containers is found out again: that it is this version need not be sure.
        documents::print(record)
            .and_then(|bytes| documents::replace(&path, &bytes, Sync::OldOrNew))
            .map_err(NetworkError::file("writing", &path))?;
        self.records().insert(record.id.clone(), record.clone());
        Ok(())
    }

    /// Writes the document of a network again whose own is damaged, if the network is known.
    pub async fn write_again(&self, id: &str) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        self.store(&self.get(id)?)
    }

    /// Make a record that is new outlive a power cut. Later versions of it need not: what they say of
    /// containers is found out again.
    fn keep(&self, id: &str) -> Result<(), NetworkError> {
        self.sync(&self.shared.directory.join(id))?;
        self.sync(&self.shared.directory)
    }

    fn sync(&self, directory: &Path) -> Result<(), NetworkError> {
        documents::sync_directory(directory).map_err(NetworkError::file("syncing", directory))
    }

    /// Forget a record on disk and in memory.
    fn erase(&self, id: &str) -> Result<(), NetworkError> {
        self.records().remove(id);
        self.unmade().remove(id);
        let path = self.shared.directory.join(id);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(NetworkError::File { action: "removing", path, source })
            }
            _ => self.sync(&self.shared.directory),
        }
    }
}

fn load(directory: &Path) -> Result<BTreeMap<String, NetworkRecord>, NetworkError> {
    let failed = |source| NetworkError::File { action: "reading", path: directory.into(), source };
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)?.flatten() {
        let path = entry.path().join("network.json");
        // A directory without a document is one whose creation or removal was cut off.
        let Ok(text) = fs::read(&path) else { continue };
        match documents::parse::<NetworkRecord>(&text) {
            Ok(record) => drop(records.insert(record.id.clone(), record)),
            // One that a disk has spoiled must not keep all others from working.
            Err(error) => tracing::error!(path = %path.display(), %error, "a network is lost"),
        }
    }
    Ok(records)
}

/// A locally administered address that belongs to an IP address: whoever gets the address next has the
/// same one, so no neighbour's cache is wrong.
fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// 64 hex digits.
fn random_id() -> String {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 32];
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn milliseconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
