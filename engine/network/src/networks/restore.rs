//! After a restart of the daemon, and at the end of an engine.

use std::collections::BTreeSet;
use std::error::Error as _;

use super::Networks;
use crate::document::{Endpoint, NetworkRecord};
use crate::link::Links;
use crate::{NetworkError, firewall, netns};

impl Networks {
    /// Make the kernel as the documents say, after a restart of the daemon, a reboot, or a flushed
    /// ruleset. `is_running` tells which containers still run: the endpoints and namespaces of all
    /// others are given up. What runs is not interrupted.
    ///
    /// A network that cannot be made is told of and left: it must not keep the others from working.
    pub async fn restore(&self, is_running: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        let links = Links::here()?;
        let mut gone: Vec<Endpoint> = Vec::new();
        for mut record in self.list() {
            gone.append(&mut self.forget_ended(&mut record, &is_running));
            let made = match self.give_way(&mut record, &links).await {
                Ok(()) => self.make(&record, &links).await,
                error => error,
            };
            if let Err(error) = made {
                tracing::error!(network = record.name, error = chain(&error), "cannot be made");
            }
        }
        firewall::apply(&self.rebuild_script()).await?;
        self.sweep_namespaces(&is_running);
        self.renew_sources();
        for endpoint in gone.iter().filter(|endpoint| !endpoint.host_interface.is_empty()) {
            if let Err(error) = links.delete(&endpoint.host_interface).await {
                tracing::warn!(link = endpoint.host_interface, error = chain(&error), "it stays");
            }
        }
        Ok(())
    }

    /// Give up the endpoints of containers that do not run any more, and return them.
    fn forget_ended(
        &self,
        record: &mut NetworkRecord,
        is_running: impl Fn(&str) -> bool,
    ) -> Vec<Endpoint> {
        let mut gone = Vec::new();
        record.endpoints.retain(|container, endpoint| {
            let alive = is_running(container)
                && self.namespace(container).is_ok_and(|n| netns::is_alive(&n.netns));
            if !alive {
                gone.push(endpoint.clone());
            }
            alive
        });
        if !gone.is_empty()
            && let Err(error) = self.store(record)
        {
            // The next start finds out by itself; what is in memory must be right now.
            self.records().insert(record.id.clone(), record.clone());
            tracing::warn!(network = record.name, error = chain(&error), "its document is old");
        }
        gone
    }

    /// Remove the namespaces and sources of containers that do not run any more.
    fn sweep_namespaces(&self, is_running: impl Fn(&str) -> bool) {
        for name in netns::names(&self.shared.namespaces) {
            let bare = |end: &str| name.strip_suffix(end);
            let container = bare(".dns").or(bare(".user")).unwrap_or(&name);
            if !is_running(container)
                && let Err(error) = netns::remove(&self.shared.namespaces.join(&name))
            {
                tracing::warn!(namespace = name, error = chain(&error), "it stays");
            }
        }
    }

    /// Bring the sources files of running containers up to date: one that an earlier version wrote lets
    /// containers of internal networks ask servers outside.
    fn renew_sources(&self) {
        let records: Vec<_> = self.list();
        let containers: BTreeSet<&String> =
            records.iter().flat_map(|record| record.endpoints.keys()).collect();
        for container in containers {
            if let Err(error) = self.write_sources(container) {
                tracing::error!(container, error = chain(&error), "its name service is not told");
            }
        }
    }

    /// A subnet that nobody asked for is given up when the host has come to need it, if no container
    /// has an address of it.
    async fn give_way(
        &self,
        record: &mut NetworkRecord,
        links: &Links,
    ) -> Result<(), NetworkError> {
        if !record.chosen || !record.endpoints.is_empty() || record.parent.is_some() {
            return Ok(());
        }
        // The bridge's own route would be in the way.
        if links.index(&record.bridge).await?.is_some() {
            return Ok(());
        }
        let routes = links.routes().await?;
        if routes.subnets.iter().any(|route| route.overlaps(record.subnet)) {
            record.subnet = self.choose_subnet(None, &routes, false)?;
            record.gateway = record.subnet.first_host();
            record.reserved.retain(|_, address| address.is_ipv6());
            self.store(record)?;
        }
        Ok(())
    }

    /// Remove every trace: links, table, namespaces, changed parameters, documents. No container may
    /// run any more. Goes on after a failure and reports the first.
    pub async fn destroy_all(&self) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        let mut first = Ok(());
        let mut note = |result: Result<(), NetworkError>| {
            if first.is_ok() {
                first = result;
            }
        };
        let records = self.list();
        match Links::here() {
            Ok(links) => {
                for record in &records {
                    if record.parent.is_some() {
                        continue;
                    }
                    for endpoint in record.endpoints.values() {
                        note(links.delete(&endpoint.host_interface).await);
                    }
                    if let Some(bridge) = record.own_link() {
                        note(links.delete_bridge(bridge).await);
                    }
                }
            }
            Err(error) => note(Err(error)),
        }
        note(firewall::apply(&firewall::remove_script(&self.shared.engine)).await);
        for name in netns::names(&self.shared.namespaces) {
            note(netns::remove(&self.shared.namespaces.join(name)));
        }
        note(netns::remove_directory(&self.shared.namespaces));
        note(self.shared.uplinks.restore());
        for record in &records {
            note(self.erase(&record.id));
        }
        first
    }
}

/// An error with its causes: the log is the only place that hears of it.
fn chain(error: &NetworkError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
