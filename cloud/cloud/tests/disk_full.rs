//! A full disk: said, nothing torn, and all well again when there is room.

mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use server::{Client, EMAIL, PASSWORD, Server};

/// A server whose data directory is a small file system of its own mount namespace.
fn start_small(directory: &Path) -> Server {
    let script = r#"mount -t tmpfs -o size=24m minke-test "$1" && exec "$2" serve --data "$1/data" --listen 127.0.0.1:0"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(directory);
    command.arg(env!("CARGO_BIN_EXE_minke-cloud"));
    command.env("MINKE_ADMIN_EMAIL", EMAIL).env("MINKE_ADMIN_PASSWORD", PASSWORD);
    Server::run(&mut command)
}

/// Fills the file system to the last byte; gives the file to remove.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[tokio::test]
async fn a_full_disk_is_said_and_costs_nothing_that_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let server = start_small(directory.path());
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let fleet = admin.fleet("weather").await;
    let (uuid, device) = admin.device(fleet).await;
    let logs = format!("/device/v2/{uuid}/logs");
    device.post(&logs, &json!([{"message": "before"}])).await.expect(201);

    let seen = PathBuf::from(format!("/proc/{}/root", server.pid()));
    let seen = seen.join(directory.path().strip_prefix("/").unwrap());
    let filler = fill(&seen);
    let row = json!({"application": fleet, "name": "BIG", "value": "x".repeat(500_000)});
    let refused = admin.post("/v7/application_environment_variable", &row).await.expect(503);
    assert!(refused.text.contains("disk is full"), "{}", refused.text);
    let line = json!([{"message": "x".repeat(9000)}]);
    let refused = device.post(&logs, &line).await.expect(503);
    assert!(refused.text.contains("cannot keep logs"), "{}", refused.text);
    // What only reads goes on.
    Client::log_in(&server.url, PASSWORD).await;
    admin.get(&format!("/v7/application({fleet})")).await.expect(200);

    fs::remove_file(filler).unwrap();
    admin.post("/v7/application_environment_variable", &row).await.expect(201);
    device.post(&logs, &json!([{"message": "after"}])).await.expect(201);
    let entries = admin.get(&logs).await.expect(200).json();
    let messages: Vec<&str> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages, ["before", "after"]);
    assert!(server.stop());
}
