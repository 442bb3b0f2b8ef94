//! Kernel parameters that forwarding needs, and their restoration.
//!
//! The global `ip_forward` is never written. Packets are forwarded if the interface that they come in
//! on forwards: our bridges (which vanish with us) and the host's uplinks, whose former values are kept
//! on disk before they are changed. So it is with IPv6 where the kernel can (6.17 and later).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use minke_engine_documents::{self as documents, Sync};

use crate::NetworkError;

fn parameter(interface: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join(name)
}

fn parameter6(interface: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv6/conf").join(interface).join(name)
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::File { action, path: path.into(), source }
}

/// Set a parameter of one of our own links.
pub(crate) fn set(interface: &str, name: &str, value: &str) -> Result<(), NetworkError> {
    let path = parameter(interface, name);
    fs::write(&path, value).map_err(failed("writing", &path))
}

/// No IPv6 on one of our own links; no error where the kernel has none.
pub(crate) fn without_ipv6(interface: &str) {
    let _ = fs::write(parameter6(interface, "disable_ipv6"), "1");
}

/// IPv6 on one of our own links, with addresses that are given to it and none of its own making.
pub(crate) fn with_ipv6(interface: &str) -> io::Result<()> {
    fs::write(parameter6(interface, "accept_ra"), "0")?;
    allow_ipv6(interface)
}

/// IPv6 on a link of the host, which goes on to find addresses as it did.
pub(crate) fn allow_ipv6(interface: &str) -> io::Result<()> {
    fs::write(parameter6(interface, "disable_ipv6"), "0")
}

/// Whether the host forwards IPv6 anyway.
pub(crate) fn forwards6_globally() -> bool {
    fs::read_to_string(parameter6("all", "forwarding")).is_ok_and(|text| text.trim() == "1")
}

/// Whether the kernel has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    parameter6("all", "forwarding").exists()
}

/// Whether what passes a bridge also passes the packet filter. Translations are then undone on the way into
/// the bridge, and the kernel refuses what it finds to come in for `::1`.
pub(crate) fn filters_bridges6() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
        .is_ok_and(|text| text.trim() == "1")
}

/// Whether the host forwards anyway.
pub(crate) fn forwards_globally() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// Former values of parameters of the host, kept in a file. A key is the name of an interface (its
/// IPv4 forwarding) or a path below `/proc/sys/net`.
pub(crate) struct Uplinks {
    file: PathBuf,
}

fn path_of(key: &str) -> PathBuf {
    match key.contains('/') {
        true => Path::new("/proc/sys/net").join(key),
        false => parameter(key, "forwarding"),
    }
}

impl Uplinks {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Names of the interfaces whose forwarding we switched on.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.read().into_keys().filter(|key| !key.contains('/')).collect()
    }

    fn read(&self) -> BTreeMap<String, String> {
        let text = fs::read(&self.file).unwrap_or_default();
        documents::parse(&text).unwrap_or_default()
    }

    fn write(&self, values: &BTreeMap<String, String>) -> Result<(), NetworkError> {
        documents::print(values)
            .and_then(|bytes| documents::replace(&self.file, &bytes, Sync::OldOrNew))
            .map_err(NetworkError::file("writing", &self.file))
    }

    /// Let these interfaces forward, remembering what they did before.
    pub(crate) fn forward(&self, interfaces: &[String]) -> Result<(), NetworkError> {
        interfaces.iter().try_for_each(|interface| self.change(interface, "1"))
    }

    /// Let IPv6 packets pass between a bridge of ours and these interfaces. Kernels before 6.17 forward
    /// for all interfaces or none, and hosts that forward take no address from a router unless told to.
    pub(crate) fn forward6(&self, bridge: &str, interfaces: &[String]) -> Result<(), NetworkError> {
        if parameter6("all", "force_forwarding").exists() {
            let own = parameter6(bridge, "force_forwarding");
            fs::write(&own, "1").map_err(failed("writing", &own))?;
            let key = |interface: &String| format!("ipv6/conf/{interface}/force_forwarding");
            return interfaces.iter().try_for_each(|interface| self.change(&key(interface), "1"));
        }
        for interface in interfaces {
            let key = format!("ipv6/conf/{interface}/accept_ra");
            if fs::read_to_string(path_of(&key)).is_ok_and(|text| text.trim() == "1") {
                self.change(&key, "2")?;
            }
        }
        self.change("ipv6/conf/all/forwarding", "1")
    }

    fn change(&self, key: &str, wanted: &str) -> Result<(), NetworkError> {
        let path = path_of(key);
        let Ok(value) = fs::read_to_string(&path) else { return Ok(()) };
        if value.trim() == wanted {
            return Ok(());
        }
        let mut former = self.read();
        former.insert(key.to_owned(), value.trim().to_owned());
        self.write(&former)?;
        let file = fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|mut file| file.write_all(wanted.as_bytes()))
            .map_err(failed("writing", &path))
    }

    /// Put the former values back.
    pub(crate) fn restore(&self) -> Result<(), NetworkError> {
        for (key, value) in self.read() {
            let path = path_of(&key);
            match fs::write(&path, value) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("writing", &path)(error));
                }
                _ => {}
            }
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing", &self.file)(error))
            }
            _ => Ok(()),
        }
    }
}
