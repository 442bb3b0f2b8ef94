//! `.dockerignore` against its reference: generated patterns and files are given to the docker CLI, which
//! leaves out what it leaves out, and to our matcher.
//!
//! `MINKE_SEEDS` is how many contexts are tried.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::response::IntoResponse;
use minke_common_dockerfile::ignore::Ignore;

use crate::soak::report;
use crate::support::{Numbers, clis, seeds};

/// Names that files and directories have.
const NAMES: [&str; 10] = ["a", "b", "ab", "foo", "foobar", ".x", "x.txt", "b.txt", "c d", "foo-a"];
/// What patterns are made of.
const PARTS: [&str; 20] = [
    "a", "b", "ab", "foo", "*", "*", "**", "**", "?", "*.txt", "[ab]", "[^a]", "[a-c]b", "foo*",
    ".x", "x.txt", "..", ".", "**foo", "\\.x",
];

fn path(numbers: &mut Numbers, of: &[&str]) -> String {
    let depth = 1 + numbers.below(3);
    (0..depth).map(|_| numbers.one(of)).collect::<Vec<_>>().join("/")
}

/// A line of an ignore file.
fn line(numbers: &mut Numbers) -> String {
    let keep = if numbers.below(4) == 0 { "!" } else { "" };
    let front = numbers.one(&["", "", "", "/", "./", " "]);
    let end = numbers.one(&["", "", "", "/", " "]);
    match numbers.below(12) {
        0 => numbers.one(&["# comment", "", "!", "/", ".", "["]).to_owned(),
        _ => format!("{keep}{front}{}{end}", path(numbers, &PARTS)),
    }
}

/// What the CLI talks to: says it is a daemon, and keeps what is sent to be built.
struct Catcher {
    socket: PathBuf,
    caught: Arc<Mutex<Vec<u8>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Catcher {
    fn new(dir: &Path) -> Catcher {
        let socket = dir.join("socket");
        let caught = Arc::new(Mutex::new(Vec::new()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (keep, path) = (caught.clone(), socket.clone());
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(path).unwrap() });
        let answer = move |request: Request<Body>| {
            let keep = keep.clone();
            async move {
                let build = request.uri().path().ends_with("/build");
                let body = to_bytes(request.into_body(), 64 << 20).await.unwrap();
                if build {
                    *keep.lock().unwrap() = body.to_vec();
                }
                let headers = [("Api-Version", "1.41"), ("OSType", "linux")];
                (headers, "{\"stream\":\"caught\"}\n").into_response()
            }
        };
        let router = Router::new().fallback(answer);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Catcher { socket, caught, _runtime: runtime }
    }

    /// What the CLI sends of a context: paths, directories with a slash at the end; or what it says.
    fn sent(&self, cli: &Path, context: &Path) -> Result<BTreeSet<String>, String> {
        self.caught.lock().unwrap().clear();
        let output = Command::new(cli)
            .args(["build", "."])
            .current_dir(context)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", context.with_file_name("config"))
            .env("DOCKER_BUILDKIT", "0")
            .output()
            .unwrap();
        let caught = self.caught.lock().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let mut archive = tar::Archive::new(&caught[..]);
        let paths = archive
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap());
        Ok(paths.collect())
    }
}

/// What our matcher leaves of a context, walked as the CLI walks it: a directory that is left out is
/// entered only when a `!` pattern begins with its path.
struct Left<'a> {
    ignore: &'a Ignore,
    keeps: &'a [String],
    root: &'a Path,
    out: BTreeSet<String>,
}

impl Left<'_> {
    fn walk(&mut self, below: &str) {
        let mut names: Vec<String> = std::fs::read_dir(self.root.join(below))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in names {
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let directory = self.root.join(&path).is_dir();
            let excluded = self.ignore.excludes(&path);
            if !excluded {
                self.out.insert(if directory { format!("{path}/") } else { path.clone() });
            }
            let slashed = format!("{path}/");
            let wanted = self.keeps.iter().any(|keep| format!("{keep}/").starts_with(&slashed));
            if directory && (!excluded || wanted) {
                self.walk(&path);
            }
        }
    }
}

/// A `!` pattern without `.`, `..` and doubled slashes, as the CLI keeps it.
fn clean(pattern: &str) -> String {
    let pattern = pattern.trim();
    let rooted = pattern.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => drop(names.pop()),
            ".." if rooted => {}
            name => names.push(name),
        }
    }
    names.join("/")
}

fn ours(text: &str, root: &Path) -> Result<BTreeSet<String>, String> {
    let ignore = Ignore::parse(text).map_err(|error| error.to_string())?;
    let mut keeps: Vec<String> =
        text.lines().filter_map(|line| line.trim().strip_prefix('!')).map(clean).collect();
    // The CLI always sends these two, and says so by patterns of its own.
    keeps.extend([".dockerignore".to_owned(), "Dockerfile".to_owned()]);
    let mut left = Left { ignore: &ignore, keeps: &keeps, root, out: BTreeSet::new() };
    left.walk("");
    left.out.extend([".dockerignore".to_owned(), "Dockerfile".to_owned()]);
    Ok(left.out)
}

fn lay_out(numbers: &mut Numbers, root: &Path, text: &str) {
    std::fs::create_dir_all(root).unwrap();
    std::fs::write(root.join("Dockerfile"), "FROM scratch\n").unwrap();
    std::fs::write(root.join(".dockerignore"), text).unwrap();
    for _ in 0..30 {
        let path = root.join(path(numbers, &NAMES));
        // A name may already be a file where a directory is wanted.
        if std::fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.exists() {
            std::fs::write(path, "x").unwrap();
        }
    }
}

#[test]
fn generated_ignore_files_leave_out_what_the_docker_cli_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let catcher = Catcher::new(dir.path());
    let [newer, older] = clis();
    let (mut refused, mut different) = (0, 0);
    let seeds = seeds(60);
    for seed in 0..seeds {
        let mut numbers = Numbers::new(seed);
        let lines: Vec<String> = (0..1 + numbers.below(5)).map(|_| line(&mut numbers)).collect();
        let text = lines.join("\n");
        let root = dir.path().join(format!("context-{seed}"));
        lay_out(&mut numbers, &root, &text);
        let expected = ours(&text, &root);
        // The older one takes `**` and `!` in another way; the newer one's is what holds today.
        let readers = match text.contains("**") || text.contains('!') {
            true => &[&newer][..],
            false => &[&newer, &older],
        };
        for cli in readers {
            match (catcher.sent(cli, &root), &expected) {
                (Ok(sent), Ok(expected)) => {
                    different += usize::from(sent.len() < 32);
                    assert_eq!(&sent, expected, "seed {seed}, {cli:?}\n{text}");
                }
                (Err(_), Err(_)) => refused += 1,
                (sent, expected) => {
                    panic!("seed {seed}: {cli:?} {sent:?}, ours {expected:?}\n{text}")
                }
            }
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
    report(&format!("{seeds} contexts the same; {refused} ignore files were refused by both.\n"));
    assert!(refused > 0 && different > 0, "the generator tries too little");
}
