//! What the project's commands need from the machine, why, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// A program that a command needs, and the Debian package that brings it.
pub struct Tool {
    /// Any of these files means that the tool is here; a bare name is looked up on PATH.
    files: &'static [&'static str],
    package: &'static str,
    why: &'static str,
}

/// What `cargo xtask demo` needs.
pub const DEMO: &[Tool] = &[
    Tool { files: &["ip"], package: "iproute2", why: "makes the bridge that the demo owns" },
    Tool {
        files: &["nft"],
        package: "nftables",
        why: "publishes ports and gives containers a network",
    },
    Tool { files: &["mmdebstrap"], package: "mmdebstrap", why: "makes the debian base image" },
    Tool {
        files: &["skopeo"],
        package: "skopeo",
        why: "stores base images in the demo's registry",
    },
    Tool {
        files: &["/etc/ssl/certs/ca-certificates.crt"],
        package: "ca-certificates",
        why: "lets builds fetch packages over https",
    },
];

/// What `cargo xtask test` needs beyond [`DEMO`].
pub const TEST: &[Tool] = &[
    Tool {
        files: &["/bin/busybox"],
        package: "busybox-static",
        why: "is in the containers of tests",
    },
    Tool { files: &["iptables-nft"], package: "iptables", why: "sets up foreign packet filters" },
    Tool {
        files: &["setpriv"],
        package: "util-linux",
        why: "runs PostgreSQL as somebody else than root",
    },
    Tool { files: &["curl"], package: "curl", why: "tests talk to the servers as a user would" },
    Tool {
        files: &["initdb", "/usr/lib/postgresql/*/bin/initdb"],
        package: "postgresql",
        why: "every query is answered by PostgreSQL as by SQLite",
    },
    Tool {
        files: &["docker-compose"],
        package: "docker-compose",
        why: "the engine is tested with compose 1.29",
    },
    Tool { files: &["openssl"], package: "openssl", why: "makes the certificates of tests" },
    Tool { files: &["npm"], package: "npm", why: "brings the official SDK of Node" },
    Tool { files: &["pip3"], package: "python3-pip", why: "brings the official SDK of Python" },
    Tool {
        files: &["qemu-storage-daemon"],
        package: "qemu-system-common",
        why: "records what engines write, for power cuts (Debian 12)",
    },
    Tool {
        files: &["qemu-storage-daemon"],
        package: "qemu-utils",
        why: "the same, where Debian is newer",
    },
    Tool {
        files: &["mkfs.ext4", "/sbin/mkfs.ext4"],
        package: "e2fsprogs",
        why: "makes the small disks that tests fill and cut the power of",
    },
    Tool { files: &["strace"], package: "strace", why: "counts how often the engine syncs" },
];

/// What `cargo xtask bench` needs beyond [`TEST`].
pub const BENCH: &[Tool] = &[
    Tool { files: &["podman"], package: "podman", why: "is measured beside our engine" },
    Tool {
        files: &["netavark", "/usr/lib/podman/netavark"],
        package: "netavark",
        why: "gives podman's containers a network",
    },
    Tool { files: &["crun"], package: "crun", why: "runs podman's containers" },
];

/// Installs those of `tools` that are missing, after saying which and why.
pub fn ensure(tools: &[&[Tool]]) -> Result<()> {
    let missing: Vec<&Tool> =
        tools.iter().copied().flatten().filter(|tool| !tool.present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Missing on this machine:");
    for tool in &missing {
        println!("  {:16} {}", tool.package, tool.why);
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if find("apt-get").is_none() {
        bail!(
            "install {} with this system's package manager, then start again",
            packages.join(", ")
        );
    }
    println!("Installing with apt-get: {}", packages.join(" "));
    command::run(as_root("apt-get").args(["update", "-qq"]))?;
    command::run(
        as_root("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
            .args(&packages),
    )
}

/// Builds cargo-nextest where it is missing, if it may be installed.
pub fn ensure_nextest(may_install: bool) -> Result<()> {
    let mut ask = Command::new(env!("CARGO"));
    let is_here = ask.args(["nextest", "--version"]).output().is_ok_and(|it| it.status.success());
    if is_here {
        return Ok(());
    }
    if !may_install {
        bail!("cargo-nextest runs the tests; `cargo install cargo-nextest --locked` brings it");
    }
    println!("Installing cargo-nextest, which runs the tests (it is built, which takes minutes)");
    command::run(Command::new(env!("CARGO")).args(["install", "cargo-nextest", "--locked"]))
}

/// A command that runs as root, through sudo where the caller is somebody else.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

impl Tool {
    fn present(&self) -> bool {
        self.files.iter().any(|file| match file.split_once('*') {
            Some((before, after)) => glob(Path::new(before), after),
            None if file.starts_with('/') => Path::new(file).exists(),
            None => find(file).is_some(),
        })
    }
}

/// Whether some `before/<anything>/after` exists.
fn glob(before: &Path, after: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(before) else { return false };
    entries.flatten().any(|entry| entry.path().join(after.trim_start_matches('/')).exists())
}

/// The program called `name` on PATH or in the administrator's folders.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
