//! balena's own command line, unmodified, against a real server: it logs in, makes a fleet, pushes a
//! project whose build it shows as it goes, and reads back what there is.
//!
//! It comes from the npm registry, once, into `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use minke_tests_e2e::TestSite;

const INSTALL: &str = include_str!("balena_cli/install.sh");
const DOCKERFILE: &str = "FROM busybox\nRUN echo built by the official client\n";

/// The folder that it is installed in; again when the way of installing it has changed.
fn installed() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("this program is in no target folder")?;
    let tools = target.join("tools/balena-cli");
    let stamp = tools.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == INSTALL) {
        return Ok(tools);
    }
    let _ = fs::remove_dir_all(&tools);
    fs::create_dir_all(&tools)?;
    let output = Command::new("sh").args(["-c", INSTALL]).current_dir(&tools).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(stamp, INSTALL)?;
    Ok(tools)
}

/// The command line of somebody who uses this server.
struct Official<'t> {
    tools: PathBuf,
    test: &'t TestSite,
}

impl Official<'_> {
    /// What a command says; it must end well.
    fn run(&self, words: &[&str]) -> Result<String> {
        let url = self.test.site.url();
        let host = url.strip_prefix("http://").context("the server has TLS")?;
        let home = self.test.folder.path().join("balena");
        let output = Command::new(self.tools.join("node"))
            .arg(self.tools.join("package/bin/run.js"))
            .args(words)
            .env("HOME", &home)
            .env("BALENARC_DATA_DIRECTORY", home.join("data"))
            .env("BALENARC_API_URL", url)
            .env("BALENARC_BUILDER_URL", url)
            .env("BALENARC_BALENA_URL", host)
            .env("BALENARC_NO_ANALYTICS", "1")
            .env("BALENARC_UNSUPPORTED", "1")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`balena {}`: {said}{complaint}", words.join(" "));
        Ok(said + &complaint)
    }

    /// Runs a command that must say all of these.
    fn says(&self, words: &[&str], expected: &[&str]) -> Result<String> {
        let said = self.run(words)?;
        for text in expected {
            ensure!(said.contains(text), "`balena {}` says no `{text}`: {said}", words.join(" "));
        }
        Ok(said)
    }
}

fn project(folder: &Path) -> Result<String> {
    let project = folder.join("lone");
    fs::create_dir_all(&project)?;
    fs::write(project.join("Dockerfile"), DOCKERFILE)?;
    Ok(project.to_str().context("a folder without a name")?.to_owned())
}

#[test]
fn the_official_command_line_pushes_and_manages_here() -> Result<()> {
    let tools = installed()?;
    let test = TestSite::start()?;
    let (email, password) = test.site.login();
    let balena = Official { tools, test: &test };
    let login = ["login", "--credentials", "--email", email, "--password", password];
    balena.says(&login, &["Successfully logged in as: admin"])?;
    balena.says(&["whoami"], &[email])?;
    let create = ["fleet", "create", "single", "--type", "generic-amd64", "-o", "admin"];
    balena.says(&create, &["admin/single"])?;
    balena.says(&["fleet", "list"], &["admin/single", "generic-amd64"])?;

    let source = project(test.folder.path())?;
    let push = ["push", "single", "--source", &source];
    let streamed =
        ["Step 2/2", "built by the official client", "is ready", "Image size", "admin/single"];
    balena.says(&push, &streamed)?;
    balena.says(&["release", "list", "single"], &["success", "0.0.0"])?;
    let broken = test.folder.path().join("lone/Dockerfile");
    fs::write(broken, "FROM busybox\nRUNN true\n")?;
    let refused = balena.run(&push).err().context("a broken Dockerfile was built")?.to_string();
    ensure!(refused.contains("line 2") && refused.contains("RUNN"), "{refused}");

    let uuid = "0123456789abcdef0123456789abcdef";
    balena.says(&["device", "register", "single", "--uuid", uuid], &[uuid])?;
    balena.says(&["device", "list", "--fleet", "single"], &[&uuid[..7]])?;
    balena.run(&["device", "rename", uuid, "bench"])?;
    balena.says(&["device", uuid], &["BENCH", "admin/single"])?;
    balena.run(&["env", "set", "COLOUR", "red", "--fleet", "single"])?;
    balena.run(&["env", "set", "COLOUR", "blue", "--device", uuid])?;
    balena.says(&["env", "list", "--device", uuid], &["COLOUR", "red", "blue"])?;
    balena.run(&["tag", "set", "place", "roof", "--device", uuid])?;
    balena.says(&["tag", "list", "--device", uuid], &["place", "roof"])?;
    balena.says(&["api-key", "generate", "bench", "never"], &["will not be shown again"])?;
    balena.run(&["device", "rm", uuid, "--yes"])?;
    balena.run(&["fleet", "rm", "single", "--yes"])?;
    ensure!(!balena.run(&["fleet", "list"])?.contains("admin/single"));
    test.site.stop()
}
