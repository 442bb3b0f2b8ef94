//! Kernel parameters that forwarding needs, and their restoration.
//!
//! The global `ip_forward` is never written. Packets are forwarded if the interface that they come in
//! on forwards: our bridges (which vanish with us) and the host's uplinks, whose former values are kept
//! on disk before they are changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::NetworkError;

fn parameter(interface: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join(name)
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
    let path = Path::new("/proc/sys/net/ipv6/conf").join(interface).join("disable_ipv6");
    let _ = fs::write(path, "1");
}

/// Whether the host forwards anyway.
pub(crate) fn forwards_globally() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// Former values of the uplinks' forwarding, kept in a file.
pub(crate) struct Uplinks {
    file: PathBuf,
}

impl Uplinks {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Names of the interfaces whose forwarding we switched on.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.read().into_keys().collect()
    }

    fn read(&self) -> BTreeMap<String, String> {
        let text = fs::read(&self.file).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, values: &BTreeMap<String, String>) -> Result<(), NetworkError> {
        let text = serde_json::to_vec(values).unwrap_or_default();
        crate::document::write_atomically(&self.file, &text)
    }

    /// Let these interfaces forward, remembering what they did before.
    pub(crate) fn forward(&self, interfaces: &[String]) -> Result<(), NetworkError> {
        let mut former = self.read();
        for interface in interfaces {
            let path = parameter(interface, "forwarding");
            let Ok(value) = fs::read_to_string(&path) else { continue };
            if value.trim() == "1" {
                continue;
            }
            former.insert(interface.clone(), value.trim().to_owned());
            self.write(&former)?;
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.and_then(|mut file| file.write_all(b"1")).map_err(failed("writing", &path))?;
        }
        Ok(())
    }

    /// Put the former values back.
    pub(crate) fn restore(&self) -> Result<(), NetworkError> {
        for (interface, value) in self.read() {
            let path = parameter(&interface, "forwarding");
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
