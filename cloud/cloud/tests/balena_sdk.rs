//! The official npm balena-sdk, unmodified, against a real server: see `sdk/loop.mjs`.
//!
//! The SDK and the Node it wants come from npm, once, into `target/tools/balena-sdk`.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use server::{EMAIL, PASSWORD, Server};

/// The directory with `node_modules`, made if what it was made for has changed.
fn tools() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/package.json");
    let wanted = fs::read(&source).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_minke-cloud"));
    let tools = built.ancestors().nth(2).unwrap().join("tools/balena-sdk");
    let stamp = tools.join("installed.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return tools;
    }
    fs::create_dir_all(&tools).unwrap();
    fs::write(tools.join("package.json"), &wanted).unwrap();
    let output = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .current_dir(&tools)
        .output()
        .expect("npm, which Debian's package npm has");
    assert!(output.status.success(), "npm: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(stamp, wanted).unwrap();
    tools
}

#[test]
fn the_official_sdk_does_all_of_its_work_here() {
    let tools = tools();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&data.path().join("data"), &[]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/loop.mjs");
    // Beside node_modules, where Node looks for what a script imports.
    let script = tools.join("loop.mjs");
    fs::copy(source, &script).unwrap();
    let output = Command::new(tools.join("node_modules/.bin/node"))
        .arg(&script)
        .env("MINKE_URL", &server.url)
        .env("MINKE_EMAIL", EMAIL)
        .env("MINKE_PASSWORD", PASSWORD)
        .env("MINKE_HOME", data.path().join("home"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("done\n"), "{said}\n{complaints}");
}
