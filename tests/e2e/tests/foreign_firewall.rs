//! A host whose own firewall drops what it forwards, as one with Docker does: the engine says so, with
//! the commands that let its traffic through; nobody's rules are changed by it.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minke_tests_e2e::{Demo, Docker, Machine};
use minke_tests_testkit::{Binaries, Signal, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// An engine on a machine. Dropping it removes what it made outside the machine's own namespaces.
struct Engine<'a> {
    process: Child,
    data: &'a Path,
    log: std::path::PathBuf,
}

impl Engine<'_> {
    fn start<'a>(machine: &Machine, data: &'a Path, log: &str) -> Result<Engine<'a>> {
        let binaries = Binaries::beside_this_program()?;
        let log = data.with_file_name(log);
        let socket = data.with_file_name("engine.sock");
        let process = machine
            .command(&[])
            .arg(binaries.path("minke-device"))
            .args(["engine", "--data"])
            .arg(data)
            .arg("--socket")
            .arg(&socket)
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let engine = Engine { process, data, log };
        let docker = Docker::at(socket.to_str().context("a path that is not UTF-8")?);
        wait_until("the engine", LIMIT, || Ok(docker.run(&["version"]).ok()))?;
        Ok(engine)
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    fn stop(&mut self) -> Result<()> {
        signal(self.process.id() as i32, Signal::TERM)?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let _ = self.stop();
        let Ok(binaries) = Binaries::beside_this_program() else { return };
        let cleanup = Command::new(binaries.path("minke-device"))
            .args(["engine", "--cleanup", "--data"])
            .arg(self.data)
            .status();
        if !cleanup.is_ok_and(|status| status.success()) {
            eprintln!("the engine in {} left something behind", self.data.display());
        }
    }
}

/// Joins two machines by a cable: 192.0.2.1 is the first, 192.0.2.2 the second.
fn join(first: &Machine, second: &Machine) -> Result<()> {
    first.run(&[
        "ip",
        "link",
        "add",
        "cable",
        "type",
        "veth",
        "peer",
        "name",
        "cable",
        "netns",
        &second.pid(),
    ])?;
    for (machine, address) in [(first, "192.0.2.1/24"), (second, "192.0.2.2/24")] {
        machine.run(&["ip", "addr", "add", address, "dev", "cable"])?;
        machine.run(&["ip", "link", "set", "cable", "up"])?;
    }
    Ok(())
}

const DOCKERS_RULES: &str = "table ip filter {\n\
    chain FORWARD { type filter hook forward priority filter; policy drop; }\n}\n";

/// The commands that a warning gives.
fn way_out(log: &str) -> Result<Vec<String>> {
    let line = log.lines().find(|line| line.contains("firewall drops forwarded traffic"));
    let line = line.with_context(|| format!("nothing is said of the firewall: {log}"))?;
    let (_, commands) = line.split_once("let it through: ").context("no way out is said")?;
    Ok(commands.split("; ").map(|it| it.trim().to_owned()).collect())
}

#[test]
fn a_firewall_that_drops_forwarded_traffic_is_said_with_the_way_out() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("minke-e2e").tempdir()?;
    let data = folder.path().join("engine");
    let (host, outside) = (Machine::start()?, Machine::start()?);
    join(&host, &outside)?;
    // The cable is the host's way out, as a real host has one.
    host.run(&["ip", "route", "add", "default", "via", "192.0.2.2"])?;
    host.nft(DOCKERS_RULES)?;
    let before = host.run(&["nft", "list", "table", "ip", "filter"])?;

    let mut engine = Engine::start(&host, &data, "first.log")?;
    let docker = Docker::at(folder.path().join("engine.sock").to_str().context("not UTF-8")?);
    serve_a_page(&docker, folder.path())?;
    let log = wait_until("a word about the firewall", LIMIT, || {
        Ok(Some(engine.log()?).filter(|log| log.contains("firewall")))
    })?;
    let commands = way_out(&log)?;
    println!("{commands:#?}");
    // It is as it says, and nothing of the host's own was touched.
    wait_until("the page on the host itself", LIMIT, || {
        Ok(host.sees("http://192.0.2.1:8080/").then_some(()))
    })?;
    ensure!(!outside.sees("http://192.0.2.1:8080/"), "the firewall drops nothing");
    assert_eq!(host.run(&["nft", "list", "table", "ip", "filter"])?, before);

    for command in commands {
        host.run(&["sh", "-c", &command])?;
    }
    wait_until("the page from outside", LIMIT, || {
        Ok(outside.sees("http://192.0.2.1:8080/").then_some(()))
    })?;
    // The next engine has nothing to say.
    engine.stop()?;
    let after = Engine::start(&host, &data, "second.log")?;
    let made = docker.command(&["network", "create", "other"]).output()?;
    let said = String::from_utf8_lossy(&made.stderr).into_owned() + &after.log()?;
    assert!(!said.contains("firewall"), "{said}");
    drop(after);
    Ok(())
}

/// What the demo says of the time from a changed line to its answer.
const STAGES: [&str; 7] = ["pack", "build", "store", "notify", "pull", "start", "total"];
/// Whose memory it shows.
const PROGRAMS: [&str; 7] = [
    "minke-cloud serve",
    "minke-cloud registry",
    "minke-device engine",
    "minke-device supervisor",
    "minke-device tunnel",
    "minke-device keeper",
    "minke-shim",
];

#[test]
fn the_demo_runs_behind_such_a_firewall_and_says_so() -> Result<()> {
    let demo = Demo::new()?;
    demo.host.nft(DOCKERS_RULES)?;
    let before = demo.host.run(&["nft", "list", "ruleset"])?;
    let said = demo.run(&["--exit"])?;
    let commands = way_out(&said)?;
    ensure!(commands.iter().all(|command| command.starts_with("iptables -I FORWARD")), "{said}");
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    for stage in STAGES {
        let is_row = |row: &&&str| row.split_whitespace().next() == Some(stage);
        let row = rows.iter().find(is_row).with_context(|| format!("no {stage} in {said}"))?;
        ensure!(row.split_whitespace().nth(2) == Some("ms"), "{row}");
    }
    for program in PROGRAMS {
        let row = rows.iter().find_map(|row| row.strip_prefix(program));
        let row = row.with_context(|| format!("no {program} in {said}"))?;
        let numbers: Vec<f64> = row.split_whitespace().flat_map(str::parse).collect();
        ensure!(numbers.len() == 3 && numbers.iter().all(|it| *it > 0.0), "{program}: {row}");
    }
    // Nothing of the demo stays: no rule, no bridge, no folder.
    demo.is_gone()?;
    assert_eq!(demo.host.run(&["nft", "list", "ruleset"])?, before);
    Ok(())
}

/// Starts a container that serves a page on port 8080, from an image that is made here.
fn serve_a_page(docker: &Docker, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    std::fs::write(root.join("index.html"), "here\n")?;
    std::fs::write(root.join("Dockerfile"), "FROM scratch\nCOPY . /\n")?;
    let root = root.to_str().context("a path that is not UTF-8")?;
    let built =
        docker.command(&["build", "-t", "page", root]).env("DOCKER_BUILDKIT", "0").output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let serve = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/"];
    docker.run(&[&["run", "-d", "-p", "8080:80", "page"], &serve[..]].concat())?;
    Ok(())
}
