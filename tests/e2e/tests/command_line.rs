//! `minke` word by word against a real server, for people and for programs, also as balena's command line
//! spells it; and its log of a device over a break.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minke_tests_e2e::{PATIENCE, TestSite};
use minke_tests_testkit::{Cli, FLEET, Signal, request, signal, wait_until};
use serde_json::{Value, json};

/// How long a line of a log may take, over a break, on a busy machine.
const LINE: Duration = Duration::from_secs(60);

/// Runs a command for a person, who must be told something, and for a program; the program's answer.
fn both(cli: &Cli, words: &[&str]) -> Result<Value> {
    let text = cli.run(words)?;
    ensure!(!text.trim().is_empty(), "`minke {}` says nothing", words.join(" "));
    cli.json(words)
}

/// What a command that fails says, for people and for programs.
fn refused(cli: &Cli, words: &[&str]) -> Result<String> {
    let plain = cli.output(words)?;
    ensure!(plain.status.code() == Some(1), "`minke {}` did not fail", words.join(" "));
    let machine = cli.output(&[words, &["--json"]].concat())?;
    ensure!(machine.status.code() == Some(1), "`minke {} --json` did not fail", words.join(" "));
    let said: Value = serde_json::from_slice(&machine.stderr).context("the error is no JSON")?;
    let said = said["error"].as_str().context("no error is named")?.to_owned();
    let text = String::from_utf8_lossy(&plain.stderr).into_owned();
    ensure!(text.contains(&said), "`{said}` is not in `{text}`");
    Ok(said)
}

fn word(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[test]
fn every_command_answers_people_and_programs_by_either_spelling() -> Result<()> {
    let test = TestSite::start()?;
    fleets(test.site.cli())?;
    releases(&test)?;
    let device = register(&test)?;
    devices(test.site.cli(), word(&device["uuid"])?)?;
    variables(test.site.cli(), word(&device["uuid"])?)?;
    configurations(&test, &device)?;
    logins(&test)?;
    test.site.stop()
}

fn fleets(cli: &Cli) -> Result<()> {
    let created = cli.json(&["fleet", "create", "other", "--type", "raspberrypi4-64"])?;
    assert_eq!(created["device_type"], "raspberrypi4-64");
    // A name may look like an id.
    cli.run(&["app", "create", "2024", "-t", "generic-amd64"])?;
    assert_eq!(both(cli, &["fleet", "2024"])?["name"], "2024");
    for words in [["fleet", "list"], ["fleets", "ls"], ["app", "list"]] {
        let all = both(cli, &words)?;
        assert_eq!(all.as_array().map(Vec::len), Some(3), "{words:?}: {all}");
    }
    for words in [&["fleet", "other"][..], &["fleet", "show", "other"]] {
        assert_eq!(both(cli, words)?["slug"], created["slug"]);
    }
    let said = refused(cli, &["fleet", "nowhere"])?;
    assert!(said.contains("nowhere"), "{said}");
    Ok(())
}

fn releases(test: &TestSite) -> Result<()> {
    let cli = test.site.cli();
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("recipe"), "FROM busybox\nRUN echo built by hand\n")?;
    std::fs::rename(folder.path().join("recipe"), folder.path().join("Dockerfile.mine"))?;
    let source = word(&json!(folder.path()))?.to_owned();
    let words = ["push", FLEET, "-s", &source, "--dockerfile", "Dockerfile.mine"];
    let text = cli.run(&words)?;
    assert!(text.contains("built by hand") && text.contains("is ready"), "{text}");
    let pushed = cli.json_lines(&[&words[..], &["--draft", "-c"]].concat())?;
    let draft = pushed.last().and_then(|it| it["releaseId"].as_i64()).context("no release")?;
    for words in [["release", "list", FLEET], ["releases", "ls", FLEET]] {
        let all = both(cli, &words)?;
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
        assert_eq!((&all[0]["id"], &all[0]["is_final"]), (&json!(draft), &json!(false)));
        assert_eq!(all[1]["is_final"], true);
    }
    let draft = draft.to_string();
    let shown = both(cli, &["release", "show", &draft])?;
    let commit = word(&shown["commit"])?;
    assert_eq!(both(cli, &["release", commit])?, shown);
    let composition = both(cli, &["release", commit, "-c"])?;
    assert!(composition["services"].is_object(), "{composition}");
    let log = cli.run(&["release", "show", &commit[..7], "--log"])?;
    assert!(log.contains("built by hand"), "{log}");
    assert_eq!(word(&shown["build_log"])?.trim_end(), log.trim_end());
    assert!(shown["images"][0]["size"].as_u64() > Some(0), "{shown}");
    // So may the beginning of a commit.
    let commit = "1234567089abcdef1234567089abcdef";
    let fleet = cli.json(&["fleet", FLEET])?;
    let release = json!({
        "belongs_to__application": fleet["id"], "composition": {}, "commit": commit,
        "status": "running", "source": "local", "start_timestamp": "2026-11-21T01:52:20.448Z",
        "is_final": false,
    });
    let made = test.call("POST", "/v7/release", &release.to_string())?;
    ensure!(made.status == 201, "{}", made.body);
    for name in ["1234567", "1234567089"] {
        assert_eq!(both(cli, &["release", name])?["commit"], commit);
    }
    Ok(())
}

