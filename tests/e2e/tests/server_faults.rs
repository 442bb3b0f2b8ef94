//! The server goes away in the middle of an update, or moves: the device goes on where it was, and
//! what was acknowledged is there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minke_tests_e2e::{Container, DEVICE, Follower, Phase, TestSite};
use minke_tests_testkit::{FLEET, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(200);
const SERVICE: &str = "api";
/// Cannot be compressed, and takes a device a second or two to unpack.
const BALLAST: u64 = 64 << 20;

type Containers = BTreeMap<String, Container>;

/// How the server goes away.
#[derive(Debug, Clone, Copy)]
enum Away {
    Stopped,
    Killed,
}

#[test]
fn an_update_goes_on_when_the_server_is_back() -> Result<()> {
    let mut test = TestSite::with_device()?;
    test.weather.push(&test.site)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    test.site.cli().run(&["env", "set", "KEPT=yes", "--fleet", FLEET])?;
    let first = wait_for_report(&test)?;
    let uuid = test.site.device(DEVICE)?.uuid.clone();
    let line = |test: &TestSite| -> Result<BTreeSet<String>> {
        let lines = test.site.cli().json_lines(&["logs", &uuid, "--service", "sensor"])?;
        Ok(lines.iter().map(|it| format!("{} {}", it["timestamp"], it["message"])).collect())
    };
    let before = wait_until("the sensor's first line", LIMIT, || {
        Ok(Some(line(&test)?).filter(|lines| !lines.is_empty()))
    })?;

    let cases = [
        (Phase::Unpack, Away::Stopped, "Hello after a stop during the pull"),
        (Phase::Pull, Away::Killed, "Hello after a kill during the pull"),
        (Phase::Start, Away::Stopped, "Hello after a stop during the report"),
        (Phase::Report, Away::Killed, "Hello after a kill during the report"),
    ];
    let mut commits = BTreeSet::from([first]);
    for (phase, away, greeting) in cases {
        commits.insert(
            interrupted(&mut test, phase, away, greeting)
                .with_context(|| format!("{away:?} in {phase:?}"))?,
        );
    }

    // What was acknowledged before is there: releases, variables, lines.
    let releases = test.site.cli().json(&["release", "list", FLEET])?;
    let listed: BTreeSet<String> = releases
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| it["status"] == "success")
        .filter_map(|it| it["commit"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(listed, commits);
    let variables = test.site.cli().run(&["env", "list", "--fleet", FLEET])?;
    assert!(variables.contains("KEPT"), "{variables}");
    let after = line(&test)?;
    assert!(after.is_superset(&before), "{before:?} is not in {after:?}");
    test.site.stop()
}

/// Pushes, and takes the server away when the device has reached the phase; returns the commit.
fn interrupted(test: &mut TestSite, phase: Phase, away: Away, greeting: &str) -> Result<String> {
    add_ballast(test, 16 << 20)?;
    test.weather.change_greeting(greeting)?;
    let socket = test.site.device(DEVICE)?.engine_socket.clone();
    let follower = Follower::start(test.inside()?, &socket, SERVICE)?;
    let push = test.weather.push(&test.site)?;
    follower.wait_for(phase, LIMIT)?;
    let begun = follower.phase();
    match away {
        Away::Stopped => test.site.stop_cloud()?,
        Away::Killed => test.site.kill_cloud()?,
    }
    // An orderly stop lets what is on its way go through.
    println!("{away:?} from {begun:?} to {:?}, aimed at {phase:?}", follower.phase());
    test.site.start_cloud()?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    let commit = wait_for_report(test)?;
    let id = push.last().and_then(|it| it["releaseId"].as_i64()).context("no release")?;
    let release = test.site.cli().json(&["release", "show", &id.to_string()])?;
    ensure!(release["commit"] == commit.as_str(), "{commit} runs instead of {release}");
    Ok(commit)
}

#[test]
fn a_pull_that_a_stop_interrupts_goes_on_at_the_byte_where_it_was() -> Result<()> {
    let mut test = TestSite::with_device()?;
    test.weather.push(&test.site)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    wait_for_report(&test)?;
    add_ballast(&test, BALLAST)?;
    test.weather.change_greeting("Hello after a pull in two parts")?;
    let partial = test.inside()?.engine("images/partial");
    let sent = test.site.bytes_to_devices()?;
    test.weather.push(&test.site)?;
    wait_until("a third of the layer", LIMIT, || {
        Ok((largest(&partial) > BALLAST / 3).then_some(()))
    })?;
    test.site.stop_cloud()?;
    let kept = largest(&partial);
    ensure!(kept > 0 && kept < BALLAST, "the stop let the pull go through: {kept} bytes");
    let first = test.site.bytes_to_devices()? - sent;
    test.site.start_cloud()?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    let whole = test.site.bytes_to_devices()? - sent;
    println!("{kept} of {BALLAST} bytes were kept; {first} were sent before, {whole} in all");
    // What was on its way when the server stopped is all that is sent twice; a whole layer again would
    // be a third more at least.
    ensure!(whole < BALLAST + BALLAST / 5, "{whole} bytes were sent for {BALLAST}");
    test.site.stop()
}

/// The size of the largest file in a folder.
fn largest(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0)
}

/// Something new that takes a moment to pull.
fn add_ballast(test: &TestSite, bytes: u64) -> Result<()> {
    let folder = test.weather.folder().join(SERVICE);
    let recipe = std::fs::read_to_string(folder.join("Dockerfile"))?;
    if !recipe.contains("ballast") {
        let recipe = recipe.replace("COPY api.pl", "COPY ballast /srv/ballast\nCOPY api.pl");
        std::fs::write(folder.join("Dockerfile"), recipe)?;
    }
    let mut ballast = Vec::new();
    std::fs::File::open("/dev/urandom")?.take(bytes).read_to_end(&mut ballast)?;
    Ok(std::fs::write(folder.join("ballast"), ballast)?)
}

/// Waits until the server knows that the device runs what it should; returns the commit.
fn wait_for_report(test: &TestSite) -> Result<String> {
    wait_until("the device's report", LIMIT, || {
        let row = test.device_row()?;
        let services = row["services"].as_array().cloned().unwrap_or_default();
        let commit = row["is_running"].as_str().map(str::to_owned);
        let runs = |it: &Value| it["status"] == "Running" && it["commit"] == row["is_running"];
        let is_there = row["is_running"] == row["should_run"]
            && services.len() == 3
            && services.iter().all(runs);
        Ok(commit.filter(|_| is_there))
    })
}

#[test]
fn a_server_at_another_address_changes_nothing_on_the_device() -> Result<()> {
    let mut test = TestSite::with_device()?;
    test.weather.push(&test.site)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    wait_for_report(&test)?;
    let docker = test.docker()?;
    let before = docker.containers()?;
    let layers = layers(&test)?;
    let old = test.site.url().to_owned();

    test.site.stop_cloud()?;
    test.site.move_cloud();
    test.site.start_cloud()?;
    let new = test.site.url().to_owned();
    ensure!(new != old, "the server did not move");
    let (email, password) = test.site.login();
    test.site.cli().run(&["login", &new, "--email", email, "--password", password])?;
    let config = test.site.device_data(DEVICE).join("config.json");
    let mut known: Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    known["apiEndpoint"] = new.as_str().into();
    test.site.stop_device(DEVICE)?;
    std::fs::write(&config, serde_json::to_vec_pretty(&known)?)?;
    test.site.start_device(DEVICE)?;

    // The device asks the new address and says so; it then has the whole target, and is content.
    wait_until("the device at the server's new address", LIMIT, || {
        Ok((test.device_row()?["is_online"] == true).then_some(()))
    })?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    wait_for_report(&test)?;
    let uuid = test.site.device(DEVICE)?.uuid.clone();
    test.site.cli().run(&["env", "set", "MOVED=yes", "--device", &uuid, "--service", "sensor"])?;
    // What the new address says is done, for the one service that it changes and for no other.
    let other = |all: &Containers| -> Vec<(String, String)> {
        let others = all.iter().filter(|(name, _)| !name.starts_with("sensor_"));
        others.map(|(name, it)| (name.clone(), it.id.clone())).collect()
    };
    let sensor = |all: &Containers| {
        all.iter().find(|(name, _)| name.starts_with("sensor_")).map(|(_, it)| it.clone())
    };
    let moved = wait_until("the variable in the sensor", LIMIT, || {
        let after = docker.containers()?;
        let now = sensor(&after).filter(|it| it.status == "running");
        let is_new = now.is_some_and(|now| sensor(&before).is_some_and(|old| old.id != now.id));
        Ok(is_new.then_some(after))
    })?;
    assert_eq!(other(&moved), other(&before));
    assert_eq!(sensor(&moved).map(|it| it.image), sensor(&before).map(|it| it.image));
    assert_eq!(self::layers(&test)?, layers);
    test.site.stop()
}

/// The layers on the device with the moment at which each was made.
fn layers(test: &TestSite) -> Result<BTreeSet<(String, std::time::SystemTime)>> {
    let folder = test.inside()?.engine("images/layers");
    std::fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            let made = entry.path().join("manifest").metadata()?.modified()?;
            Ok((entry.file_name().to_string_lossy().into_owned(), made))
        })
        .collect()
}
