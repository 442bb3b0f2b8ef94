//! The engines that are compared, and the images that they pull.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use minke_tests_testkit::{Binaries, base_images, wait_until};

use super::engine::{Engine, READY, REGISTRY, Setup};
use crate::docker::Peer;

/// Fills a registry's data folder with the images that are pulled.
pub fn store_images(binaries: &Binaries, data: &Path) -> Result<()> {
    let mut registry = Command::new(binaries.path("minke-cloud"))
        .args(["registry", "--open", "--listen", REGISTRY, "--data"])
        .arg(data)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start a registry")?;
    let cache = crate::target().join("base-images");
    let stored =
        wait_until("the registry", READY, || Ok(std::net::TcpStream::connect(REGISTRY).ok()))
            .and_then(|_| base_images::build(&cache, REGISTRY, &mut |text| println!("{text}")))
            .and_then(|()| {
                base_images::build_large(&cache, REGISTRY, &mut |text| println!("{text}"))
            });
    registry.kill().context("cannot end the registry")?;
    registry.wait().context("cannot wait for the registry")?;
    stored
}

/// A folder of the engine's own with a copy of the registry's data.
fn folder(work: &Path, name: &str, images: &Path) -> Result<std::path::PathBuf> {
    let folder = work.join(name);
    std::fs::create_dir_all(&folder).context("cannot make a folder")?;
    let copy = folder.join("registry");
    crate::command::run(Command::new("cp").arg("-a").arg(images).arg(copy))?;
    Ok(folder)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Debian's dockerd with its containerd.
pub fn dockerd(binaries: &Binaries, peer: &Peer, work: &Path, images: &Path) -> Result<Engine> {
    let folder = folder(work, "dockerd", images)?;
    let socket = folder.join("docker.sock");
    let below = |name: &str| folder.join(name).display().to_string();
    let setup = Setup {
        name: "dockerd",
        daemon: words([
            &peer.programs.join("dockerd").display().to_string(),
            &format!("--data-root={}", below("data")),
            &format!("--exec-root={}", below("exec")),
            &format!("--pidfile={}", below("pid")),
            &format!("--host=unix://{}", socket.display()),
            &format!("--registry-mirror=http://{REGISTRY}"),
            &format!("--insecure-registry={REGISTRY}"),
        ]),
        client: words(["docker", "-H", &format!("unix://{}", socket.display())]),
        image_prefix: String::new(),
        pull_options: Vec::new(),
        limits: None,
        beside: &["containerd-shim-runc-v2"],
        path: peer.path(),
        socket,
        prepare: "true",
    };
    Engine::new(setup, binaries, &folder.join("registry"))
}

/// Debian's podman with its service, as it is on a machine with cgroups of version 1.
pub fn podman(binaries: &Binaries, work: &Path, images: &Path) -> Result<Engine> {
    let folder = folder(work, "podman", images)?;
    let socket = folder.join("podman.sock");
    let below = |name: &str| folder.join(name).display().to_string();
    let client = words([
        "podman",
        "--root",
        &below("root"),
        "--runroot",
        &below("run"),
        "--cgroup-manager=cgroupfs",
        "--events-backend=file",
        "--log-level=error",
    ]);
    let service = ["system", "service", "--time=0", &format!("unix://{}", socket.display())];
    let service = service.map(str::to_owned);
    let setup = Setup {
        name: "podman",
        daemon: client.iter().cloned().chain(service).collect(),
        client,
        image_prefix: format!("{REGISTRY}/library/"),
        pull_options: words(["--tls-verify=false"]),
        // Left to itself, it asks for more than a root without every capability may give.
        limits: Some([1024, 4096]),
        beside: &["conmon"],
        path: std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin",
        socket,
        // Its crun refuses a hybrid layout.
        prepare: "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi",
    };
    Engine::new(setup, binaries, &folder.join("registry"))
}

/// Ours.
pub fn minke(binaries: &Binaries, peer: &Peer, work: &Path, images: &Path) -> Result<Engine> {
    let folder = folder(work, "minke", images)?;
    let socket = folder.join("engine.sock");
    let setup = Setup {
        name: "minke",
        daemon: words([
            &binaries.path("minke-device").display().to_string(),
            "engine",
            &format!("--data={}", folder.join("data").display()),
            &format!("--socket={}", socket.display()),
            &format!("--registry-mirror=http://{REGISTRY}"),
            &format!("--insecure-registry={REGISTRY}"),
        ]),
        client: words(["docker", "-H", &format!("unix://{}", socket.display())]),
        image_prefix: String::new(),
        pull_options: Vec::new(),
        limits: None,
        beside: &["minke-shim"],
        path: peer.path_with_cli(),
        socket,
        prepare: "true",
    };
    Engine::new(setup, binaries, &folder.join("registry"))
}
