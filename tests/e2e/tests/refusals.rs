//! What is refused, in words that help: broken projects, wrong credentials, foreign rows, images for
//! another processor. Nothing of it touches what runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use minke_tests_e2e::{DEVICE, PATIENCE, TestSite};
use minke_tests_testkit::{FLEET, Site, get, request};
use serde_json::Value;

/// A project of a few files in a folder of its own.
fn project(files: &[(&str, &str)]) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        match text.strip_prefix("-> ") {
            Some(target) => std::os::unix::fs::symlink(target, path)?,
            None => fs::write(path, text)?,
        }
    }
    Ok(folder)
}

/// Pushes what is to be refused; returns what the command wrote to stderr.
fn refused(site: &Site, fleet: &str, source: &Path) -> Result<String> {
    let source = source.to_str().context("the folder is not UTF-8")?;
    let output = site.cli().output(&["push", fleet, "--source", source])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "the push of {source} was taken: {text}");
    Ok(text)
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// The files of a project, and what its refusal must say.
type Broken = (&'static [(&'static str, &'static str)], &'static [&'static str]);

#[test]
fn a_broken_project_is_refused_with_its_place_and_the_old_release_goes_on() -> Result<()> {
    let test = TestSite::with_device()?;
    let site = &test.site;
    test.weather.push(site)?;
    test.weather.wait_for_answer(site, DEVICE)?;
    let before = test.docker()?.containers()?;
    let releases = site.cli().json(&["release", "list", FLEET])?;

    let broken: [Broken; 6] = [
        (
            &[("Dockerfile", "FROM busybox\nRNU true\n")],
            &["Dockerfile: line 2, column 1", "unknown instruction `RNU`"],
        ),
        (
            &[("docker-compose.yml", "services:\n  a:\n    image: busybox\n    ports: eighty\n")],
            &["docker-compose.yml: line 4, column 12", "expected"],
        ),
        (
            &[("docker-compose.yml", "services:\n  a:\n    build: ../outside\n")],
            &["docker-compose.yml: line 3, column 12", "`../outside`", "leads outside the project"],
        ),
        (
            &[("docker-compose.yml", "services:\n  a:\n    build: ./a\n"), ("a", "-> /etc")],
            &["`a`", "leads outside the project"],
        ),
        (&[("readme.txt", "hello")], &["holds no project", "docker-compose.yml", "Dockerfile"]),
        // Refused by a step, not by reading: there is a release, which failed.
        (&[("Dockerfile", "FROM busybox\nRUN echo why && exit 7\n")], &["7"]),
    ];
    for (files, words) in broken {
        let folder = project(files)?;
        says(&refused(site, FLEET, folder.path())?, words);
    }

    let after = site.cli().json(&["release", "list", FLEET])?;
    let failed: Vec<&Value> = after.as_array().into_iter().flatten().collect();
    assert_eq!(failed.len(), 2, "only the step that failed made a release: {after}");
    assert_eq!(failed[0]["status"], "failed");
    says_why(site, &failed[0]["id"])?;
    is_told_of(site, &failed[1]["id"])?;
    assert_eq!(failed[1]["commit"], releases[0]["commit"]);
    assert_eq!(site.cli().json(&["fleet", FLEET])?["commit"], releases[0]["commit"]);
    test.weather.wait_for_answer(site, DEVICE)?;
    assert_eq!(test.docker()?.containers()?, before);
    test.site.stop()
}

/// A release whose step failed keeps what the step wrote and why it ended.
fn says_why(site: &Site, release: &Value) -> Result<()> {
    let shown = site.cli().json(&["release", "show", &release.to_string()])?;
    let log = shown["build_log"].as_str().context("a failed release has no log")?;
    says(log, &["FROM busybox", "RUN echo why", "why\n"]);
    let image = &shown["images"][0];
    assert_eq!(image["status"], "failed", "{shown}");
    says(image["error_message"].as_str().context("no error is kept")?, &["7"]);
    Ok(())
}

/// A release that was built keeps what the builder wrote of each service, and how large its images are.
fn is_told_of(site: &Site, release: &Value) -> Result<()> {
    let shown = site.cli().json(&["release", "show", &release.to_string()])?;
    let log = shown["build_log"].as_str().context("a release has no log")?;
    let images = shown["images"].as_array().context("a release has no images")?;
    assert_eq!(images.len(), 3, "{shown}");
    for image in images {
        says(log, &[image["service"].as_str().context("an image without a service")?]);
        assert!(image["size"].as_u64() > Some(0), "{image}");
        assert!(image["error_message"].is_null(), "{image}");
    }
    Ok(())
}

#[test]
fn strangers_projects_and_processors_are_refused() -> Result<()> {
    let test = TestSite::start()?;
    too_many_files(&test)?;
    wrong_credentials(&test)?;
    foreign_rows(&test)?;
    wrong_processor(&test)?;
    test.site.stop()
}

fn too_many_files(test: &TestSite) -> Result<()> {
    let folder = project(&[("Dockerfile", "FROM busybox\n")])?;
    // Links are made ten times as fast as files; a file may have some 65,000.
    for number in 0..=200_000 {
        let path = folder.path().join(number.to_string());
        match number % 50_000 {
            0 => fs::write(path, "")?,
            more => fs::hard_link(folder.path().join((number - more).to_string()), path)?,
        }
    }
    says(&refused(&test.site, FLEET, folder.path())?, &["more than 200000 files"]);
    Ok(())
}

fn wrong_credentials(test: &TestSite) -> Result<()> {
    let (url, (email, _)) = (test.site.url(), test.site.login());
    let json = [("Content-Type", "application/json")];
    let body = format!(r#"{{"username":"{email}","password":"not this one"}}"#);
    let answer = request("POST", &format!("{url}/login_"), &json, &body, PATIENCE)?;
    assert_eq!(answer.status, 401, "{}", answer.body);
    let key = [("Authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    for path in ["/v7/device", "/user/v1/whoami", "/device/v3/00/state"] {
        let answer = request("GET", &format!("{url}{path}"), &key, "", PATIENCE)?;
        assert_eq!(answer.status, 401, "{path}: {}", answer.body);
    }
    let output = test.site.cli().output(&["login", url, "--email", email, "--password", "no"])?;
    assert!(!output.status.success());
    says(&String::from_utf8_lossy(&output.stderr), &["password"]);
    // Who was logged in still is.
    test.site.cli().run(&["whoami"])?;
    Ok(())
}

fn foreign_rows(test: &TestSite) -> Result<()> {
    let (site, url) = (&test.site, test.site.url());
    let uuid = site.cli().json(&["device", "register", FLEET])?["uuid"].clone();
    let uuid = uuid.as_str().context("the device has no uuid")?;
    let output = Command::new(site.binaries().path("minke-cloud"))
        .args(["admin", "--data"])
        .arg(site.logs().with_file_name("cloud"))
        .args(["create-user", "--email", "stranger@minke.local"])
        .env("MINKE_PASSWORD", "a long password")
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = [("Content-Type", "application/json")];
    let body = r#"{"username":"stranger@minke.local","password":"a long password"}"#;
    let token = request("POST", &format!("{url}/login_"), &json, body, PATIENCE)?;
    assert_eq!(token.status, 200, "{}", token.body);
    let bearer = format!("Bearer {}", token.body.trim().trim_matches('"'));
    let own = [("Authorization", bearer.as_str())];
    let application = test.call("GET", "/v7/application?$select=id,slug", "")?;
    assert_eq!(rows(&application.body)?.len(), 1);
    for path in [
        "/v7/application?$select=id".to_owned(),
        "/v7/device?$select=id".to_owned(),
        format!("/v7/device(uuid='{uuid}')?$select=id"),
        format!("/v7/device?$select=id&$filter=uuid%20eq%20'{uuid}'"),
        "/v7/release?$select=id".to_owned(),
    ] {
        let answer = request("GET", &format!("{url}{path}"), &own, "", PATIENCE)?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(rows(&answer.body)?.is_empty(), "{path}: {}", answer.body);
    }
    let logs = request("GET", &format!("{url}/device/v2/{uuid}/logs"), &own, "", PATIENCE)?;
    assert_eq!(logs.status, 401, "{}", logs.body);
    Ok(())
}

fn rows(body: &str) -> Result<Vec<Value>> {
    let value: Value = serde_json::from_str(body)?;
    Ok(value["d"].as_array().context("an answer without rows")?.clone())
}

fn wrong_processor(test: &TestSite) -> Result<()> {
    let (fleet, needs) = match std::env::consts::ARCH {
        "x86_64" => ("raspberrypi3", "linux/arm"),
        _ => ("qemux86-64", "linux/amd64"),
    };
    test.site.cli().run(&["fleet", "create", "other", "--type", fleet])?;
    let folder = project(&[("Dockerfile", "FROM busybox\nRUN true\n")])?;
    let has = format!("linux/{}", if needs == "linux/arm" { "amd64" } else { "arm64" });
    let text = refused(&test.site, "other", folder.path())?;
    says(&text, &["Dockerfile: line 1", "`busybox`", &has, fleet, needs]);
    let releases = test.site.cli().json(&["release", "list", "other"])?;
    assert_eq!(releases.as_array().map(Vec::len), Some(0), "{releases}");
    // The server is as well as before.
    assert_eq!(get(&format!("{}/ping", test.site.url()), Duration::from_secs(30))?.status, 200);
    Ok(())
}
