//! User namespaces: which range of the host's ids containers get, and the making of a namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use minke_engine_client::wire::HostConfig;
use minke_engine_runtime::idmap::{self, IdRange};
use minke_engine_runtime::privileges::as_owner;

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::rootfs;

/// Above what distributions and systemd give to users, services and their containers.
const DEFAULT: IdRange = IdRange { first: 1_900_000_000, count: 65536 };

/// Reads the option: `default`, `FIRST:COUNT`, or a user whose ranges `/etc/subuid` and `/etc/subgid` give.
pub fn parse_range(text: &str) -> anyhow::Result<IdRange> {
    if text == "default" {
        return Ok(DEFAULT);
    }
    let range = match parse_numbers(text) {
        Some(range) => range,
        None => {
            let of = |file: &str| -> anyhow::Result<Option<IdRange>> {
                Ok(subordinate(&std::fs::read_to_string(file)?, text))
            };
            match (of("/etc/subuid")?, of("/etc/subgid")?) {
                (Some(users), Some(groups)) if users == groups => users,
                (Some(_), Some(_)) => {
                    anyhow::bail!("the ranges of {text} in /etc/subuid and /etc/subgid differ")
                }
                _ => anyhow::bail!("{text} has no range in both /etc/subuid and /etc/subgid"),
            }
        }
    };
    anyhow::ensure!(
        range.first > 0 && range.count >= 1 && range.first.checked_add(range.count).is_some(),
        "{text} is no range of user ids without the host's root"
    );
    Ok(range)
}

fn parse_numbers(text: &str) -> Option<IdRange> {
    let (first, count) = text.split_once(':')?;
    Some(IdRange { first: first.parse().ok()?, count: count.parse().ok()? })
}

/// The first range of a user in lines of `user:first:count`.
fn subordinate(text: &str, user: &str) -> Option<IdRange> {
    text.lines().find_map(|line| parse_numbers(line.strip_prefix(user)?.strip_prefix(':')?))
}

/// The range of a container; `None`: its users are the host's.
pub(crate) fn of(daemon: &Daemon, host: &HostConfig) -> Option<IdRange> {
    daemon.options.user_range.filter(|_| host.userns_mode != "host")
}

/// Whose users a container has.
pub(crate) enum Users {
    /// Its own, of this range of the host's ids.
    New(IdRange),
    /// Those of the namespace that a file names.
    Of(PathBuf),
}

/// Keeps a user namespace at `user`, and a network namespace that it owns at `net`.
pub(crate) fn make(
    daemon: &Daemon,
    users: &Users,
    user: &Path,
    net: Option<&Path>,
) -> io::Result<()> {
    let mut command = Command::new(&daemon.programs.runtime);
    command.args(["runtime", "userns"]);
    match users {
        Users::New(range) => command.arg("--range").arg(format!("{}:{}", range.first, range.count)),
        Users::Of(path) => command.arg("--join").arg(path),
    };
    command.arg("--user").arg(user).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(net) = net {
        command.arg("--net").arg(net);
    }
    let output = command.stderr(Stdio::piped()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Mounts an overlay whose directories are all below `data`, with its files' owners mapped by the user
/// namespace at `user`: what the container's root makes belongs to root on the disk.
pub(crate) fn mount_mapped(
    data: &Path,
    range: IdRange,
    user: &Path,
    overlay: rootfs::Overlay<'_>,
) -> Result<()> {
    overlay.forget_earlier();
    let staging = Staging::make(data, user).map_err(Error::file("mapping the owners of", data))?;
    let moved = |path: &Path| match path.strip_prefix(data) {
        Ok(below) => staging.place.join(below),
        Err(_) => path.to_owned(),
    };
    let lower: Vec<PathBuf> = overlay.lower.iter().map(|path| moved(path)).collect();
    let (upper, work) = (moved(overlay.upper), moved(overlay.work));
    let mapped = rootfs::Overlay { lower: &lower, upper: &upper, work: &work, ..overlay };
    // The overlay writes as whoever has mounted it; the host's root has no id in there. A thread of its
    // own, because the identity of a thread is changed.
    let mounted =
        on_own_thread(|| as_owner(range.first, || mapped.mount().map_err(io::Error::from)));
    mounted.map_err(Error::file("mounting the overlay", overlay.target))
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// A view of the data directory with mapped owners, for as long as the overlay is being mounted: it keeps
/// its own references.
struct Staging {
    place: PathBuf,
}

impl Staging {
    fn make(data: &Path, user: &Path) -> io::Result<Staging> {
        let tree = idmap::copy(data, false)?;
        idmap::map(tree.as_fd(), File::open(user)?.as_fd())?;
        let place = data.join("run").join(format!("owners-{}", crate::ids::random()));
        std::fs::create_dir(&place)?;
        let staging = Staging { place };
        idmap::attach(tree, &staging.place)?;
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = rootfs::unmount_all(&self.place);
        let _ = std::fs::remove_dir(&self.place);
    }
}

/// Whether containers can run in a user namespace over this range, and on this data directory.
pub(crate) fn check(daemon: &Daemon, range: IdRange) -> Result<()> {
    let directory = daemon.options.data.join("run/users");
    let (user, trial) = (directory.join("user"), directory.join("trial"));
    let work = || -> io::Result<()> {
        for name in ["lower", "upper", "work", "target"] {
            std::fs::create_dir_all(trial.join(name))?;
        }
        make(daemon, &Users::New(range), &user, None)?;
        let overlay = rootfs::Overlay {
            lower: &[trial.join("lower")],
            upper: &trial.join("upper"),
            work: &trial.join("work"),
            target: &trial.join("target"),
            volatile: true,
        };
        let data = &daemon.options.data;
        let mounted = mount_mapped(data, range, &user, overlay);
        mounted.map_err(|error| io::Error::other(error.message()))?;
        // An overlay that could not set up its working directory is mounted, but cannot be written.
        let made = trial.join("target/file");
        on_own_thread(|| as_owner(range.first, || File::create(&made).map(drop)))
    };
    let result = work();
    let _ = rootfs::unmount_all(&trial.join("target"));
    let _ = rootfs::unmount_all(&user);
    let _ = std::fs::remove_dir_all(&directory);
    result.map_err(Error::system(
        "trying a container in a user namespace (it takes Linux 5.19 and a file system with idmapped mounts)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_the_hosts_root_is_in_none() {
        assert_eq!(parse_range("default").unwrap(), DEFAULT);
        assert_eq!(parse_range("5000:10").unwrap(), IdRange { first: 5000, count: 10 });
        for bad in ["0:65536", "5:0", "4294967295:2", "no-such-user", "5:x"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_users_first_range_counts() {
        let text = "ann:100000:65536\nbo:165536:1000\nbo:1:2\nbob:9:9\n";
        assert_eq!(subordinate(text, "bo"), Some(IdRange { first: 165536, count: 1000 }));
        assert_eq!(subordinate(text, "b"), None);
    }
}
