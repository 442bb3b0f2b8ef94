//! Links between containers of the default network: names in the hosts file and variables in the
//! environment, as Docker made them before networks had names.

use minke_engine_client::wire::{EndpointSettings, HostConfig, HostNetwork};

use super::container::{Cell, Container};
use super::ports;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// The only network whose containers links join.
const NETWORK: &str = "bridge";

/// The name that a link `container[:alias]` gives to the other container.
pub(super) fn alias(link: &str) -> &str {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    let alias = if alias.is_empty() { name } else { alias };
    alias.rsplit('/').next().unwrap_or(alias)
}

/// Refuses links to nobody. In networks that were made, the other container may come later.
pub(super) fn check(daemon: &Daemon, host: &HostConfig) -> Result<()> {
    let mode = match host.network() {
        HostNetwork::Named(_) => return Ok(()),
        HostNetwork::Host => "host type networking",
        HostNetwork::Container(_) => "container type network",
        _ => "",
    };
    if !mode.is_empty() && !host.links.is_empty() {
        return Err(Error::Invalid(format!(
            "conflicting options: {mode} can't be used with links. This would result in undefined behavior"
        )));
    }
    for link in &host.links {
        let name = target(link);
        if name.is_empty() || link.split(':').count() > 2 {
            return Err(Error::Invalid(format!("bad format for links: {link}")));
        }
        daemon.containers.find(name).map_err(|error| {
            Error::Invalid(format!("could not get container for {name}: {}", error.message()))
        })?;
    }
    Ok(())
}

/// The links of a container's places in networks, as its name service knows them: a name, and the
/// other container's. They hold also when the other comes later.
pub(super) fn aliases<'a>(
    networks: impl Iterator<Item = &'a EndpointSettings>,
) -> Vec<(String, String)> {
    let links = networks.flat_map(|endpoint| endpoint.links.iter().flatten());
    links.map(|link| (alias(link).to_owned(), target(link).to_owned())).collect()
}

fn target(link: &str) -> &str {
    link.split(':').next().unwrap_or_default()
}

/// Has links lead on to a container whose name changes. Those of networks that were made go by names
/// alone, and stay.
pub(super) fn follow(daemon: &Daemon, old: &str, new: &str) {
    let is_linked = |container: &Container| {
        let host = &container.lock().config.host_config;
        !matches!(host.network(), HostNetwork::Named(_))
            && host.links.iter().any(|link| leads_to(link, old))
    };
    for container in daemon.containers.all() {
        if !is_linked(&container) || container.check_stays("changed").is_err() {
            continue;
        }
        let changed = container.change_config(|config| {
            let links = &mut config.host_config.links;
            for link in links.iter_mut().filter(|link| leads_to(link, old)) {
                *link = led_to(link, new);
            }
        });
        if let Err(error) = changed {
            tracing::warn!(
                container = container.id,
                error = error.message(),
                "a link of the container still has the name that {old} had until it became {new}"
            );
        }
    }
}

fn leads_to(link: &str, name: &str) -> bool {
    let target = target(link);
    target.strip_prefix('/').unwrap_or(target) == name
}

/// A link with another target; what it is called stays.
fn led_to(link: &str, name: &str) -> String {
    format!("{name}:{}", alias(link))
}

/// Refuses to start a container somebody asks for while one that it is linked to does not run. A link to one
/// that is gone went with it.
pub(super) fn check_running(daemon: &Daemon, own: &str, host: &HostConfig) -> Result<()> {
    if matches!(host.network(), HostNetwork::Named(_)) {
        return Ok(());
    }
    for link in &host.links {
        let Ok(other) = daemon.containers.find(target(link)) else { continue };
        if !other.status().has_process() {
            return Err(Error::Conflict(format!(
                "Cannot link to a non running container: /{} AS /{own}/{}",
                other.name(),
                alias(link)
            )));
        }
    }
    Ok(())
}

