//! A host whose own firewall drops what it forwards, as one with Docker does: the engine says so, with
//! the commands that let its traffic through; nobody's rules are changed by it.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use minke_tests_e2e::Docker;
use minke_tests_testkit::{Binaries, Signal, base_images, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A machine of its own network, held by a process that does nothing.
struct Machine {
    holder: Child,
}

impl Machine {
    fn start() -> Result<Machine> {
        // It speaks once it is in its namespace, and ends with its input.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let mut word = [0; 3];
        let output = holder.stdout.as_mut().context("no output")?;
        std::io::Read::read_exact(output, &mut word).context("the machine did not start")?;
        Ok(Machine { holder })
    }

    fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// A command on this machine.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid(), "--"]).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot start nsenter")?;
        if !output.status.success() {
            bail!("`{}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let mut child = self.command(&["nft", "-f", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no input")?.write_all(rules.as_bytes())?;
        ensure!(child.wait()?.success(), "nft refused {rules}");
        Ok(())
    }

    /// Whether a page can be had from `address` here.
    fn sees(&self, address: &str) -> bool {
        self.run(&["timeout", "2", "busybox", "wget", "-q", "-O", "-", address]).is_ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

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

#[test]
fn the_demo_runs_behind_such_a_firewall_and_says_so() -> Result<()> {
    let binaries = Binaries::beside_this_program()?;
    let folder = tempfile::Builder::new().prefix("minke-e2e").tempdir()?;
    // The demo keeps what it makes where cargo would build, and finds the base images there.
    let cache = binaries.path("../base-images");
    base_images::prepare(&cache, &mut |text| println!("{text}"))?;
    std::os::unix::fs::symlink(cache.canonicalize()?, folder.path().join("base-images"))?;
    let host = Machine::start()?;
    host.nft(DOCKERS_RULES)?;
    let before = host.run(&["nft", "list", "ruleset"])?;
    let output = host
        .command(&[])
        .arg(binaries.path("xtask"))
        .args(["demo", "--built", "--exit"])
        .env("CARGO_TARGET_DIR", folder.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\n{complaints}");
    let commands = way_out(&said)?;
    ensure!(commands.iter().all(|command| command.starts_with("iptables -I FORWARD")), "{said}");
    // Nothing of the demo stays: no rule, no bridge, no folder.
    assert_eq!(host.run(&["nft", "list", "ruleset"])?, before);
    let links = host.run(&["ip", "-brief", "link"])?;
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(!folder.path().join("demo").exists());
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
