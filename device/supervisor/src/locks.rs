//! Update locks: files by which a service says "not now".
//!
//! A service's lock is `services/<app id>/<service>/updates.lock` under the lock root, which is
//! mounted into its container; existence is all that counts. This supervisor takes a lock by making
//! the same file, marked by its content, so that a crash leaves nothing that could be taken for a
//! service's own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use minke_common_model::ids::{AppId, ServiceName};

use crate::state::Locks;

const NAMES: [&str; 2] = ["updates.lock", "resin-updates.lock"];
const MARK: &str = "minke-supervisor\n";
/// balena's supervisor owns its locks by this user, and services may check that.
const OWNER: u32 = 65534;

/// The directory that a service sees as `/tmp/balena`.
pub(crate) fn service_dir(root: &Path, app: AppId, service: &ServiceName) -> PathBuf {
    app_dir(root, app).join(service.as_str())
}

fn app_dir(root: &Path, app: AppId) -> PathBuf {
    root.join("services").join(app.to_string())
}

/// Makes a service's directory, writable for any user of its container.
pub(crate) fn prepare(root: &Path, app: AppId, service: &ServiceName) -> io::Result<()> {
    let dir = service_dir(root, app, service);
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777))
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
        Ok(metadata) if metadata.is_file() && metadata.len() == MARK.len() as u64 => {
            match fs::read(path) {
                Ok(content) if content == MARK.as_bytes() => Locks::Ours,
                _ => Locks::Theirs,
            }
        }
        Ok(_) => Locks::Theirs,
    }
}

/// Takes every lock of an app, or none: `false` when a service holds one and `force` is not set.
pub(crate) fn take(
    root: &Path,
    app: AppId,
    services: &[ServiceName],
    force: bool,
) -> io::Result<bool> {
    for service in services {
        prepare(root, app, service)?;
    }
    for dir in directories(&app_dir(root, app)) {
        for name in NAMES {
            if !take_one(&dir.join(name), force)? {
                release(root, app)?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn take_one(path: &Path, force: bool) -> io::Result<bool> {
    match owner(path) {
        Locks::Ours => return Ok(true),
        Locks::Theirs if force => fs::remove_file(path)?,
        Locks::Theirs => return Ok(false),
        Locks::Free => {}
    }
    // Made whole under another name first: a torn file would be taken for a service's own.
    let beside = path.with_extension("minke");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&beside)?;
    file.write_all(MARK.as_bytes())?;
    // A supervisor without the right to give files away still locks.
    let _ = std::os::unix::fs::chown(&beside, Some(OWNER), Some(OWNER));
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Ok(()) => Ok(true),
        // The service was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
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
mod tests {
    use super::*;

    fn names() -> Vec<ServiceName> {
        ["api", "web"].map(|name| name.parse().unwrap()).to_vec()
    }

    #[test]
    fn all_locks_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let (root, app) = (dir.path(), AppId::new(7));
        assert!(take(root, app, &names(), false).unwrap());
        assert_eq!(state(root, app), Locks::Ours);
        assert!(take(root, app, &names(), false).unwrap(), "taking twice is taking once");
        release(root, app).unwrap();
        assert_eq!(state(root, app), Locks::Free);

        let theirs = service_dir(root, app, &names()[1]).join("updates.lock");
        fs::write(&theirs, "").unwrap();
        assert!(!take(root, app, &names(), false).unwrap());
        assert_eq!(state(root, app), Locks::Theirs);
        fs::remove_file(&theirs).unwrap();
        assert_eq!(state(root, app), Locks::Free, "the other service's lock was given back");
    }

    #[test]
    fn force_removes_a_services_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (root, app) = (dir.path(), AppId::new(7));
        prepare(root, app, &names()[0]).unwrap();
        fs::write(service_dir(root, app, &names()[0]).join("resin-updates.lock"), "").unwrap();
        assert!(take(root, app, &names(), true).unwrap());
        assert_eq!(state(root, app), Locks::Ours);
    }

    #[test]
    fn another_app_is_not_concerned() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take(dir.path(), AppId::new(7), &names(), false).unwrap());
        assert_eq!(state(dir.path(), AppId::new(8)), Locks::Free);
    }
}
