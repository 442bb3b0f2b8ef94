//! Volumes whose content is elsewhere: the options `type`, `device` and `o` of Docker's local driver say
//! what is mounted on the volume's directory for as long as a container has it.
//!
//! Invariant: nothing is mounted on a directory that is about to be removed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::ToSocketAddrs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::error::{Error, Result};
use crate::rootfs;

/// Longest value of an option, bytes.
const LONGEST: usize = 4096;

/// What is mounted on a volume's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    kind: String,
    device: String,
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    /// A directory of the host, with what is mounted below it or without.
    bind: Option<Bind>,
    /// What is for the file system to understand.
    data: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bind {
    Plain,
    Recursive,
}

fn invalid(why: String) -> Error {
    Error::Invalid(why)
}

/// Reads a volume's options; without any it is a plain directory.
pub(super) fn read(options: &BTreeMap<String, String>) -> Result<Option<Source>> {
    for (name, value) in options {
        match name.as_str() {
            "type" | "device" | "o" if value.len() > LONGEST || value.contains('\0') => {
                return Err(invalid(format!("the volume option {name} is over {LONGEST} bytes")));
            }
            "type" | "device" | "o" => {}
            "size" => {
                return Err(invalid(
                    "the volume option \"size\" is not supported: this engine sets no quotas; for memory say type=tmpfs and o=size=…"
                        .to_owned(),
                ));
            }
            _ => return Err(invalid(format!("invalid option: \"{name}\""))),
        }
    }
    if options.is_empty() {
        return Ok(None);
    }
    let mandatory = |name: &str| match options.get(name) {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(invalid(format!("missing required option: \"{name}\""))),
    };
    let mut source = Source {
        kind: mandatory("type")?,
        device: mandatory("device")?,
        flags: MountFlags::empty(),
        propagation: None,
        bind: None,
        data: Vec::new(),
    };
    let given = options.get("o").map_or("", String::as_str);
    for option in given.split(',').filter(|option| !option.is_empty()) {
        source.option(option);
    }
    if source.bind.is_some() && !source.device.starts_with('/') {
        let device = &source.device;
        return Err(invalid(format!("the volume's device {device:?} is no absolute path")));
    }
    Ok(Some(source))
}

impl Source {
    fn option(&mut self, option: &str) {
        let flag = match option {
            "bind" => return self.bind = Some(Bind::Plain),
            "rbind" => return self.bind = Some(Bind::Recursive),
            "rw" | "defaults" => return,
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "sync" => MountFlags::SYNCHRONOUS,
            "dirsync" => MountFlags::DIRSYNC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            "strictatime" => MountFlags::STRICTATIME,
            "private" | "rprivate" => {
                return self.propagation = Some(MountPropagationFlags::PRIVATE);
            }
            "shared" | "rshared" => return self.propagation = Some(MountPropagationFlags::SHARED),
            "slave" | "rslave" => {
                return self.propagation = Some(MountPropagationFlags::DOWNSTREAM);
            }
            other => return self.data.push(other.to_owned()),
        };
        self.flags |= flag;
    }

    /// Mounts it on a directory.
    pub(super) fn mount(&self, target: &Path) -> Result<()> {
        let failed = |error: io::Error| {
            let why = match error.raw_os_error() {
                Some(code) if code == rustix::io::Errno::NODEV.raw_os_error() => {
                    format!("this kernel has no file system {:?}", self.kind)
                }
                _ => error.to_string(),
            };
            let shown = target.display();
            invalid(format!(
                "failed to mount local volume: mount {}:{shown}, data: {}: {why}",
                self.device,
                self.data.join(",")
            ))
        };
        self.try_mount(target).map_err(failed)
    }

    fn try_mount(&self, target: &Path) -> io::Result<()> {
        match self.bind {
            None => {
                let data = self.resolved()?.join(",");
                let data = CString::new(data).map_err(io::Error::other)?;
                let data = Some(data.as_c_str());
                let device = self.device.as_str();
                rustix::mount::mount(device, target, self.kind.as_str(), self.flags, data)?;
            }
            Some(bind) => {
                match bind {
                    Bind::Plain => rustix::mount::mount_bind(&self.device, target)?,
                    Bind::Recursive => rustix::mount::mount_bind_recursive(&self.device, target)?,
                }
                if !self.flags.is_empty() {
                    // A bind takes no flags at first.
                    rustix::mount::mount_remount(target, MountFlags::BIND | self.flags, c"")?;
                }
            }
        }
        match self.propagation {
            Some(propagation) => Ok(rustix::mount::mount_change(target, propagation)?),
            None => Ok(()),
        }
    }

    /// The data with the server's address in numbers: the kernel knows no names.
    fn resolved(&self) -> io::Result<Vec<String>> {
        let mut data = self.data.clone();
        for option in &mut data {
            if let Some(host) = option.strip_prefix("addr=") {
                let address = (host, 0).to_socket_addrs()?.next();
                let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
                *option = format!("addr={}", address.ip());
            }
        }
        Ok(data)
    }
}

/// Whether something is mounted on a directory.
pub(super) fn is_mounted(directory: &Path) -> bool {
    // The kernel tells paths without links.
    let Ok(directory) = directory.canonicalize() else { return false };
    rootfs::mounts_below(&directory).contains(&directory)
}

/// Takes down what is mounted on a volume's directory; it must be gone afterwards.
pub(super) fn unmount(directory: &Path) -> Result<()> {
    rootfs::unmount_all(directory)?;
    match is_mounted(directory) {
        false => Ok(()),
        true => Err(Error::Conflict(format!(
            "something is still mounted on the volume's directory {}",
            directory.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Option<Source>> {
        read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn words_are_flags_binds_or_for_the_file_system() {
        assert_eq!(options(&[]).unwrap(), None);
        let tmpfs =
            options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=7,noexec")]);
        let tmpfs = tmpfs.unwrap().unwrap();
        assert_eq!((tmpfs.flags, tmpfs.bind), (MountFlags::NOEXEC, None));
        assert_eq!(tmpfs.data, ["size=1m", "uid=7"]);
        let bind =
            options(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]).unwrap().unwrap();
        assert_eq!((bind.flags, bind.bind), (MountFlags::RDONLY, Some(Bind::Plain)));
        let nfs = options(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=localhost,rw")]);
        let resolved = nfs.unwrap().unwrap().resolved().unwrap();
        assert!(["addr=127.0.0.1", "addr=::1"].contains(&resolved[0].as_str()), "{resolved:?}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (given, word) in [
            (&[("type", "tmpfs")][..], "device"),
            (&[("device", "/x")], "type"),
            (&[("o", "bind")], "type"),
            (&[("size", "1g")], "size"),
            (&[("color", "red")], "color"),
            (&[("type", "none"), ("device", "x"), ("o", "bind")], "absolute"),
        ] {
            let error = options(given).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
