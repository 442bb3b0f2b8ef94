//! The demo's own path: push, run, change, run again; then everything is gone.

use anyhow::Result;
use minke_tests_e2e::{DEVICE, TestSite};
use minke_tests_testkit::{FLEET, get, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_change_of_one_line_reaches_the_device() -> Result<()> {
    let mut test = TestSite::with_device()?;
    let first = test.weather.push_and_measure(&test.site, DEVICE)?;
    println!("first release: {first:?}");
    test.weather.change_greeting("Hello from the second release")?;
    let second = test.weather.push_and_measure(&test.site, DEVICE)?;
    println!("second release: {second:?}");
    for row in test.site.memory().server.iter().chain(&test.site.memory().devices) {
        println!("{row:?}");
    }

    let device = test.site.device(DEVICE)?;
    let page = get(&format!("http://{}/", device.address), SOON)?;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<canvas"), "the page shows no plot: {}", page.body);
    let uuid = device.uuid.clone();
    let cli = test.site.cli();

    // The device says of itself what it runs.
    let shown = wait_until("the report of the second release", SOON, || {
        let device = cli.json(&["device", &uuid])?;
        let services = device["services"].as_array().cloned().unwrap_or_default();
        let settled = device["is_running"] == device["should_run"]
            && services.len() == 3
            && services.iter().all(|service| service["status"] == "Running");
        Ok(settled.then_some(device))
    })?;
    assert_eq!(shown["is_online"], true);
    assert_eq!(shown["overall_status"], "operational");

    // Its services' lines arrive, by service, with what the device says of that service.
    let lines = wait_until("the sensor's first line", SOON, || {
        let lines = cli.json_lines(&["logs", &uuid, "--service", "sensor"])?;
        let begins = |line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|it| it.starts_with("the sensor begins"))
        };
        Ok(lines.iter().any(begins).then_some(lines))
    })?;
    assert!(lines.iter().all(|line| line["service"] == "sensor"), "{lines:?}");

    // Both releases are there, the newer one is the fleet's.
    let releases = cli.json(&["release", "list", FLEET])?;
    assert_eq!(releases.as_array().map(Vec::len), Some(2));
    assert_eq!(releases[0]["status"], "success");
    assert_eq!(cli.json(&["fleet", FLEET])?["commit"], releases[0]["commit"]);

    // A variable reaches the container without a push.
    cli.run(&["env", "set", "COLOUR=blue", "--fleet", FLEET])?;
    let socket = device.engine_socket.clone();
    wait_until("the variable in the sensor's environment", SOON, || {
        let output = std::process::Command::new("docker")
            .args(["-H", &format!("unix://{socket}"), "ps", "-q", "--filter", "name=sensor"])
            .output()?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let output = std::process::Command::new("docker")
            .args(["-H", &format!("unix://{socket}"), "exec", &id, "env"])
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("COLOUR=blue").then_some(()))
    })?;
    test.site.stop()
}
