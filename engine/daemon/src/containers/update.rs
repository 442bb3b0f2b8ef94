//! Changes containers: name, limits, restart policy.

use std::sync::Arc;

use minke_engine_client::wire::{Resources, UpdateContainer};
use minke_engine_network::NetworkError;
use minke_engine_runtime::limits;
use minke_engine_runtime::spec::{self, Facts};
use minke_engine_shim::cgroup;

use super::container::Container;
use super::{links, prepare, start, validate};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::names;

/// Gives a container another name; names in its networks follow.
pub(crate) async fn rename(daemon: &Daemon, container: &Arc<Container>, name: &str) -> Result<()> {
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() {
        return Err(Error::Invalid("Neither old nor new names may be empty".to_owned()));
    }
    names::check_container(name)?;
    let _turn = container.turn("renamed").await?;
    let old = container.name();
    daemon.containers.take_name(name, &container.id)?;
    let renamed = match rename_in_networks(daemon, container, name).await {
        Ok(()) => container.change_config(|config| name.clone_into(&mut config.name)),
        error => error,
    };
    if let Err(error) = renamed {
        if let Err(error) = rename_in_networks(daemon, container, &old).await {
            let (container, error) = (&container.id, error.message());
            tracing::warn!(container, error, "some of its networks may know it as {name}");
        }
        daemon.containers.release_name(name, &container.id);
        return Err(error);
    }
    // Both names are its own until no link has the old one.
    links::follow(daemon, &old, name);
    daemon.containers.release_name(&old, &container.id);
    let mut attributes = container.attributes();
    attributes.insert("oldName".to_owned(), format!("/{old}"));
    daemon.events.publish("container", "rename", &container.id, attributes);
    Ok(())
}

/// Calls a running container by this name in all its networks, and goes on where that fails; the first
/// error.
async fn rename_in_networks(daemon: &Daemon, container: &Container, name: &str) -> Result<()> {
    if !container.status().has_process() {
        return Ok(());
    }
    let networks: Vec<String> = container.lock().state.endpoints.keys().cloned().collect();
    let mut first = Ok(());
    for network in networks {
        let asked = container.lock().config.networks.get(&network).cloned();
        let names = start::dns_names(container, name, &asked.unwrap_or_default());
        match daemon.networks.rename(&container.id, &network, names).await {
            // Nobody can look for it in a network that is gone.
            Ok(()) | Err(NetworkError::NotFound(_) | NetworkError::NotAttached { .. }) => {}
            Err(error) => first = first.and(Err(error.into())),
        }
    }
    first
}

/// Takes a link to another container away; it is gone from the next start on.
pub(crate) async fn remove_link(container: &Container, alias: &str) -> Result<()> {
    let _turn = container.turn("changed").await?;
    let is_it = |link: &str| links::alias(link) == alias;
    if !container.lock().config.host_config.links.iter().any(|link| is_it(link)) {
        return Err(Error::NotFound(format!("No such link: {}/{alias}", container.name())));
    }
    container.change_config(|config| config.host_config.links.retain(|link| !is_it(link)))
}

/// Changes limits and restart policy; limits of a running container take effect at once.
pub(crate) async fn update(
    daemon: &Daemon,
    container: &Arc<Container>,
    body: UpdateContainer,
) -> Result<()> {
    let _turn = container.turn("updated").await?;
    let before = container.lock().config.host_config.clone();
    let mut resources = before.resources.clone();
    merge(&mut resources, &body.resources);
    validate::check_resources(&resources)?;
    let policy = body.restart_policy.filter(|policy| !policy.name.is_empty());
    if let Some(policy) = &policy {
        validate::check_policy(&policy.name, policy.maximum_retry_count)?;
        if before.auto_remove && policy.name != "no" {
            return Err(Error::Invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
                    .to_owned(),
            ));
        }
    }
    // Stored first: a disk without room is then found before the process has other limits.
    container.change_config(|config| {
        config.host_config.resources = resources.clone();
        if let Some(policy) = policy {
            config.host_config.restart_policy = policy;
        }
    })?;
    if container.status().has_process()
        && let Err(error) = apply(container, &resources)
    {
        container.change_config(|config| {
            config.host_config.resources = before.resources;
            config.host_config.restart_policy = before.restart_policy;
        })?;
        return Err(error);
    }
    daemon.events.publish("container", "update", &container.id, container.attributes());
    Ok(())
}

fn merge(own: &mut Resources, new: &Resources) {
    for (own, new) in [
        (&mut own.cpu_shares, new.cpu_shares),
        (&mut own.memory, new.memory),
        (&mut own.nano_cpus, new.nano_cpus),
        (&mut own.cpu_period, new.cpu_period),
        (&mut own.cpu_quota, new.cpu_quota),
        (&mut own.memory_reservation, new.memory_reservation),
        (&mut own.memory_swap, new.memory_swap),
    ] {
        if new != 0 {
            *own = new;
        }
    }
    for (own, new) in
        [(&mut own.cpuset_cpus, &new.cpuset_cpus), (&mut own.cpuset_mems, &new.cpuset_mems)]
    {
        if !new.is_empty() {
            new.clone_into(own);
        }
    }
    if new.pids_limit.is_some() {
        own.pids_limit = new.pids_limit;
    }
    if new.blkio_weight != 0 {
        own.blkio_weight = new.blkio_weight;
    }
    for (own, new) in [
        (&mut own.blkio_device_read_bps, &new.blkio_device_read_bps),
        (&mut own.blkio_device_write_bps, &new.blkio_device_write_bps),
        (&mut own.blkio_device_read_iops, &new.blkio_device_read_iops),
        (&mut own.blkio_device_write_iops, &new.blkio_device_write_iops),
    ] {
        if !new.is_empty() {
            new.clone_into(own);
        }
    }
    if !new.blkio_weight_device.is_empty() {
        new.blkio_weight_device.clone_into(&mut own.blkio_weight_device);
    }
}

/// Tells the kernel to let a container wait for memory, if that was asked for; the runtime's library
/// writes the opposite. Only cgroups of version 1 know it.
pub(super) fn keep_from_oom_killer(container: &Container) {
    if container.lock().config.host_config.resources.oom_kill_disable != Some(true) {
        return;
    }
    for directory in cgroup::listed(&container.shim_dir()) {
        let path = directory.join("memory.oom_control");
        if path.exists()
            && let Err(error) = std::fs::write(&path, "1")
        {
            tracing::warn!(path = %path.display(), %error, "OomKillDisable has no effect");
        }
    }
}

/// Writes limits into a running container's cgroups.
fn apply(container: &Container, limits: &Resources) -> Result<()> {
    let wanted = prepare::resources(limits);
    let facts = Facts::of_limits(&wanted);
    let doing = || format!("changing the limits of container {}", container.id);
    limits::change(&cgroup::listed(&container.shim_dir()), &spec::limits(&wanted, &facts)?)
        .map_err(Error::system(doing()))
}
