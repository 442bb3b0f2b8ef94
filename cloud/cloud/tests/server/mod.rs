//! A real `minke-cloud` process for a test, on a free port, with a data directory of its own.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

pub const EMAIL: &str = "admin@example.org";
pub const PASSWORD: &str = "correct horse battery";

/// The program that is tested.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minke-cloud"));
    for name in
        ["MINKE_ADMIN_EMAIL", "MINKE_ADMIN_PASSWORD", "MINKE_PUBLIC_URL", "MINKE_DATABASE_URL"]
    {
        command.env_remove(name);
    }
    command
}

/// A running server; killed when dropped.
pub struct Server {
    pub url: String,
    /// What it printed before it said that it listens.
    pub said: Vec<String>,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `serve` with the administrator [`EMAIL`].
    pub fn start(data: &Path, more: &[&str]) -> Server {
        let mut command = program();
        command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).args(more);
        Server::run(command.env("MINKE_ADMIN_EMAIL", EMAIL).env("MINKE_ADMIN_PASSWORD", PASSWORD))
    }

    /// Starts a command and waits until it says where it listens.
    pub fn run(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        let mut said = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(patience) {
                Ok(line) => match line.strip_prefix("Listening on ") {
                    Some(rest) => {
                        let url = rest.split_whitespace().next().unwrap().to_owned();
                        return Server { url, said, child };
                    }
                    None => said.push(line),
                },
                Err(_) => {
                    let _ = child.kill();
                    panic!("the server did not start; it said {said:?}, and {:?}", child.wait());
                }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits; gives whether it ended well.
    pub fn stop(mut self) -> bool {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    /// Resident memory in kB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// Somebody who calls a server.
pub struct Client {
    http: reqwest::Client,
    pub url: String,
    pub token: String,
}

impl Client {
    pub fn with_token(url: &str, token: &str) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60));
        Client { http: http.build().unwrap(), url: url.to_owned(), token: token.to_owned() }
    }

    pub async fn log_in(url: &str, password: &str) -> Client {
        let mut client = Client::with_token(url, "");
        let login = json!({"username": EMAIL, "password": password});
        client.token = client.post("/login_", &login).await.expect(200).text;
        client
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Client::send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Client::send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        Client::send(self.request(Method::PATCH, path).json(body)).await
    }

    /// Makes a row; gives it.
    pub async fn make(&self, resource: &str, row: Value) -> Value {
        self.post(&format!("/v7/{resource}"), &row).await.expect(201).json()
    }

    /// Makes a fleet; gives its number.
    pub async fn fleet(&self, name: &str) -> i64 {
        let first =
            async |query: &str| self.get(query).await.expect(200).json()["d"][0]["id"].clone();
        let row = json!({
            "app_name": name, "is_of__class": "fleet",
            "organization": first("/v7/organization?$select=id").await,
            "is_for__device_type": first("/v7/device_type?$select=id&$filter=slug eq 'qemux86-64'").await,
        });
        self.make("application", row).await["id"].as_i64().unwrap()
    }

    /// Makes a device of a fleet; gives its uuid and the device as a client.
    pub async fn device(&self, fleet: i64) -> (String, Client) {
        let uuid = minke_cloud_api::random_hex();
        let body = json!({"application": fleet, "device_type": "qemux86-64", "uuid": uuid});
        let answer = self.post("/device/register", &body).await.expect(201).json();
        (uuid, Client::with_token(&self.url, answer["api_key"].as_str().unwrap()))
    }
}
