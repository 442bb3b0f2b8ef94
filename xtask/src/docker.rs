//! Debian's docker.io: the peer of benches and the older of the two CLIs that tests use. It is
//! unpacked, not installed: installing it would start a daemon and change the packet filter. Where the
//! machine has no docker CLI, this one takes its place: Debian 12 has no package with the CLI alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, tools};

/// The folder with dockerd, containerd, runc and the docker CLI.
pub struct Peer {
    pub programs: PathBuf,
}

impl Peer {
    /// PATH with the peer's programs first.
    pub fn path(&self) -> String {
        let system = std::env::var("PATH").unwrap_or_default();
        format!("{}:{system}:/usr/sbin:/sbin", self.programs.display())
    }

    /// PATH, with the peer's programs where the machine has no docker CLI of its own.
    pub fn path_with_cli(&self) -> String {
        if tools::find("docker").is_none() {
            return self.path();
        }
        std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
    }
}

/// Downloads the packages once and unpacks them below `tools`.
pub fn unpack(tools: &Path) -> Result<Peer> {
    let programs = tools.join("docker-20.10");
    if !programs.join("docker-registry").exists() {
        println!("Unpacking Debian's docker.io (it is not installed)");
        let packages = tools.join("packages");
        std::fs::create_dir_all(&packages)
            .with_context(|| format!("cannot make {}", packages.display()))?;
        command::run(Command::new("apt-get").current_dir(&packages).args([
            "download",
            "-qq",
            "docker.io",
            "containerd",
            "runc",
            // docker-init is a link to this one's program.
            "tini",
            // What tests log in to.
            "docker-registry",
        ]))?;
        let files = packages.join("files");
        for package in std::fs::read_dir(&packages).context("cannot list packages")?.flatten() {
            if package.path().extension().is_some_and(|it| it == "deb") {
                command::run(Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(&files))?;
            }
        }
        gather(&files, &programs)?;
    }
    Ok(Peer { programs })
}

/// Puts the programs of all packages into one folder, whole or not at all.
fn gather(files: &Path, programs: &Path) -> Result<()> {
    let half = programs.with_extension("half");
    std::fs::create_dir_all(&half).with_context(|| format!("cannot make {}", half.display()))?;
    for folder in ["usr/bin", "usr/sbin"] {
        let Ok(entries) = std::fs::read_dir(files.join(folder)) else { continue };
        for entry in entries.flatten() {
            let target = half.join(entry.file_name());
            std::fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    if programs.exists() {
        std::fs::remove_dir_all(programs)
            .with_context(|| format!("cannot remove {}", programs.display()))?;
    }
    std::fs::rename(&half, programs).with_context(|| format!("cannot write {}", programs.display()))
}
