//! Kernel parameters of containers: those of their own namespaces, and no others. One outside of them
//! would change the host, so it is refused by its name.

use std::collections::BTreeMap;
use std::path::Path;

use minke_engine_client::wire::{HostConfig, HostNetwork};

use crate::error::{Error, Result};

/// Those of an IPC namespace, beside everything below `fs.mqueue`.
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// What a container may do at once in a network of its own, as with Docker: programs of any user listen
/// at low ports, and all groups may ping.
const DEFAULTS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
/// The one that takes groups of the host's.
const PING: &str = "net.ipv4.ping_group_range";

/// Checks what is asked for.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    for name in host.sysctls.keys() {
        if let Some(why) = refusal(name, host) {
            return Err(Error::Invalid(format!("HostConfig.Sysctls: {name:?} {why}")));
        }
    }
    Ok(())
}

/// Why a parameter cannot be had; `None`: it can.
fn refusal(name: &str, host: &HostConfig) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@/".contains(&byte);
    // A slash stands for a point in names of interfaces; nothing may lead upwards.
    if !name.bytes().all(plain) || name.split(['.', '/']).any(str::is_empty) {
        return Some("is no name of a kernel parameter");
    }
    if OF_IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return (host.ipc_mode == "host")
            .then_some("is the host's, because the container shares the host's IPC namespace");
    }
    if name.starts_with("net.") {
        return (host.network() == HostNetwork::Host)
            .then_some("is the host's, because the container shares the host's network namespace");
    }
    match name {
        "kernel.domainname" if host.uts_mode == "host" => {
            Some("is the host's, because the container shares the host's UTS namespace")
        }
        "kernel.domainname" => None,
        "kernel.hostname" => Some("is set by Hostname"),
        _ => Some(
            "belongs to no namespace of the container: it may set kernel.msg*, kernel.sem, \
             kernel.shm*, fs.mqueue.* and net.*",
        ),
    }
}

/// The parameters of a container: what is asked for, on top of the defaults.
pub(super) fn of(host: &HostConfig, own_network: bool, mapped: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let defaults = DEFAULTS.iter().filter(|(name, _)| {
        // In a user namespace the range would be of groups that it does not have.
        let there = || Path::new("/proc/sys").join(name.replace('.', "/")).exists();
        own_network && !(mapped && *name == PING) && there()
    });
    all.extend(defaults.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all.extend(host.sysctls.clone());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, host: &str) -> bool {
        refusal(name, &serde_json::from_str(host).unwrap()).is_some()
    }

    #[test]
    fn only_parameters_of_the_containers_namespaces_may_be_set() {
        for name in ["kernel.shmmax", "kernel.sem", "fs.mqueue.msg_max", "net.ipv4.ip_forward"] {
            assert!(!refused(name, "{}"), "{name}");
        }
        for name in [
            "kernel.panic",
            "kernel.shmmax.x",
            "kernel.hostname",
            "vm.swappiness",
            "fs.file-max",
            "net",
            "network.x",
            "",
            "net..core",
            "net./../kernel/panic",
            "net.ipv4.conf.eth0/../../../../kernel.panic",
            "user.max_user_namespaces",
        ] {
            assert!(refused(name, "{}"), "{name}");
        }
    }

    #[test]
    fn a_shared_namespace_is_not_changed() {
        assert!(refused("net.ipv4.ip_forward", r#"{"NetworkMode":"host"}"#));
        assert!(refused("kernel.shmmax", r#"{"IpcMode":"host"}"#));
        assert!(refused("fs.mqueue.msg_max", r#"{"IpcMode":"host"}"#));
        assert!(!refused("kernel.domainname", "{}"));
        assert!(refused("kernel.domainname", r#"{"UTSMode":"host"}"#));
        assert!(!refused("net.core.somaxconn", r#"{"IpcMode":"host"}"#));
    }
}