/// Registers devices.
fn register(test: &TestSite) -> Result<Value> {
    let cli = test.site.cli();
    let text = cli.run(&["device", "register", FLEET])?;
    assert!(text.contains("config generate --device"), "{text}");
    let uuid = "0123456789abcdef0123456789abcdef";
    let words = ["device", "register", FLEET, "--uuid", uuid, "--deviceType", "generic-amd64"];
    let device = cli.json(&words)?;
    assert_eq!(device["uuid"], uuid);
    Ok(device)
}

fn devices(cli: &Cli, uuid: &str) -> Result<()> {
    cli.run(&["device", "rename", uuid, "by-hand"])?;
    let words: [&[&str]; 4] = [
        &["device", "list"],
        &["devices", "ls"],
        &["device", "list", "--fleet", FLEET],
        &["devices", "list", "--app", FLEET],
    ];
    for words in words {
        let all = both(cli, words)?;
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{words:?}: {all}");
    }
    for words in [&["device", &uuid[..7]][..], &["device", "show", uuid]] {
        assert_eq!(both(cli, words)?["device_name"], "by-hand");
    }
    // The other one.
    let all = cli.json(&["device", "list"])?;
    let mut uuids = all.as_array().into_iter().flatten().map(|it| it["uuid"].clone());
    let other = uuids.find(|it| it != uuid).context("there is one device only")?;
    let other = word(&other)?;
    let said = refused(cli, &["device", "rm", other])?;
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(cli.json(&["device", "rm", other, "--yes"])?["uuid"], other);
    assert_eq!(cli.json(&["device", "list"])?.as_array().map(Vec::len), Some(1));
    Ok(())
}

fn variables(cli: &Cli, uuid: &str) -> Result<()> {
    let of_fleet = ["env", "list", "--fleet", FLEET];
    let of_device = ["envs", "ls", "--device", uuid];
    cli.run(&["env", "set", "A=1", "--fleet", FLEET])?;
    cli.run(&["env", "add", "B", "2", "--app", FLEET])?;
    assert_eq!(cli.run(&["env", "set", "C", "3", "--device", uuid, "--quiet"])?, "");
    // Without the value, which may be a secret.
    let set = cli.json(&["env", "set", "BALENA_HOST_X", "4", "-f", FLEET])?;
    assert_eq!(set, json!({ "name": "BALENA_HOST_X" }));
    let listed = both(cli, &of_fleet)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    // With what the device gets from its fleet.
    let listed = both(cli, &of_device)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    let own = listed.as_array().into_iter().flatten().find(|it| it["name"] == "C");
    let own = own.context("the device's own variable is not listed")?["id"].to_string();
    let configures = both(cli, &["env", "list", "--fleet", FLEET, "--config"])?;
    assert_eq!(configures[0]["name"], "BALENA_HOST_X");
    not_removed(cli, uuid)?;
    // By name, and by id as balena's command line does: flags say the kind.
    assert_eq!(cli.json(&["env", "rm", "A", "--fleet", FLEET, "--yes"])?["removed"], "A");
    cli.run(&["env", "rm", "B", "--fleet", FLEET, "-y"])?;
    cli.run(&["env", "rm", &own, "--device", "--yes"])?;
    cli.run(&["env", "rm", &configures[0]["id"].to_string(), "--config", "--yes"])?;
    assert_eq!(cli.json(&of_device)?, json!([]));
    assert_eq!(cli.json(&["env", "list", "--fleet", FLEET, "--config"])?, json!([]));
    cli.run(&of_fleet)?;
    Ok(())
}

