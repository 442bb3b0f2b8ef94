//! The official SDKs of npm and PyPI, unmodified, against a real server: see `sdk/loop.mjs` and
//! `sdk/loop.py`.
//!
//! They come from their registries, once, into `target/tools`.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use server::{EMAIL, PASSWORD, Server};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

/// The directory `target/tools/<name>`, filled by `install` if the list of what is wanted in it
/// has changed.
fn tools(name: &str, list: &str, install: impl FnOnce(&Path) -> Command) -> PathBuf {
    let wanted = fs::read(source(list)).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_minke-cloud"));
    let tools = built.ancestors().nth(2).unwrap().join("tools").join(name);
    let stamp = tools.join("installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return tools;
    }
    fs::create_dir_all(&tools).unwrap();
    fs::write(tools.join(list), &wanted).unwrap();
    let mut command = install(&tools);
    let output = command.current_dir(&tools).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(stamp, wanted).unwrap();
    tools
}

/// Runs an SDK's script against a server of its own; it must say that it is done.
fn run(script: &mut Command) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&data.path().join("data"), &[]);
    let Output { status, stdout, stderr } = script
        .env("MINKE_URL", &server.url)
        .env("MINKE_EMAIL", EMAIL)
        .env("MINKE_PASSWORD", PASSWORD)
        .env("MINKE_HOME", data.path().join("home"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stdout);
    let complaints = String::from_utf8_lossy(&stderr);
    assert!(status.success() && said.ends_with("done\n"), "{said}\n{complaints}");
}

#[test]
fn the_official_sdk_of_npm_does_all_of_its_work_here() {
    let tools = tools("balena-sdk", "package.json", |_| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock"]);
        npm
    });
    // Beside node_modules, where Node looks for what a script imports.
    let script = tools.join("loop.mjs");
    fs::copy(source("loop.mjs"), &script).unwrap();
    run(Command::new(tools.join("node_modules/.bin/node")).arg(&script));
}

#[test]
fn the_official_sdk_of_pypi_does_all_of_its_work_here() {
    let tools = tools("balena-sdk-python", "requirements.txt", |tools| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-warn-script-location", "--upgrade"]);
        pip.arg("--target").arg(tools).args(["--requirement", "requirements.txt"]);
        pip
    });
    let mut script = Command::new("python3");
    run(script.arg("-B").arg(source("loop.py")).env("PYTHONPATH", &tools));
}
