//! A registry that asks who is there: Debian's docker-registry with a file of passwords.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Site, ask, ask_with, clis, docker_registry, wait_until};

/// `me` with the password `secret`.
const PASSWORDS: &str = "me:$2b$04$GwXfCFmhwltPrJwqJswndeAOQqF3OucTQCYsbE98eGedS360VjxEK\n";

/// A running registry of the site's namespace.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(site: &Site) -> Registry {
        let below = |name: &str| site.dir.path().join(name).display().to_string();
        // Free in a namespace that holds nobody else.
        let address = "127.0.0.1:5001".to_owned();
        std::fs::write(below("passwords"), PASSWORDS).unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            below("registry"),
            below("passwords"),
        );
        std::fs::write(below("registry.yml"), config).unwrap();
        let child = Command::new(docker_registry())
            .args(["serve", &below("registry.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the registry", || std::net::TcpStream::connect(&address).ok());
        Registry { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The header with credentials.
fn header(site: &Site, json: &str) -> String {
    let text = site.command_of("base64", &["-w0"], json.as_bytes()).ok();
    format!("X-Registry-Auth: {}", text.replace('+', "-").replace('/', "_"))
}

#[test]
fn a_login_opens_push_and_pull_and_a_logout_closes_them() {
    let site = Site::new();
    let registry = Registry::start(&site);
    let name = format!("{}/team/app:v1", registry.address);
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["tag", "busybox", &name]).ok();
        let refused = cli(&["push", &name]);
        assert!(refused.code == 1 && refused.stderr.contains("no basic auth"), "{refused:?}");
        let login = |password: &str| {
            let words = ["login", "-u", "me", "--password-stdin", &registry.address];
            site.command(&docker, &words, password.as_bytes())
        };
        let wrong = login("wrong");
        assert!(wrong.code == 1 && wrong.stderr.contains("login attempt to"), "{wrong:?}");
        assert!(!wrong.stderr.contains("wrong"), "a password is told nobody: {wrong:?}");
        assert!(login("secret").ok().contains("Login Succeeded"));
        assert!(cli(&["push", &name]).ok().contains("digest: sha256:"));
        cli(&["rmi", &name]).ok();
        assert_eq!(cli(&["run", "--rm", &name, "echo", "pulled"]).ok(), "pulled\n");
        cli(&["rmi", &name]).ok();
        cli(&["logout", &registry.address]).ok();
        let refused = cli(&["pull", &name]);
        assert!(refused.code == 1 && refused.stderr.contains("docker login"), "{refused:?}");
    }
}

#[test]
fn credentials_that_are_none_have_the_apis_statuses() {
    let site = Site::new();
    let registry = Registry::start(&site);
    let address = &registry.address;
    let me =
        |password: &str| json!({"username": "me", "password": password, "serveraddress": address});
    let auth = |password: &str| ask(&site, "POST", "/v1.47/auth", Some(&me(password)));
    let good = auth("secret");
    assert_eq!((good.status, &good.json()["Status"]), (200, &json!("Login Succeeded")));
    let bad = auth("wrong");
    assert!(bad.status == 401 && !bad.text.contains("wrong"), "{}", bad.text);
    let nobody = json!({"username": "me", "password": "x", "serveraddress": "127.0.0.1:1"});
    assert_eq!(ask(&site, "POST", "/v1.47/auth", Some(&nobody)).status, 500);

    let right = header(&site, &me("secret").to_string());
    let wrong = header(&site, &me("wrong").to_string());
    site.docker(&["tag", "busybox", &format!("{address}/team/app:v1")]).ok();
    let push = format!("/v1.47/images/{address}/team/app/push?tag=v1");
    let pushed = |head: &[&str]| ask_with(&site, "POST", &push, head, b"").text;
    assert!(pushed(&[]).contains("\"errorDetail\"") && pushed(&[&wrong]).contains("denied"));
    assert!(pushed(&[&right]).contains("\"Digest\":\"sha256:"));

    let dist = |name: &str, head: &[&str]| {
        ask_with(
            &site,
            "GET",
            &format!("/v1.47/distribution/{address}/team/{name}/json"),
            head,
            b"",
        )
    };
    let known = dist("app:v1", &[&right]);
    assert_eq!((known.status, &known.json()["Platforms"][0]["os"]), (200, &json!("linux")));
    assert_eq!(dist("nosuch:v1", &[&right]).status, 404);
    assert_eq!([dist("app:v1", &[&wrong]).status, dist("app:v1", &[]).status], [401, 401]);
    assert_eq!(dist("app:v1", &["X-Registry-Auth: !!"]).status, 400);

    let pull = |name: &str, head: &[&str]| {
        let path = format!("/v1.47/images/create?fromImage={address}/team/{name}&tag=v1");
        ask_with(&site, "POST", &path, head, b"")
    };
    for (name, head) in [("app", &wrong), ("nosuch", &right)] {
        let refused = pull(name, &[head]);
        assert_eq!(refused.status, 404, "{}", refused.text);
    }
    let refused = pull("app", &[]);
    assert!(refused.text.contains("pull access denied for"), "{}", refused.text);
    assert_eq!(pull("app", &[&right]).status, 200);

    let search = format!("/v1.47/images/search?term={address}/app");
    let none = ask_with(&site, "GET", &search, &[&right], b"");
    assert!(none.status == 404 && none.json()["message"].is_string(), "{}", none.text);
}
