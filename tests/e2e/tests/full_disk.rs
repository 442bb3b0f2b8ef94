//! Full disks: said, nothing torn, and all well again when there is room.

use std::time::Duration;

use anyhow::{Context, Result};
use minke_tests_e2e::{DEVICE, TestSite};
use minke_tests_testkit::{FLEET, fill_disk, get, wait_until};

const LIMIT: Duration = Duration::from_secs(200);

fn tells_of_a_full_disk(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("no space left") || text.contains("disk is full")
}

/// Adds a step that makes a file of zeros: little to send, much to store.
fn with_zeros(test: &TestSite, megabytes: u32) -> Result<()> {
    with_bytes(test, "zero", megabytes)
}

/// Adds a step that makes a file which cannot be packed.
fn with_noise(test: &TestSite, megabytes: u32) -> Result<()> {
    with_bytes(test, "urandom", megabytes)
}

/// With 0 megabytes the step goes.
fn with_bytes(test: &TestSite, of: &str, megabytes: u32) -> Result<()> {
    let device = format!("/dev/{of}");
    let recipe = test.weather.folder().join("api/Dockerfile");
    let text = std::fs::read_to_string(&recipe)?;
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains(&device)).collect();
    let step = format!("RUN dd if={device} of=/srv/{of} bs=1M count={megabytes}");
    let lines: Vec<&str> = match megabytes {
        0 => kept,
        _ => kept
            .iter()
            .flat_map(|line| match line.starts_with("EXPOSE") {
                true => vec![step.as_str(), line],
                false => vec![*line],
            })
            .collect(),
    };
    Ok(std::fs::write(&recipe, lines.join("\n") + "\n")?)
}

#[test]
fn a_release_too_large_for_a_device_is_said_and_the_old_one_goes_on() -> Result<()> {
    let mut test = TestSite::start()?;
    test.site.small_disk(&format!("devices/{DEVICE}"), 400)?;
    test.site.add_device(FLEET, DEVICE)?;
    test.weather.push(&test.site)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    let inside = test.inside()?;
    let before = test.docker()?.containers()?;

    with_zeros(&test, 600)?;
    test.weather.push(&test.site)?;
    let uuid = test.site.device(DEVICE)?.uuid.clone();
    wait_until("the device to say that its disk is full", LIMIT, || {
        let lines = test.site.cli().json_lines(&["logs", &uuid])?;
        let mut texts = lines.iter().filter_map(|line| line["message"].as_str());
        Ok(texts.any(tells_of_a_full_disk).then_some(()))
    })?;
    // The old release runs as before, its image whole, and `minke device` says why.
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    assert_eq!(test.docker()?.containers()?, before);
    let row = test.device_row()?;
    assert_ne!(row["is_running"], row["should_run"], "{row}");
    let failure = row["last_failure"]["message"].as_str().unwrap_or_default();
    assert!(tells_of_a_full_disk(failure), "{row}");

    // One that cannot fit is not even fetched.
    with_zeros(&test, 0)?;
    with_noise(&test, 260)?;
    test.weather.push(&test.site)?;
    wait_until("the device to say how much is missing", LIMIT, || {
        let row = test.device_row()?;
        let failure = row["last_failure"]["message"].as_str().unwrap_or_default();
        Ok(failure.contains("not enough space").then_some(()))
    })?;
    assert_eq!(test.docker()?.containers()?, before);
    let shown = test.site.cli().run(&["device", &uuid])?;
    let line = shown.lines().find(|line| line.starts_with("last failure")).unwrap_or_default();
    assert!(line.contains("needs at least") && line.contains("are free"), "{shown}");
    println!("{line}");

    // A release that fits is taken, and of the others nothing is left.
    with_noise(&test, 0)?;
    test.weather.change_greeting("Hello from what fits")?;
    test.weather.push(&test.site)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    wait_until("the device to tidy up", LIMIT, || {
        let remains = inside.remains(&Default::default())?;
        Ok(remains.unfinished.is_empty().then_some(()))
    })?;
    test.site.stop()
}

#[test]
fn a_push_to_a_full_server_is_refused_and_the_next_one_is_taken() -> Result<()> {
    let mut test = TestSite::start()?;
    test.site.stop_cloud()?;
    let data = test.site.small_disk("cloud", 700)?;
    test.site.start_cloud()?;
    let url = test.site.url().to_owned();
    let (email, password) = test.site.login();
    test.site.cli().run(&["login", &url, "--email", email, "--password", password])?;
    test.site.cli().run(&["fleet", "create", FLEET])?;
    test.weather.push(&test.site)?;

    let filler = data.join("filler");
    fill_disk(&filler, 20)?;
    with_zeros(&test, 100)?;
    let folder = test.weather.folder().to_str().context("a folder that is not UTF-8")?.to_owned();
    let output = test.site.cli().output(&["push", FLEET, "--source", &folder])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "a push to a full disk was taken: {text}");
    assert!(tells_of_a_full_disk(&text), "{text}");
    // The server goes on, and what it had is there.
    assert_eq!(get(&format!("{url}/ping"), LIMIT)?.status, 200);
    let releases = test.site.cli().json(&["release", "list", FLEET])?;
    let good = |it: &serde_json::Value| it["status"] == "success";
    assert_eq!(releases.as_array().map(|all| all.iter().filter(|it| good(it)).count()), Some(1));

    std::fs::remove_file(filler)?;
    test.weather.push(&test.site)?;
    // All that was stored is whole: a device runs it.
    with_zeros(&test, 0)?;
    test.weather.change_greeting("Hello from a server with room")?;
    test.weather.push(&test.site)?;
    test.site.add_device(FLEET, DEVICE)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    test.site.stop()
}
