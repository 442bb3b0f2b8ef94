//! What a container in a user namespace takes from the host, put where its root may go.
//!
//! Its processes assemble its file system after they have become unprivileged users of the host, who may
//! not pass, say, a data directory that only root can enter. So the helper, in a mount namespace of its
//! own, first mounts everything that the specification names at short paths that everybody can pass:
//!
//! ```text
//!   /run/minke/0     the root file system            (in the helper's mount namespace only;
//!             /1 …   sources of bind mounts,          gone when the container has been made)
//!                    files that name namespaces
//! ```
//! [`plan`] is pure: it changes the paths in the specification and lists what is to be mounted; the list
//! is stored as `stage.json` beside the shim's files, and done by the helper.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::idmap;

/// Where everything is mounted.
const DIRECTORY: &str = "/run/minke";
/// The option of a bind mount whose files have in-container owners.
pub(crate) const MAPPED: &str = "idmap";

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// A file that names the user namespace.
    user: PathBuf,
    /// Host id of the container's root.
    pub(crate) first: u32,
    /// Mounted at `/run/minke/<index>`.
    mounts: Vec<Staged>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Staged {
    source: PathBuf,
    recursive: bool,
    /// The owners of the files are in-container ids.
    mapped: bool,
    /// It is a file that names the network namespace.
    #[serde(default)]
    network: bool,
}

/// Moves what the specification takes from the host to the stage. `None`: it has no user namespace.
pub fn plan(spec: &mut Spec, first: u32) -> Option<Stage> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    let user = list.iter().find(|it| it.typ() == LinuxNamespaceType::User)?.path().clone()?;
    let mut stage = Stage { user, first, mounts: Vec::new() };
    if let Some(root) = spec.root_mut() {
        let path = stage.add(root.path().clone(), true, false);
        root.set_path(path);
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let options = mount.options().clone().unwrap_or_default();
        let has = |name: &str| options.iter().any(|option| option == name);
        let source = mount.source().clone();
        if let (true, Some(source)) = (has("bind") || has("rbind"), source) {
            let place = stage.add(source, has("rbind"), has(MAPPED));
            mount.set_source(Some(place));
            let kept = options.into_iter().filter(|option| option != MAPPED).collect();
            mount.set_options(Some(kept));
        }
    }
    let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        // The user namespace is entered first, by a process that is still privileged.
        if namespace.typ() != LinuxNamespaceType::User
            && let Some(path) = namespace.path().clone()
        {
            let place = stage.add(path, false, false);
            namespace.set_path(Some(place));
            if let Some(staged) = stage.mounts.last_mut() {
                staged.network = namespace.typ() == LinuxNamespaceType::Network;
            }
        }
    }
    Some(stage)
}

impl Stage {
    fn add(&mut self, source: PathBuf, recursive: bool, mapped: bool) -> PathBuf {
        let place = Path::new(DIRECTORY).join(self.mounts.len().to_string());
        self.mounts.push(Staged { source, recursive, mapped, network: false });
        place
    }

    /// The user namespace.
    pub(crate) fn users(&self) -> io::Result<fs::File> {
        fs::File::open(&self.user)
    }

    /// For a further process of a container that has been made: libcontainer only asks whether the root's
    /// path exists, and, where kernel parameters of the network were set, whether that is the host's.
    pub(crate) fn pretend(&self) -> io::Result<()> {
        make_room()?;
        let network = self.mounts.iter().enumerate().find(|(_, staged)| staged.network);
        // The namespace of a container that was joined has no file any more when that one has ended.
        let network = network.and_then(|(index, staged)| Some((index, copy(staged).ok()?)));
        empty_directory()?;
        let place = |index: usize| Path::new(DIRECTORY).join(index.to_string());
        if let Some((index, tree)) = network {
            fs::File::create(place(index))?;
            idmap::attach(tree, &place(index))?;
        }
        fs::create_dir(place(0))
    }

    /// Mount everything, in a mount namespace that only this process and its children have.
    pub(crate) fn set(&self) -> io::Result<()> {
        make_room()?;
        let user = self.users()?;
        let mut trees = Vec::with_capacity(self.mounts.len());
        for staged in &self.mounts {
            let tree = copy(staged)?;
            if staged.mapped {
                idmap::map(tree.as_fd(), user.as_fd()).map_err(|error| named(staged, error))?;
            }
            trees.push(tree);
        }
        empty_directory()?;
        for (index, tree) in trees.into_iter().enumerate() {
            let target = Path::new(DIRECTORY).join(index.to_string());
            let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode);
            if kind == rustix::fs::FileType::Directory {
                fs::create_dir(&target)?;
            } else {
                fs::File::create(&target)?;
            }
            idmap::attach(tree, &target)?;
        }
        Ok(())
    }
}

fn make_room() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    separate()
}

/// Get a mount namespace of one's own.
pub(crate) fn separate() -> io::Result<()> {
    // SAFETY: this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

fn empty_directory() -> io::Result<()> {
    let options = c"mode=755,size=1m";
    Ok(rustix::mount::mount("tmpfs", DIRECTORY, "tmpfs", MountFlags::NODEV, options)?)
}

fn copy(staged: &Staged) -> io::Result<std::os::fd::OwnedFd> {
    idmap::copy(&staged.source, staged.recursive).map_err(|error| named(staged, error))
}

fn named(staged: &Staged, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", staged.source.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ContainerSpec, Facts, Mount, MountKind, NetNamespace, UserNamespace, build};

    #[test]
    fn what_comes_from_the_host_is_staged_and_nothing_else() {
        let bind = |source: &str, target: &str, own: bool| Mount {
            kind: MountKind::Bind {
                source: source.into(),
                recursive: true,
                propagation: String::new(),
                own_ids: own,
            },
            target: target.into(),
            readonly: false,
        };
        let container = ContainerSpec {
            rootfs: "/data/root".into(),
            args: vec!["x".into()],
            cgroup_path: "/c".into(),
            network: NetNamespace::Path("/data/net".into()),
            mounts: vec![bind("/data/volume", "/v", true), bind("/home", "/h", false)],
            user_namespace: Some(UserNamespace { path: "/data/user".into(), first: 7 }),
            ..ContainerSpec::default()
        };
        let mut spec = build(&container, &Facts::default()).unwrap();
        let stage = plan(&mut spec, 7).unwrap();
        let listed: Vec<_> =
            stage.mounts.iter().map(|it| (it.source.to_str().unwrap(), it.mapped)).collect();
        assert_eq!(
            listed,
            [("/data/root", false), ("/home", false), ("/data/volume", true), ("/data/net", false)]
        );
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("/run/minke/0"));
        let text = serde_json::to_string(&spec).unwrap();
        assert!(!text.contains("/data/root") && !text.contains("/data/net"), "{text}");
        assert!(!text.contains("\"idmap\"") && text.contains("/data/user"), "{text}");
    }

    #[test]
    fn without_a_user_namespace_there_is_no_stage() {
        let container = ContainerSpec {
            args: vec!["x".into()],
            cgroup_path: "/c".into(),
            ..ContainerSpec::default()
        };
        let mut spec = build(&container, &Facts::default()).unwrap();
        assert_eq!(plan(&mut spec, 7), None);
    }
}
