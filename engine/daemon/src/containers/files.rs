//! The files that the engine gives to a container: hosts, hostname and resolv.conf.

use std::net::IpAddr;

use minke_engine_client::wire::{ContainerConfig, HostConfig};

/// Where a container finds its shim's name service.
const NAME_SERVICE: &str = "127.0.0.11";

/// The text of `/etc/hosts`. `own` are the container's addresses.
pub(super) fn hosts(
    config: &ContainerConfig,
    host: &HostConfig,
    own: &[String],
    gateway: Option<&str>,
    links: &[(String, String)],
) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let mut line = |address: &str, name: &str| {
        text.push_str(address);
        text.push('\t');
        text.push_str(name);
        text.push('\n');
    };
    for entry in &host.extra_hosts {
        let Some((name, address)) = entry.split_once(['=', ':']) else { continue };
        match (address, gateway) {
            ("host-gateway", Some(gateway)) => line(gateway, name),
            ("host-gateway", None) => line("127.0.0.1", name),
            _ => line(address, name),
        }
    }
    for (address, name) in links {
        line(address, name);
    }
    let name = match config.domainname.as_str() {
        "" => config.hostname.clone(),
        domain => format!("{}.{domain}\t{}", config.hostname, config.hostname),
    };
    for address in own {
        line(address, &name);
    }
    text
}

/// The host's resolver configuration as far as it can be used in a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostResolver {
    /// Without those that only the host itself can reach.
    pub(super) servers: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) options: Vec<String>,
}

impl HostResolver {
    pub(super) fn parse(text: &str) -> HostResolver {
        let mut resolver = HostResolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let usable = |server: &&str| {
                        let address = server.split('%').next().unwrap_or_default();
                        address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
                    };
                    resolver.servers.extend(words.next().filter(usable).map(str::to_owned));
                }
                Some("search" | "domain") => {
                    resolver.search = words.map(str::to_owned).collect();
                }
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }
}

/// The text of `/etc/resolv.conf`. `named`: container names must resolve, so the name service is asked.
pub(super) fn resolv_conf(host: &HostConfig, resolver: &HostResolver, named: bool) -> String {
    let servers = match (named, host.dns.is_empty()) {
        (true, _) => vec![NAME_SERVICE.to_owned()],
        (false, true) => resolver.servers.clone(),
        (false, false) => host.dns.clone(),
    };
    let search = match host.dns_search.as_slice() {
        [] => resolver.search.clone(),
        [dot] if dot == "." => Vec::new(),
        given => given.to_vec(),
    };
    let mut options = match host.dns_options.as_slice() {
        [] => resolver.options.clone(),
        given => given.to_vec(),
    };
    if named && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (word, list) in [("search", search), ("options", options)] {
        if !list.is_empty() {
            text.push_str(&format!("{word} {}\n", list.join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_resolver_is_of_no_use_in_a_container() {
        let resolver = HostResolver::parse(
            "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch lan home\noptions edns0\n",
        );
        assert_eq!(resolver.servers, ["10.0.0.1"]);
        let host = HostConfig::default();
        assert_eq!(
            resolv_conf(&host, &resolver, false),
            "nameserver 10.0.0.1\nsearch lan home\noptions edns0\n"
        );
        assert_eq!(
            resolv_conf(&host, &resolver, true),
            "nameserver 127.0.0.11\nsearch lan home\noptions edns0 ndots:0\n"
        );
        let own = HostConfig {
            dns: vec!["9.9.9.9".to_owned()],
            dns_search: vec![".".to_owned()],
            dns_options: vec!["ndots:2".to_owned()],
            ..HostConfig::default()
        };
        assert_eq!(resolv_conf(&own, &resolver, false), "nameserver 9.9.9.9\noptions ndots:2\n");
    }

    #[test]
    fn hosts_has_own_extra_and_linked_names() {
        let config = ContainerConfig { hostname: "web".to_owned(), ..ContainerConfig::default() };
        let host = HostConfig {
            extra_hosts: vec!["db:10.0.0.9".to_owned(), "up=host-gateway".to_owned()],
            ..HostConfig::default()
        };
        let links = [("10.0.0.3".to_owned(), "cache".to_owned())];
        let text = hosts(&config, &host, &["10.0.0.2".to_owned()], Some("10.0.0.1"), &links);
        let tail: Vec<_> = text.lines().skip(6).collect();
        assert_eq!(tail, ["10.0.0.9\tdb", "10.0.0.1\tup", "10.0.0.3\tcache", "10.0.0.2\tweb"]);
    }
}
