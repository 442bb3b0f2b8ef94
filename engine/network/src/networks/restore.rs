//! After a restart of the daemon, and at the end of an engine.

use super::Networks;
use crate::document::{Endpoint, NetworkRecord};
use crate::link::Links;
use crate::{NetworkError, firewall, netns};

impl Networks {
    /// Make the kernel as the documents say, after a restart of the daemon, a reboot, or a flushed
    /// ruleset. `is_running` tells which containers still run: the endpoints and namespaces of all
    /// others are given up. What runs is not interrupted.
    pub async fn restore(&self, is_running: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        let links = Links::here()?;
        let mut gone: Vec<Endpoint> = Vec::new();
        for mut record in self.list() {
            let before = record.endpoints.len();
            record.endpoints.retain(|container, endpoint| {
                let alive = is_running(container)
                    && self.namespace(container).is_ok_and(|n| netns::is_alive(&n.netns));
                if !alive {
                    gone.push(endpoint.clone());
                }
                alive
            });
            if record.endpoints.len() != before {
                self.store(&record)?;
            }
            self.give_way(&mut record, &links).await?;
            self.make(&record, &links).await?;
        }
        firewall::apply(&self.rebuild_script()).await?;
        for name in netns::names(&self.shared.namespaces) {
            let bare = |end: &str| name.strip_suffix(end);
            let container = bare(".dns").or(bare(".user")).unwrap_or(&name);
            if !is_running(container) {
                netns::remove(&self.shared.namespaces.join(&name))?;
            }
        }
        for endpoint in gone.iter().filter(|endpoint| !endpoint.host_interface.is_empty()) {
            links.delete(&endpoint.host_interface).await?;
        }
        Ok(())
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
                    note(links.delete(&record.bridge).await);
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
