//! Update locks: files by which a service says "not now".
//!
//! A service's lock is `services/<app id>/<service>/updates.lock` under the lock root, which is
//! mounted into its container; existence is all that counts. This supervisor takes a lock by making
//! the same file, marked by its content, so that a crash leaves nothing that could be taken for a
//! service's own.
//!
//! What is in a service's directory is the service's to make: a link or a pipe as well as a file.
//! Nothing there is written to, no link there is followed, and no open waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use minke_common_model::ids::{AppId, ServiceName};
use rustix::fs::{Mode, OFlags};

use crate::state::Locks;

const NAMES: [&str; 2] = ["updates.lock", "resin-updates.lock"];
const MARK: &str = "minke-supervisor\n";
/// balena's supervisor owns its locks by this user, and services may check that.
const OWNER: u32 = 65534;
/// Where a lock is made before it is linked into a service's directory: no service sees it here, and
/// none has this name.
const IN_MAKING: &str = ".updates.lock";
/// Any user may make files in it, and remove only their own.
const OPEN_TO_ALL: u32 = 0o1777;

/// The directory that a service sees as `/tmp/balena`.
pub(crate) fn service_dir(root: &Path, app: AppId, service: &ServiceName) -> PathBuf {
    app_dir(root, app).join(service.as_str())
}

fn app_dir(root: &Path, app: AppId) -> PathBuf {
    root.join("services").join(app.to_string())
}

/// Makes a service's directory, writable for any user of its container, if it is not like that.
pub(crate) fn prepare(root: &Path, app: AppId, service: &ServiceName) -> io::Result<()> {
    let dir = service_dir(root, app, service);
    let is_ready = fs::symlink_metadata(&dir)
        .is_ok_and(|found| found.is_dir() && found.permissions().mode() & 0o7777 == OPEN_TO_ALL);
    if is_ready {
        return Ok(());
    }
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(OPEN_TO_ALL))
}

/// Who holds the locks of an app.
pub(crate) fn state(root: &Path, app: AppId) -> Locks {
    let mut state = Locks::Free;
    for dir in directories(&app_dir(root, app)) {
        for name in NAMES {
            match owner(&dir.join(name)) {
                Locks::Theirs => return Locks::Theirs,
                Locks::Ours => state = Locks::Ours,
                Locks::Free => {}
            }
        }
    }
    state
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn owner(path: &Path) -> Locks {
    match fs::symlink_metadata(path) {
        Err(_) => Locks::Free,
        // Anything else is not even opened: that alone can have an effect.
        Ok(found) if found.is_file() && found.len() == MARK.len() as u64 => match is_marked(path) {
            Ok(true) => Locks::Ours,
            _ => Locks::Theirs,
        },
        Ok(_) => Locks::Theirs,
    }
}

/// Whether a file has the mark. By now it may be something else than what was looked at.
fn is_marked(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut content = Vec::new();
    file.take(MARK.len() as u64 + 1).read_to_end(&mut content)?;
    Ok(content == MARK.as_bytes())
}

/// Takes every lock of an app, or none: `false` when a service holds one and `force` is not set.
/// After a reboot the directories of `services` may not be here: they are made.
pub(crate) fn take<'a>(
    root: &Path,
    app: AppId,
    services: impl IntoIterator<Item = &'a ServiceName>,
    force: bool,
) -> io::Result<bool> {
    for service in services {
        prepare(root, app, service)?;
    }
    let of_app = app_dir(root, app);
    for dir in directories(&of_app) {
        for name in NAMES {
            if !take_one(&of_app, &dir.join(name), force)? {
                release(root, app)?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn take_one(of_app: &Path, path: &Path, force: bool) -> io::Result<bool> {
    match owner(path) {
        Locks::Ours => return Ok(true),
        Locks::Theirs if force => fs::remove_file(path)?,
        Locks::Theirs => return Ok(false),
        Locks::Free => {}
    }
    // Made whole elsewhere first: a torn file would be taken for a service's own.
    let made = make(of_app)?;
    let linked = fs::hard_link(&made, path);
    fs::remove_file(&made)?;
    match linked {
        Ok(()) => Ok(true),
        // The service was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a marked file where no service can reach it.
fn make(of_app: &Path) -> io::Result<PathBuf> {
    let path = of_app.join(IN_MAKING);
    match fs::remove_file(&path) {
        // A crash left one, which may also be a lock by now.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(MARK.as_bytes())?;
    // A supervisor without the right to give files away still locks.
    let _ = fchown(&file, Some(OWNER), Some(OWNER));
    Ok(path)
}

/// Removes this supervisor's locks of an app; a service's own stay.
pub(crate) fn release(root: &Path, app: AppId) -> io::Result<()> {
    for dir in directories(&app_dir(root, app)) {
        for path in NAMES.map(|name| dir.join(name)) {
            if owner(&path) == Locks::Ours {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// The file by which a new container says that the old one may go.
pub(crate) fn handover_complete(root: &Path, app: AppId, service: &ServiceName) -> [PathBuf; 2] {
    let dir = service_dir(root, app, service);
    [dir.join("handover-complete"), dir.join("resin-kill-me")]
}

#[cfg(test)]
mod tests;
