//! A registry that asks who is there: Debian's docker-registry with a file of passwords, and with tokens
//! from somebody else.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Site, ask, ask_with, clis, docker_registry, wait_until};

/// `me` with the password `secret`.
const PASSWORDS: &str = "me:$2b$04$GwXfCFmhwltPrJwqJswndeAOQqF3OucTQCYsbE98eGedS360VjxEK\n";

/// A running registry of the site's namespace.
pub struct Registry {
    child: Child,
    pub address: String,
}

impl Registry {
    pub fn start(site: &Site) -> Registry {
        let passwords = site.dir.path().join("passwords");
        std::fs::write(&passwords, PASSWORDS).unwrap();
        let auth = format!("htpasswd: {{realm: test, path: {}}}", passwords.display());
        Registry::start_with(site, &auth)
    }

    fn start_with(site: &Site, auth: &str) -> Registry {
        let below = |name: &str| site.dir.path().join(name).display().to_string();
        // Free in a namespace that holds nobody else.
        let address = "127.0.0.1:5001".to_owned();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             auth: {{{auth}}}\nhttp: {{addr: \"{address}\"}}\n",
            below("registry"),
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
pub fn header(site: &Site, json: &str) -> String {
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

/// Signs what it is told to allow, as servers of tokens do that a registry trusts by their certificate.
const SIGN: &str = r#"
    set -e
    b64() { base64 -w0 | tr '+/' '-_' | tr -d =; }
    der=$(openssl x509 -in cert.pem -outform DER | base64 -w0)
    head=$(printf '{"alg":"RS256","typ":"JWT","x5c":["%s"]}' "$der" | b64)
    now=$(date +%s)
    form='{"iss":"tokens","aud":"registry","sub":"me","jti":"%s","iat":%s,"nbf":%s,"exp":%s,"access":%s}'
    body=$(printf "$form" $now $now $((now - 60)) $((now + 60)) "$1" | b64)
    mark=$(printf %s "$head.$body" | openssl dgst -sha256 -sign key.pem -binary | b64)
    printf '{"token":"%s","expires_in":60}' "$head.$body.$mark"
"#;

/// A server of tokens: pull for everybody, push for `me` with the password `secret`.
fn serve_tokens(dir: &Path) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines =
                BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let (first, rest) = head.split_first().unwrap();
            // `me:secret`.
            let known = rest.iter().any(|line| line.ends_with("Basic bWU6c2VjcmV0"));
            let anonymous = !rest.iter().any(|line| line.starts_with("authorization: "));
            let decoded = first.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
            let scope = decoded.split(['?', '&', ' ']).find_map(|word| word.strip_prefix("scope="));
            let access = scope.map_or("[]".to_owned(), |scope| {
                let name = scope.split(':').nth(1).unwrap();
                let actions = if known { json!(["pull", "push"]) } else { json!(["pull"]) };
                json!([{"type": "repository", "name": name, "actions": actions}]).to_string()
            });
            let mut sign = Command::new("sh");
            let token = sign.args(["-c", SIGN, "sign", &access]).current_dir(&dir).output();
            let token = String::from_utf8(token.unwrap().stdout).unwrap();
            let status = if known || anonymous { "200 OK" } else { "401 Unauthorized" };
            let (length, kind) = (token.len(), "Content-Type: application/json");
            let answer = format!("HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {length}\r\n");
            let _ =
                stream.write_all(format!("{answer}Connection: close\r\n\r\n{token}").as_bytes());
        }
    });
    format!("http://{address}/token")
}

#[test]
fn a_registry_that_wants_tokens_gets_them_from_where_it_says() {
    let site = Site::new();
    let dir = site.dir.path();
    let make =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"];
    let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
    let files = ["-keyout", key.to_str().unwrap(), "-out", cert.to_str().unwrap()];
    site.command_of("openssl", &[&make[..], &files].concat(), b"").ok();
    let realm = serve_tokens(dir);
    let auth = format!(
        "token: {{realm: \"{realm}\", service: registry, issuer: tokens, rootcertbundle: {}}}",
        cert.display()
    );
    let registry = Registry::start_with(&site, &auth);
    let name = format!("{}/team/app:v1", registry.address);
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["tag", "busybox", &name]).ok();
        let refused = cli(&["push", &name]);
        assert!(refused.code == 1 && refused.stderr.contains("denied"), "{refused:?}");
        let login = |password: &str| {
            let words = ["login", "-u", "me", "--password-stdin", &registry.address];
            site.command(&docker, &words, password.as_bytes())
        };
        assert_eq!(login("wrong").code, 1);
        assert!(login("secret").ok().contains("Login Succeeded"));
        assert!(cli(&["push", &name]).ok().contains("digest: sha256:"));
        cli(&["logout", &registry.address]).ok();
        cli(&["rmi", &name]).ok();
        // Whoever says nothing of himself may pull.
        assert_eq!(cli(&["run", "--rm", &name, "echo", "pulled"]).ok(), "pulled\n");
        cli(&["rmi", &name]).ok();
    }
}
