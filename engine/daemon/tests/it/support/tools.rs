//! The programs that tests use: the engine of this crate, its shim, and two docker CLIs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::debian;

/// Debian's packages with CLI and daemon 20.10, and a registry.
const PACKAGES: [&str; 5] = ["docker.io", "containerd", "runc", "tini", "docker-registry"];

/// The folder that cargo puts programs in.
fn folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// The engine as a program.
pub fn engine() -> PathBuf {
    let path = folder().join("examples/engine");
    assert!(path.exists(), "`cargo build -p minke-engine-daemon --examples` makes {path:?}");
    path
}

/// The shim.
pub fn shim() -> PathBuf {
    let path = folder().join("minke-shim");
    assert!(path.exists(), "`cargo build -p minke-engine-shim` makes {path:?}");
    path
}

/// Where unpacked packages are.
pub fn unpacked_folder() -> PathBuf {
    folder().parent().unwrap().join("tools")
}

/// A program on the path or in the administrator's folders.
pub fn on_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file()).unwrap_or_else(|| panic!("{name} is not installed"))
}

/// The docker CLI on the path, else Debian's. It is meant to be of version 28, and [`clis`] says what it is.
pub fn docker28() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = std::env::split_paths(&path).any(|folder| folder.join("docker").is_file());
    if is_here { PathBuf::from("docker") } else { docker20() }
}

/// The docker CLIs that everything must work with: what the machine has, and Debian 12's. Which they are is
/// written once a process.
pub fn clis() -> [PathBuf; 2] {
    static CLIS: LazyLock<[PathBuf; 2]> = LazyLock::new(checked_clis);
    CLIS.clone()
}

fn checked_clis() -> [PathBuf; 2] {
    let clis = [docker28(), docker20()];
    let [newer, older] = clis.each_ref().map(|docker| version(docker));
    assert!(older.starts_with("20.10."), "Debian's docker CLI is {older}, not 20.10");
    println!("docker CLIs: {newer} on the path, {older} of Debian");
    if !newer.starts_with("28.") {
        println!("no docker CLI 28 is on the path: this shows nothing of it");
    }
    clis
}

/// The version of a docker CLI.
fn version(docker: &Path) -> String {
    let output = Command::new(docker).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {docker:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.strip_prefix("Docker version ").and_then(|rest| rest.split(',').next());
    version.unwrap_or_else(|| panic!("{docker:?} says no version: {text}")).to_owned()
}

/// The CLI of Debian's docker.io package: below `MINKE_DOCKER20`, else unpacked (not installed: that
/// would start a daemon) into the target directory.
pub fn docker20() -> PathBuf {
    if let Some(root) = std::env::var_os("MINKE_DOCKER20") {
        let root = PathBuf::from(root);
        let below = ["usr/bin/docker", "bin/docker", "docker"].map(|path| root.join(path));
        return below.into_iter().find(|path| path.is_file()).unwrap_or(root);
    }
    let docker = debian::unpacked(&unpacked_folder(), "docker20-and-registry", &PACKAGES)
        .join("usr/bin/docker");
    assert!(docker.exists(), "{PACKAGES:?} have a docker CLI");
    docker
}

/// The registry of Debian's docker-registry package.
pub fn docker_registry() -> PathBuf {
    let registry = registry_beside(&docker20());
    assert!(registry.exists(), "{PACKAGES:?} have {registry:?}");
    registry
}

fn registry_beside(docker: &Path) -> PathBuf {
    docker.with_file_name("docker-registry")
}

/// The folders of Docker 20.10's other programs: dockerd, containerd, runc.
pub fn docker20_programs() -> [PathBuf; 2] {
    let docker = docker20();
    let beside = docker.parent().unwrap();
    [beside.to_owned(), beside.join("../sbin")]
}

/// Runs a program that must end well.
pub fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Brings the loopback of the calling thread's network namespace up.
pub fn loopback_up() {
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
}
