//! Names of containers and upstream servers, as files: written by the daemon, read by every shim.
//!
//! The *sources* file of a container has lines `names <path>` (one per network that it is in),
//! `resolv <path>` (a resolv.conf whose servers are asked, whichever it names now), `upstream <address>`
//! or `upstream <address>:<port>` (asked while that file names none), best first, and
//! `alias <name> <other name>`: a name that this container alone has for another. A *names* file has
//! lines `<address> <name>…` as a hosts file; a name may stand on several lines. Both are replaced by
//! rename.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Most lines of a file that are read.
pub const MAX_LINES: usize = 4096;

/// Most servers of a resolv.conf that are asked.
const MAX_SERVERS: usize = 8;

/// A parsed sources file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Names files.
    pub names: Vec<PathBuf>,
    /// The resolv.conf that says which servers to ask for everything else.
    pub resolv: Option<PathBuf>,
    /// Servers to ask while that file names none.
    pub upstreams: Vec<SocketAddr>,
    /// A name, and what it is called in the names files.
    pub aliases: Vec<(String, String)>,
}

impl Sources {
    /// Read a sources file; lines that are not understood are skipped.
    pub fn parse(text: &str) -> Self {
        let mut sources = Self::default();
        for line in text.lines().take(MAX_LINES) {
            match line.split_once(' ') {
                Some(("names", path)) => sources.names.push(PathBuf::from(path)),
                Some(("resolv", path)) => sources.resolv = Some(PathBuf::from(path)),
                Some(("upstream", server)) => {
                    let plain = server.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
                    sources.upstreams.extend(plain.or_else(|_| server.parse()));
                }
                Some(("alias", pair)) => {
                    let pair = pair.split_once(' ');
                    sources.aliases.extend(pair.map(|(a, b)| (a.to_owned(), b.to_owned())));
                }
                _ => {}
            }
        }
        sources
    }

    /// What a name is called in the names files.
    pub fn target<'a>(&'a self, name: &'a str) -> &'a str {
        let known = self.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        known.map_or(name, |(_, target)| target)
    }

    /// The text of a sources file.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for path in &self.names {
            text.push_str("names ");
            text.push_str(&path.to_string_lossy());
            text.push('\n');
        }
        if let Some(path) = &self.resolv {
            text.push_str(&format!("resolv {}\n", path.to_string_lossy()));
        }
        for server in &self.upstreams {
            text.push_str("upstream ");
            text.push_str(&server.to_string());
            text.push('\n');
        }
        for (alias, target) in &self.aliases {
            text.push_str(&format!("alias {alias} {target}\n"));
        }
        text
    }
}

/// The servers that a resolv.conf names. One on loopback counts: questions are sent from the host.
pub fn servers(resolv: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())?
    };
    let found = resolv.lines().take(MAX_LINES).filter_map(of_line);
    found.map(|address| SocketAddr::new(address, 53)).take(MAX_SERVERS).collect()
}

/// Addresses of a name in a names file; letter case does not count.
pub fn addresses(names: &str, name: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    names.lines().take(MAX_LINES).filter_map(of_line).collect()
}

/// First name of an address in a names file.
pub fn name_of(names: &str, address: IpAddr) -> Option<&str> {
    names.lines().take(MAX_LINES).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()?.parse() == Ok(address)).then(|| words.next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_several_addresses() {
        let text = "10.0.0.2 web api\n\nbad line\n10.0.0.3 API web.net\n";
        assert_eq!(addresses(text, "Api").len(), 2);
        assert_eq!(addresses(text, "web"), [IpAddr::from([10, 0, 0, 2])]);
        assert!(addresses(text, "10.0.0.2").is_empty());
        assert_eq!(name_of(text, IpAddr::from([10, 0, 0, 3])), Some("API"));
    }

    #[test]
    fn servers_of_a_resolv_conf_are_read() {
        let text =
            "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.1\nnameserver ::1\nnameserver x\n";
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
    }

    #[test]
    fn sources_round_trip() {
        let text = "names /a b/names\nresolv /etc/x\nupstream 10.0.0.1\nupstream [::1]:5353\nother\n\
                    held-upstream 10.0.0.2\nalias db Db_1\n";
        let sources = Sources::parse(text);
        assert_eq!(sources.upstreams[0], "10.0.0.1:53".parse().unwrap());
        assert_eq!(
            (sources.upstreams.len(), sources.resolv.as_deref()),
            (2, Some("/etc/x".as_ref()))
        );
        assert_eq!(sources.names, [PathBuf::from("/a b/names")]);
        assert_eq!((sources.target("DB"), sources.target("web")), ("Db_1", "web"));
        assert_eq!(Sources::parse(&sources.print()), sources);
    }
}