/// An id is of one kind, and of the fleet, device and service that are named.
fn not_removed(cli: &Cli, uuid: &str) -> Result<()> {
    cli.run(&["env", "set", "S=5", "--fleet", FLEET, "--service", "main"])?;
    let listed = cli.json(&["env", "list", "--fleet", FLEET])?;
    let id = |name: &str| {
        let row = listed.as_array().into_iter().flatten().find(|it| it["name"] == name);
        row.map(|it| it["id"].to_string()).with_context(|| format!("no {name} in {listed}"))
    };
    let (of_fleet, of_service) = (id("A")?, id("S")?);
    let refusals: [(&[&str], &str); 6] = [
        (&["999999"], "no variable of a fleet has the id 999999"),
        (&["999999", "--config"], "no configuration variable of a fleet has"),
        (&[&of_fleet, "--fleet", "other"], "no variable of the fleet `other` has"),
        (&[&of_service, "-f", FLEET, "-s", "nothing"], "no variable of the service `nothing` of"),
        (&["999999", "-d", uuid, "-s", "main"], "no variable of the service `main` of the device"),
        (&[&of_fleet, "--fleet", FLEET, "--device"], "not both"),
    ];
    for (words, expected) in refusals {
        let said = refused(cli, &[&["env", "rm", "--yes"], words].concat())?;
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    assert_eq!(cli.json(&["env", "list", "--fleet", FLEET])?, listed);
    cli.run(&["env", "rm", &of_service, "--fleet", FLEET, "--service", "main", "--yes"])?;
    Ok(())
}

fn configurations(test: &TestSite, device: &Value) -> Result<()> {
    let cli = test.site.cli();
    let config = both(cli, &["config", "generate", "--fleet", FLEET])?;
    assert!(config["apiKey"].is_string() && config["apiEndpoint"].is_string(), "{config}");
    let path = test.folder.path().join("config.json");
    let output = word(&json!(path))?.to_owned();
    #[rustfmt::skip]
    let words = [
        "config", "generate", "--app", FLEET, "--version", "6.0.0", "--deviceType", "generic-amd64",
        "--network", "wifi", "--wifiSsid", "air", "--wifiKey", "a long key",
        "--appUpdatePollInterval", "20", "--initial-device-name", "first",
        "--provisioning-key-name", "by-hand", "--output", &output,
    ];
    both(cli, &words)?;
    let config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    assert_eq!(config["wifiSsid"], "air");
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let uuid = word(&device["uuid"])?;
    let key = word(&device["api_key"])?;
    let of_device = ["config", "generate", "-d", &uuid[..7], "--deviceApiKey", key];
    let config = cli.json(&of_device)?;
    assert_eq!((&config["uuid"], &config["deviceApiKey"]), (&json!(uuid), &json!(key)));
    assert!(config["apiKey"].is_null(), "{config}");
    let config = cli.json(&["config", "generate", "--device", uuid])?;
    assert_ne!(word(&config["deviceApiKey"])?, key);
    Ok(())
}

fn logins(test: &TestSite) -> Result<()> {
    let (url, (email, password)) = (test.site.url(), test.site.login());
    let token = test.site.cli().token()?;
    let other = Cli::new(test.site.binaries().path("minke"), &test.folder.path().join("other"));
    let said = refused(&other, &["whoami"])?;
    assert!(said.contains("minke login"), "{said}");
    let logins: [&[&str]; 5] = [
        &["login", url, "--token", &token],
        // The server is known from here on.
        &["login", "--token", &token],
        &["login", &token, "--token"],
        &["login", &token],
        &["login", "--credentials", "--user", email, "--password", password],
    ];
    for words in logins {
        let answer = both(&other, words)?;
        assert_eq!(answer["server"], url, "{words:?}");
        assert_eq!(both(&other, &["whoami"])?["actor"]["email"], email);
    }
    refused(&other, &["login", url, "--token", "0123456789abcdef"])?;
    assert_eq!(both(&other, &["whoami"])?["server"], url);
    assert_eq!(other.json(&["logout"])?["loggedOut"], true);
    assert_eq!(both(&other, &["logout"])?["loggedOut"], false);
    refused(&other, &["fleet", "list"])?;
    // Nobody else was logged out.
    test.site.cli().run(&["whoami"])?;
    Ok(())
}

#[test]
fn public_fleets_of_others_do_not_stand_in_the_way_of_ones_own() -> Result<()> {
    let test = TestSite::start()?;
    let mut command = Command::new(test.site.binaries().path("minke-cloud"));
    command.args(["admin", "--data"]).arg(test.folder.path().join("cloud"));
    command.args(["create-user", "--email", "bob@example.org"]);
    let made = command.env("MINKE_PASSWORD", "a long password").output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let bob = Cli::new(test.site.binaries().path("minke"), &test.folder.path().join("bob"));
    let password = "a long password";
    bob.run(&["login", test.site.url(), "-e", "bob@example.org", "--password", password])?;
    let theirs = bob.json(&["fleet", "create", FLEET])?;
    let url = format!("{}/v7/application({})", test.site.url(), theirs["id"]);
    let bearer = format!("Bearer {}", bob.token()?);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let public = json!({ "is_public": true }).to_string();
    let answer = request("PATCH", &url, &headers, &public, PATIENCE)?;
    ensure!(answer.status == 200, "{}", answer.body);

    let cli = test.site.cli();
    let slug = word(&theirs["slug"])?;
    // Anybody may look at it.
    assert_eq!(cli.json(&["fleet", slug])?["id"], theirs["id"]);
    let all = cli.json(&["fleet", "list"])?;
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    assert_ne!(all[0]["slug"], slug);
    assert_eq!(cli.json(&["fleet", FLEET])?, all[0]);
    cli.run(&["env", "set", "A=1", "--fleet", FLEET])?;
    let id = all[0]["id"].to_string();
    for name in [&id, word(&all[0]["uuid"])?] {
        assert_eq!(cli.json(&["fleet", name])?, all[0]);
    }
    assert_eq!(bob.json(&["fleet", FLEET])?["id"], theirs["id"]);
    test.site.stop()
}

#[test]
fn a_push_takes_a_dockerfile_of_any_name_and_warns_of_a_version_that_is_none() -> Result<()> {
    let test = TestSite::start()?;
    let cli = test.site.cli();
    let folder = tempfile::tempdir()?;
    let source = word(&json!(folder.path()))?.to_owned();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("app.dockerfile", "FROM busybox\nRUN echo built by hand\n")?;
    let words = ["push", FLEET, "--source", &source, "--dockerfile", "./app.dockerfile"];
    let contract =
        |version: &str| format!("name: test\ntype: sw.application\nversion: {version}\n");
    for version in ["1.02.3", "1.2.3-", "1.2.3-a..b"] {
        write("balena.yml", &contract(version))?;
        let text = cli.run(&words)?;
        assert!(text.contains("built by hand") && text.contains("is ready"), "{text}");
        assert!(text.contains(&format!("{version:?} is not a version")), "{text}");
        // From the second time on, though the images do not need it.
        write(".dockerignore", "*.dockerfile\n")?;
    }
    write("balena.yml", &contract("1.2.3-rc.1"))?;
    let text = cli.run(&words)?;
    assert!(text.contains("built by hand") && !text.contains("is not a version"), "{text}");
    let releases = cli.json(&["release", "list", FLEET])?;
    assert_eq!(releases.as_array().map(Vec::len), Some(4), "{releases}");
    assert_eq!(releases[0]["raw_version"], "1.2.3-rc.1");
    assert_eq!(releases[1]["raw_version"], "0.0.0+rev2");
    test.site.stop()
}

/// A command that goes on until it has seen enough.
struct Tail {
    child: Child,
    lines: Receiver<String>,
    complaints: tempfile::NamedTempFile,
}

impl Tail {
    fn start(cli: &Cli, words: &[&str]) -> Result<Tail> {
        let complaints = tempfile::NamedTempFile::new()?;
        let mut command = cli.command(words);
        command.stdout(Stdio::piped()).stderr(complaints.reopen()?);
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let (sender, receiver) = channel();
        // It ends with the command.
        std::thread::spawn(move || {
            lines.map_while(std::io::Result::ok).all(|line| sender.send(line).is_ok())
        });
        Ok(Tail { child, lines: receiver, complaints })
    }

    fn signal(&self, which: Signal) -> Result<()> {
        signal(self.child.id() as i32, which)
    }

    /// The next value that it writes.
    fn value(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(LINE);
        let line = line.with_context(|| format!("no line has come: {:?}", self.complaints()))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The message of the next line of a log.
    fn next(&self) -> Result<String> {
        Ok(word(&self.value()?["message"])?.to_owned())
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(self.complaints.path()).unwrap_or_default()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends lines as the device does.
fn write(test: &TestSite, device: &Value, lines: &[&str]) -> Result<()> {
    let url = format!("{}/device/v2/{}/logs", test.site.url(), word(&device["uuid"])?);
    let bearer = format!("Bearer {}", word(&device["api_key"])?);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body: Vec<Value> =
        lines.iter().map(|it| json!({ "message": it, "timestamp": 1, "isSystem": true })).collect();
    let answer = request("POST", &url, &headers, &json!(body).to_string(), PATIENCE)?;
    ensure!(answer.status == 201, "the lines were answered {}: {}", answer.status, answer.body);
    Ok(())
}

#[test]
fn what_is_followed_and_what_is_watched_goes_on_over_a_restart_of_the_server() -> Result<()> {
    let mut test = TestSite::start()?;
    let device = test.site.cli().json(&["device", "register", FLEET])?;
    let uuid = word(&device["uuid"])?.to_owned();
    follow(&mut test, &device, &uuid)?;
    let whole = test.site.cli().json_lines(&["device", "logs", &uuid, "-n", "3", "-S"])?;
    let messages: Vec<&Value> = whole.iter().map(|it| &it["message"]).collect();
    assert_eq!(messages, ["third", "fourth", "fifth"]);
    let text = test.site.cli().run(&["logs", &uuid])?;
    assert_eq!(text.lines().count(), 8, "{text}");
    watch(&mut test, &device, &uuid)?;
    test.site.stop()
}

/// Each line is shown once.
fn follow(test: &mut TestSite, device: &Value, uuid: &str) -> Result<()> {
    write(test, device, &["older", "old"])?;
    let tail = Tail::start(test.site.cli(), &["logs", uuid, "--follow", "--lines", "1", "--json"])?;
    assert_eq!(tail.next()?, "old");
    write(test, device, &["first", "second"])?;
    assert_eq!([tail.next()?, tail.next()?], ["first", "second"]);
    // It cannot connect again before the next lines are there.
    tail.signal(Signal::STOP)?;
    test.site.kill_cloud()?;
    test.site.start_cloud()?;
    write(test, device, &["third", "third", "fourth"])?;
    tail.signal(Signal::CONT)?;
    assert_eq!([tail.next()?, tail.next()?, tail.next()?], ["third", "third", "fourth"]);
    write(test, device, &["fifth"])?;
    assert_eq!(tail.next()?, "fifth");
    Ok(())
}

/// A device that runs what it should is watched no longer, also when a service has ended its work.
fn watch(test: &mut TestSite, device: &Value, uuid: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("Dockerfile"), "FROM busybox\nCMD [\"true\"]\n")?;
    let source = word(&json!(folder.path()))?.to_owned();
    test.site.cli().run(&["push", FLEET, "--source", &source])?;
    let releases = test.site.cli().json(&["release", "list", FLEET])?;
    let release = test.site.cli().json(&["release", word(&releases[0]["commit"])?])?;

    let mut tail = Tail::start(test.site.cli(), &["device", uuid, "--watch", "--json"])?;
    let seen = tail.value()?;
    assert_eq!((&seen["should_run"], &seen["is_running"]), (&release["commit"], &Value::Null));
    test.site.kill_cloud()?;
    wait_until("a look that fails", LINE, || {
        Ok(tail.complaints().contains("looking again").then_some(()))
    })?;
    test.site.start_cloud()?;
    report(test, device, &release)?;
    let mut seen = tail.value()?;
    while seen["is_running"].is_null() {
        seen = tail.value()?;
    }
    assert_eq!(seen["is_running"], release["commit"]);
    assert_eq!(seen["services"][0]["status"], "exited");
    let status = wait_until("the end of watching", LINE, || Ok(tail.child.try_wait()?))?;
    ensure!(status.success(), "{}", tail.complaints());
    Ok(())
}

/// Says for the device that it runs the release, whose one service has ended its work.
fn report(test: &TestSite, device: &Value, release: &Value) -> Result<()> {
    let fleet = test.site.cli().json(&["fleet", FLEET])?;
    let (uuid, commit) = (word(&device["uuid"])?, word(&release["commit"])?);
    let image = &release["images"][0];
    let service = json!({ "image": image["location"], "status": "exited" });
    let services = json!({ "services": { word(&image["service"])?: service } });
    let app = json!({ "release_uuid": commit, "releases": { commit: services } });
    let body = json!({ uuid: { "apps": { word(&fleet["uuid"])?: app } } });
    let bearer = format!("Bearer {}", word(&device["api_key"])?);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let url = format!("{}/device/v3/state", test.site.url());
    let answer = request("PATCH", &url, &headers, &body.to_string(), PATIENCE)?;
    ensure!(answer.status == 200, "the report was answered {}: {}", answer.status, answer.body);
    Ok(())
}
