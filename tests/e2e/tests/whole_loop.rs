//! The demo's own path: push, run, change, run again; then everything is gone.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minke_tests_e2e::{DEVICE, TestSite};
use minke_tests_testkit::{FLEET, get, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_change_of_one_line_reaches_the_device() -> Result<()> {
    let mut test = TestSite::with_device()?;
    let first = test.weather.push_and_measure(&test.site, DEVICE, &mut |_| {})?;
    println!("first release: {first:?}");
    test.weather.change_greeting("Hello from the second release")?;
    let second = test.weather.push_and_measure(&test.site, DEVICE, &mut |_| {})?;
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
    images_of_a_user(&test)?;
    test.site.stop()
}

/// The docker CLI pulls and pushes through the device's engine as the user, skopeo without an engine;
/// nobody else may.
fn images_of_a_user(test: &TestSite) -> Result<()> {
    let answer = test.call("GET", "/v7/image?$orderby=id%20desc&$top=1", "")?;
    let rows: serde_json::Value = serde_json::from_str(&answer.body)?;
    let image = rows["d"][0]["is_stored_at__image_location"].as_str().context("no image")?;
    let registry = image.split('/').next().context("no registry")?;
    let token = test.site.cli().token()?;
    let login = tempfile::tempdir()?;
    let user = STANDARD.encode(format!("admin:{token}"));
    let config = serde_json::json!({"auths": {registry: {"auth": user}}});
    std::fs::write(login.path().join("config.json"), config.to_string())?;
    let stranger = tempfile::tempdir()?;
    let docker = test.docker()?;
    let run = |config: &tempfile::TempDir, words: &[&str]| -> Result<(bool, String)> {
        let output = docker.command(words).env("DOCKER_CONFIG", config.path()).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let own = format!("{image}:mine");
    let (refused, said) = run(&stranger, &["pull", image])?;
    ensure!(!refused && said.contains("denied"), "{said}");
    for words in [&["pull", image][..], &["tag", image, &own], &["push", &own]] {
        let (done, said) = run(&login, words)?;
        ensure!(done, "{words:?}: {said}");
    }
    let (refused, said) = run(&stranger, &["push", &own])?;
    ensure!(!refused && said.contains("denied"), "{said}");
    let layout = tempfile::tempdir()?;
    let layout = format!("dir:{}", layout.path().display());
    let (user, stored) = (format!("admin:{token}"), format!("docker://{own}"));
    let copied = format!("docker://{image}:copied");
    let from = ["--src-tls-verify=false", "--src-creds", &user];
    let to = ["--dest-tls-verify=false", "--dest-creds", &user];
    skopeo(&[&["copy", "--preserve-digests"], &from[..], &[&stored, &layout]].concat())?;
    skopeo(&[&["copy", "--preserve-digests"], &to[..], &[&layout, &copied]].concat())?;
    let digest = |place: &str| {
        let words = ["inspect", "--tls-verify=false", "--creds", &user, "--format={{.Digest}}"];
        skopeo(&[&words[..], &[place]].concat())
    };
    ensure!(digest(&stored)? == digest(&copied)?, "the copy is another image");
    let tags = skopeo(&["inspect", "--tls-verify=false", "--creds", &user, &stored])?;
    ensure!(tags.contains("\"mine\"") && tags.contains("\"copied\""), "{tags}");
    let refused = skopeo(&["copy", "--src-tls-verify=false", &stored, &layout]);
    ensure!(refused.is_err_and(|said| said.to_string().contains("denied")), "a stranger may copy");
    Ok(())
}

/// skopeo with these words; what it prints. An error is what it complains of.
fn skopeo(words: &[&str]) -> Result<String> {
    let output = std::process::Command::new("skopeo").args(words).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "skopeo {}: {complaints}", words[0]);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A project without a compose file is one service on the device's own network, as it is with balena.
#[test]
fn a_lone_dockerfile_answers_on_the_devices_own_network() -> Result<()> {
    let test = TestSite::with_device()?;
    let project = tempfile::tempdir()?;
    let dockerfile = "FROM busybox\nRUN mkdir /www && echo alone > /www/index.html\n\
        CMD [\"httpd\", \"-f\", \"-p\", \"8099\", \"-h\", \"/www\"]\n";
    std::fs::write(project.path().join("Dockerfile"), dockerfile)?;
    let source = project.path().to_str().context("a path that is not UTF-8")?;
    test.site.cli().run(&["push", FLEET, "--source", source])?;
    let device = test.site.device(DEVICE)?;
    let url = format!("http://{}:8099/", device.address);
    let answer = wait_until("an answer of the service", SOON, || {
        Ok(get(&url, SOON).ok().filter(|answer| answer.status == 200))
    })?;
    assert_eq!(answer.body, "alone\n");
    let containers = test.docker()?.containers()?;
    let names: Vec<&String> = containers.keys().collect();
    assert!(matches!(names[..], [name] if name.starts_with("main_")), "{names:?}");
    test.site.stop()
}
