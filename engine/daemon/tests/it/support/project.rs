//! Projects of the Dockerfile corpus: `tests/corpus/<name>/`.
//!
//! ```text
//!   project.json     what it shows and how it is built ([`Project`])
//!   context/         what is built; a directory `x.tar.gz.d` stands for the archive `x.tar.gz`
//!   site/            what a web server has, for projects that fetch
//!   expected.txt     the image: its configuration and what it adds to its base
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// `project.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    #[serde(skip)]
    pub name: String,
    /// In a few words.
    pub about: String,
    /// What it shows.
    pub features: Vec<String>,
    /// Further arguments of `docker build`. `{site}` is the web server, `{arch}` the processor.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The last argument, when it is not the context's directory.
    pub place: Option<String>,
    /// File of the context that is given as standard input.
    pub stdin: Option<String>,
    /// Headers of the CLI's requests.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// `site/project` is served as the git repository `project.git`, with the tag `v1`.
    #[serde(default)]
    pub repository: bool,
    /// Images that are made first.
    #[serde(default)]
    pub before: Vec<Before>,
    /// How many layers it has above its base, where that matters.
    pub layers: Option<usize>,
    /// Docker's own classic builder makes the same.
    #[serde(default)]
    pub dockerd: bool,
    /// Why it does not.
    pub not_dockerd: Option<String>,
}

/// An image made before.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    pub tag: String,
    pub context: String,
}

/// Where the corpus is.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

impl Project {
    /// Every project, by name.
    pub fn all() -> Vec<Project> {
        let mut all: Vec<Project> = fs::read_dir(corpus())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(path.join("project.json")).unwrap();
                let mut project: Project = serde_json::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                project.name = path.file_name().unwrap().to_str().unwrap().to_owned();
                assert_ne!(project.dockerd, project.not_dockerd.is_some(), "{}", project.name);
                project
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn dir(&self) -> PathBuf {
        corpus().join(&self.name)
    }

    pub fn tag(&self) -> String {
        format!("corpus/{}", self.name)
    }

    /// Copies one of its directories, with the modes that git knows, whatever the umask made of them.
    pub fn copy(&self, part: &str, to: &Path) {
        let from = self.dir().join(part);
        fs::create_dir_all(to).unwrap();
        if from.exists() {
            copy(&from, to);
        }
    }

    /// Puts what its web server has into a directory.
    pub fn serve(&self, to: &Path) {
        self.copy("site", to);
        if self.repository {
            repository(&to.join("project"), &to.join("project.git"));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let target = to.join(&name);
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), &target).unwrap();
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
            let executable = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
            set_mode(&target, if executable { 0o755 } else { 0o644 });
        } else if let Some(archive) = name.strip_suffix(".d").filter(|n| n.contains(".tar")) {
            pack(&path, &to.join(archive));
        } else {
            fs::create_dir(&target).unwrap();
            copy(&path, &target);
            set_mode(&target, 0o755);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Packs a directory's content; everything belongs to 1000:1001.
fn pack(dir: &Path, archive: &Path) {
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    let gzip = archive.extension().is_some_and(|end| end == "gz");
    let names: Vec<_> =
        fs::read_dir(copied.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut tar = Command::new("tar");
    tar.arg(if gzip { "-czf" } else { "-cf" }).arg(archive);
    tar.args(["--owner=1000", "--group=1001", "--numeric-owner", "--sort=name"]);
    tar.args(["--mtime=@1700000000", "--format=ustar"]);
    must(tar.arg("-C").arg(copied.path()).args(names));
}

fn repository(work: &Path, bare: &Path) {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(work);
        command.args(["-c", "user.name=test", "-c", "user.email=test@example.org"]);
        must(command.args(arguments));
    };
    git(&["init", "--quiet", "--initial-branch=main", "."]);
    git(&["add", "--all", "."]);
    git(&["commit", "--quiet", "--message=first"]);
    git(&["tag", "v1"]);
    git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let mut serve = Command::new("git");
    must(serve.arg("-C").arg(bare).arg("update-server-info"));
}

fn must(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
