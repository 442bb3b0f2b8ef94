//! Debian's packages, downloaded and unpacked below the target directory. They are not installed: that
//! would start daemons, add a kernel to the machine's boot menu, or meet other versions of its packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::run;

/// What is in these packages, below `tools/<name>` of the target directory.
pub fn unpacked(tools: &Path, name: &str, packages: &[&str]) -> PathBuf {
    once(tools, name, |own| {
        with_newest_lists(|| download(packages, own));
    })
}

/// What is in the package that a package of a name without a version stands for.
pub fn unpacked_newest(tools: &Path, name: &str, package: &str) -> PathBuf {
    once(tools, name, |own| {
        with_newest_lists(|| download(&[&stands_for(package)], own));
    })
}

fn download(packages: &[&str], folder: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    apt.arg("download").args(packages).current_dir(folder);
    apt
}

/// What the machine's lists name may have been replaced since: then they are fetched anew.
fn with_newest_lists(command: impl Fn() -> Command) {
    let done = command().status().is_ok_and(|status| status.success());
    if !done {
        run(Command::new("apt-get").args(["update", "-qq"]));
        run(&mut command());
    }
}

/// What is in a package and in all it needs that this machine lacks.
pub fn unpacked_with_needs(tools: &Path, name: &str, package: &str) -> PathBuf {
    once(tools, name, |own| {
        // As apt is told, nothing of the package's source is installed here: neither an older nor a
        // newer version of a part can be in the way of the whole.
        let status = std::fs::read_to_string("/var/lib/dpkg/status").unwrap();
        let family = package.split('-').next().unwrap();
        let other = |paragraph: &&str| !paragraph.starts_with(&format!("Package: {family}-"));
        let kept: Vec<&str> = status.split("\n\n").filter(other).collect();
        std::fs::write(own.join("status"), kept.join("\n\n")).unwrap();
        std::fs::create_dir_all(own.join("partial")).unwrap();
        let set = |name: &str, value: &Path| format!("{name}={}", value.display());
        let status = set("Dir::State::status", &own.join("status"));
        let archives = set("Dir::Cache::archives", own);
        with_newest_lists(|| {
            let mut apt = Command::new("apt-get");
            apt.args(["install", "-y", "-qq", "--no-install-recommends", "--download-only"]);
            apt.args(["-o", &status, "-o", &archives, "-o", "Debug::NoLocking=1", package]);
            apt
        });
    })
}

fn stands_for(package: &str) -> String {
    let shown = Command::new("apt-cache").args(["depends", package]).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    line.unwrap_or_else(|| panic!("apt knows no {package}: {shown:?}")).to_owned()
}

/// Other tests may do the same at the same time: whoever is first wins, with equal content.
fn once(tools: &Path, name: &str, download: impl FnOnce(&Path)) -> PathBuf {
    let unpacked = tools.join(name);
    if unpacked.exists() {
        return unpacked;
    }
    let own = tools.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&own).unwrap();
    download(&own);
    let content = own.join("content");
    for entry in std::fs::read_dir(&own).unwrap() {
        let package = entry.unwrap().path();
        if package.extension().is_some_and(|end| end == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&content));
        }
    }
    let _ = std::fs::rename(&content, &unpacked);
    std::fs::remove_dir_all(&own).unwrap();
    unpacked
}