/// The place of a container that runs in the network of links.
fn endpoint(cell: &Cell) -> Option<&EndpointSettings> {
    // What it had is kept after its end, and may be another's by now.
    let running = cell.state.status.has_process();
    cell.state.endpoints.get(NETWORK).filter(|_| running)
}

/// Address, and alias and name, of every linked container that runs.
pub(super) fn hosts(daemon: &Daemon, links: &[String]) -> Vec<(String, String)> {
    let found = links.iter().filter_map(|link| {
        let other = daemon.containers.find(target(link)).ok()?;
        let cell = other.lock();
        let endpoint = endpoint(&cell)?;
        Some((endpoint.ip_address.clone(), format!("{} {}", alias(link), cell.config.name)))
    });
    found.collect()
}

/// A linked container, as far as variables tell of it.
struct Linked {
    address: String,
    /// `80` and `tcp`, lowest first.
    ports: Vec<(u16, String)>,
    env: Vec<String>,
}

/// The variables that tell `own` (a container's name) of its links.
pub(super) fn variables(daemon: &Daemon, own: &str, links: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for link in links {
        let Ok(other) = daemon.containers.find(target(link)) else { continue };
        let cell = other.lock();
        let Some(endpoint) = endpoint(&cell) else { continue };
        let exposed = cell.config.config.exposed_ports.keys();
        let mut exposed: Vec<_> = exposed
            .filter_map(|key| {
                let protocol = key.split_once('/').map_or("tcp", |(_, protocol)| protocol);
                Some((ports::parse_port(key).ok()?.0, protocol.to_owned()))
            })
            .collect();
        exposed.sort();
        let linked = Linked {
            address: endpoint.ip_address.clone(),
            ports: exposed,
            env: cell.config.config.env.clone(),
        };
        all.extend(describe(own, alias(link), &linked));
    }
    all
}

fn describe(own: &str, alias: &str, linked: &Linked) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let address = &linked.address;
    let mut all = vec![format!("{prefix}_NAME=/{own}/{alias}")];
    if let Some((port, protocol)) = linked.ports.first() {
        all.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in &linked.ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        all.push(format!("{name}={protocol}://{address}:{port}"));
        all.push(format!("{name}_ADDR={address}"));
        all.push(format!("{name}_PORT={port}"));
        all.push(format!("{name}_PROTO={protocol}"));
    }
    for variable in &linked.env {
        match variable.split_once('=') {
            Some(("HOME" | "PATH", _)) | None => {}
            Some((name, value)) => all.push(format!("{prefix}_ENV_{name}={value}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_an_alias() {
        assert_eq!((alias("db"), alias("db:main"), alias("/db:/web/main")), ("db", "main", "main"));
        assert_eq!(target("db:main"), "db");
    }

    #[test]
    fn a_link_keeps_its_alias_when_its_target_gets_another_name() {
        for (link, led) in
            [("db", "db2:db"), ("db:", "db2:db"), ("db:main", "db2:main"), ("/db:/web/x", "db2:x")]
        {
            assert!(leads_to(link, "db") && !leads_to(link, "d"), "{link}");
            assert_eq!(led_to(link, "db2"), led);
            assert_eq!(alias(led), alias(link));
        }
    }

    #[test]
    fn variables_tell_name_ports_and_environment() {
        let linked = Linked {
            address: "10.0.0.2".to_owned(),
            ports: vec![(80, "tcp".to_owned())],
            env: vec!["A=1".to_owned(), "PATH=/bin".to_owned()],
        };
        assert_eq!(
            describe("web", "my-db", &linked),
            [
                "MY_DB_NAME=/web/my-db",
                "MY_DB_PORT=tcp://10.0.0.2:80",
                "MY_DB_PORT_80_TCP=tcp://10.0.0.2:80",
                "MY_DB_PORT_80_TCP_ADDR=10.0.0.2",
                "MY_DB_PORT_80_TCP_PORT=80",
                "MY_DB_PORT_80_TCP_PROTO=tcp",
                "MY_DB_ENV_A=1",
            ]
        );
    }
}
