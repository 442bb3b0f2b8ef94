//! Git repositories as contexts and as sources of `ADD`, fetched by the program `git`.
//!
//! Only over http, https and git: a build has no keys for ssh, and a path of this machine is none of its
//! business. The repository's own hooks, filters and configuration do not run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::build::archive::{Limits, over};
use crate::build::confine::confine;
use crate::build::fetch;
use crate::build::tree::{self, Tree};

/// How long one call of git may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most bytes on disk of a repository: its history as far as that is fetched, and its files.
const MAX_BYTES: u64 = 4 << 30;
/// Most memory of one git: it holds each tree and commit whole, however large a stranger makes them.
const MEMORY: u64 = 1 << 30;
/// Between two looks at how much is there.
const LOOK: Duration = Duration::from_millis(250);
/// Most bytes of git's complaints that are shown.
const MAX_WORDS: u64 = 2000;

/// A repository, what to take of it, and which directory in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    url: String,
    /// A branch, tag or commit; empty is the default branch.
    reference: String,
    /// Empty is all of it.
    directory: String,
}

impl Source {
    /// What the context of a build may look like: also `github.com/…`.
    pub(crate) fn of_context(text: &str) -> Option<Source> {
        match text.starts_with("github.com/") {
            true => Source::of_url(&format!("https://{text}")),
            false => Source::of_url(text),
        }
    }

    /// What a source of `ADD` may look like: `https://…/name.git#reference:directory` and the like.
    pub(crate) fn of_url(text: &str) -> Option<Source> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let web = url.starts_with("http://") || url.starts_with("https://");
        let ssh = url.starts_with("git@") || url.starts_with("ssh://");
        let github = url.starts_with("https://github.com/") && url.split('/').count() == 5;
        if !(url.starts_with("git://") || ssh || (web && (url.ends_with(".git") || github))) {
            return None;
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        Some(Source { url: url.into(), reference: reference.into(), directory: directory.into() })
    }
}

/// What was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is, for keys: the same words are the same files.
    pub(crate) identity: String,
}

/// Fetches into the new directory `dir`; answers where what was asked for is in it. `checksum` is the
/// commit that it must be, whole or its beginning.
pub(crate) async fn fetch(
    source: &Source,
    dir: &Path,
    checksum: Option<&str>,
    keep_git_dir: bool,
) -> Result<Fetched, String> {
    if !["http://", "https://", "git://"].iter().any(|s| source.url.starts_with(s)) {
        return Err("a build has no ssh keys: use the https address of the repository".into());
    }
    if source.reference.starts_with('-') || source.url.contains(char::is_whitespace) {
        return Err(format!("`{}` is no branch, tag or commit", source.reference));
    }
    std::fs::create_dir(dir).map_err(|e| format!("making a directory: {e}"))?;
    let place = Place { dir, bytes: MAX_BYTES, files: Limits::default().entries };
    let commit = place.take(source).await?;
    if let Some(wanted) = checksum
        && (wanted.len() < 7 || !commit.starts_with(&wanted.to_ascii_lowercase()))
    {
        return Err(format!("the commit is {commit}; expected {wanted}"));
    }
    if !keep_git_dir {
        let history = dir.join(".git");
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(history)).await;
        let removed = removed.map_err(std::io::Error::other).flatten();
        removed.map_err(|e| format!("removing .git: {e}"))?;
    }
    let directory = &source.directory;
    let origin = if keep_git_dir { source.url.as_str() } else { "" };
    let identity = format!("git {commit} {directory:?} {origin}");
    Ok(Fetched { path: below(dir, directory)?, identity })
}

/// A directory of the checked out files, wherever links in it lead inside.
fn below(dir: &Path, directory: &str) -> Result<PathBuf, String> {
    let failed = |e: std::io::Error| format!("the directory `{directory}`: {e}");
    let tree = Tree::open(dir).map_err(failed)?;
    let found = tree.directory(directory).map_err(failed)?;
    tree::host_path(std::os::fd::AsFd::as_fd(&found)).map_err(failed)
}

/// Git with all programs that it has started, killed on drop unless it has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Its helpers go on writing when only git itself is killed.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Why git did not do what it should.
#[derive(Debug)]
enum Failure {
    /// It said so itself.
    Refused(String),
    /// It was ended, or could not begin.
    Stopped(String),
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        match failure {
            Failure::Refused(why) | Failure::Stopped(why) => why,
        }
    }
}

/// A directory that git works in, and how much may be in it.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    dir: &'a Path,
    /// Bytes on disk.
    bytes: u64,
    /// Files and directories.
    files: u64,
}

impl Place<'_> {
    /// Fetches and checks out what is asked for; its commit.
    async fn take(&self, source: &Source) -> Result<String, String> {
        let reference =
            if source.reference.is_empty() { "HEAD" } else { source.reference.as_str() };
        self.git(&["init", "--quiet", "--template=", "."]).await?;
        self.git(&["remote", "add", "origin", &source.url]).await?;
        let shallow = ["fetch", "--quiet", "--depth=1", "origin", reference];
        let taken = match self.git(&shallow).await {
            Ok(_) => "FETCH_HEAD".to_owned(),
            // Some servers give whole histories only, or no commit that has no name.
            Err(Failure::Refused(_)) => {
                let all = "+refs/*:refs/remotes/origin/*";
                self.git(&["fetch", "--quiet", "--tags", "origin", all]).await?;
                self.whole(&source.url, reference).await?
            }
            // Of what was too much already, all would be more.
            Err(Failure::Stopped(why)) => return Err(why),
        };
        self.git(&["checkout", "--quiet", "--detach", &taken]).await?;
        if self.dir.join(".gitmodules").is_file() {
            self.git(&["submodule", "--quiet", "update", "--init", "--recursive"]).await?;
        }
        Ok(self.git(&["rev-parse", "HEAD"]).await?.trim().to_owned())
    }

    /// The commit of a reference after all were fetched.
    async fn whole(&self, url: &str, reference: &str) -> Result<String, String> {
        let candidates = [
            format!("refs/remotes/origin/heads/{reference}"),
            format!("refs/tags/{reference}"),
            format!("refs/remotes/origin/{reference}"),
            reference.to_owned(),
        ];
        for candidate in candidates {
            let commit = format!("{candidate}^{{commit}}");
            if reference != "HEAD"
                && let Ok(found) = self.git(&["rev-parse", "--verify", "--quiet", &commit]).await
            {
                return Ok(found.trim().to_owned());
            }
        }
        // What `HEAD` is there, the server says.
        let said = self.git(&["ls-remote", url, reference]).await?;
        match said.split_whitespace().next() {
            Some(commit) => Ok(commit.to_owned()),
            None => Err(format!("`{reference}` is no branch, tag or commit of it")),
        }
    }

    /// Runs git; its output, or what it complained about.
    async fn git(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut child = start(self.dir, arguments).map_err(Failure::Stopped)?;
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut group = Group(leader);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (out, complaint) = tokio::join!(take(stdout, 1 << 20), take(stderr, MAX_WORDS));
            (child.wait().await, out, complaint)
        };
        // Whichever arm is dropped: the group is killed then.
        let (status, out, complaint) = tokio::select! {
            done = tokio::time::timeout(PATIENCE, work) => done.map_err(|_| {
                Failure::Stopped(format!("git took longer than {PATIENCE:?}; that is the limit"))
            })?,
            why = self.outgrown() => return Err(Failure::Stopped(why)),
        };
        group.0 = None;
        let status = status.map_err(|e| Failure::Stopped(format!("git: {e}")))?;
        let complaint = format!("git {}: {}", arguments[0], complaint.trim());
        match status.code() {
            Some(0) => Ok(out),
            _ if complaint.contains("ut of memory") => Err(Failure::Stopped(format!(
                "{complaint} (git may take {} MiB; that is the limit)",
                MEMORY >> 20
            ))),
            Some(_) => Err(Failure::Refused(complaint)),
            None => Err(Failure::Stopped(complaint)),
        }
    }

    /// Ends when too much is in the directory, or its disk is nearly full, and says so.
    async fn outgrown(&self) -> String {
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            let (dir, begun) = (self.dir.to_owned(), Instant::now());
            let (bytes, files) = (self.bytes, self.files);
            let looked = tokio::task::spawn_blocking(move || {
                fetch::spare(std::fs::File::open(&dir)?, 0)?;
                let found = Found::below(&dir);
                match () {
                    () if found.bytes > bytes => Err(over(bytes, "bytes")),
                    () if found.files > files => Err(over(files, "files")),
                    () => Ok(()),
                }
            });
            if let Ok(Err(error)) = looked.await {
                return format!("the repository: {error}");
            }
            // Looking at many files takes a small part of the time only.
            pause = LOOK.max(begun.elapsed() * 4);
        }
    }
}

/// How much is somewhere.
#[derive(Debug, Default)]
struct Found {
    /// Bytes that it takes on the disk, or that its files have where that is more.
    bytes: u64,
    /// Files and directories.
    files: u64,
}

impl Found {
    /// All that is below a directory. What goes meanwhile is not counted.
    fn below(dir: &Path) -> Found {
        let mut all = Found::default();
        let mut waiting = vec![dir.to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let Ok(found) = entry.metadata() else { continue };
                all.files += 1;
                let length = if found.is_dir() { 0 } else { found.len() };
                all.bytes += length.max(found.blocks() * 512);
                if found.is_dir() {
                    waiting.push(entry.path());
                }
            }
        }
        all
    }
}

/// Starts git as the leader of a group of processes.
fn start(dir: &Path, arguments: &[&str]) -> Result<Child, String> {
    let mut command = Command::new("git");
    command
        .args(["-c", "protocol.allow=never", "-c", "protocol.http.allow=always"])
        .args(["-c", "protocol.https.allow=always", "-c", "protocol.git.allow=always"])
        .args(["-c", "core.hooksPath=/dev/null", "-c", "credential.helper="])
        .args(["-c", "advice.detachedHead=false", "-c", "safe.directory=*"])
        // Larger files than this go through in pieces.
        .args(["-c", "core.bigFileThreshold=64m"])
        .args(arguments)
        .current_dir(dir)
        .env("HOME", dir)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
        .env_remove("GIT_DIR")
        .env_remove("GIT_ASKPASS")
        .env_remove("SSH_ASKPASS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    confine(command.as_std_mut(), MEMORY);
    command.spawn().map_err(|e| format!("this needs the program git: {e}"))
}

/// The beginning of a stream; the rest is read and dropped.
async fn take(stream: Option<impl tokio::io::AsyncRead + Unpin>, limit: u64) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    // A stream that breaks off is the end of it.
    let _ = (&mut stream).take(limit).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_known_by_their_address() {
        let parts = |text: &str| {
            Source::of_context(text).map(|s| format!("{} {} {}", s.url, s.reference, s.directory))
        };
        for (text, expected) in [
            ("https://x.org/a.git", Some("https://x.org/a.git  ")),
            ("https://x.org/a.git#v1:dir/sub", Some("https://x.org/a.git v1 dir/sub")),
            ("git://x.org/a#:sub", Some("git://x.org/a  sub")),
            ("github.com/moby/moby", Some("https://github.com/moby/moby  ")),
            ("https://x.org/a.tar.gz", None),
            ("https://x.org/a.git/file", None),
            ("dir/a.git", None),
        ] {
            assert_eq!(parts(text).as_deref(), expected, "{text}");
        }
        assert_eq!(Source::of_url("github.com/moby/moby"), None, "a path of the context");
    }

    #[tokio::test]
    async fn git_and_what_it_started_end_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let grow = ["-c", "alias.grow=!yes > big", "grow"];
        let place = Place { dir: dir.path(), bytes: 1 << 20, files: 1000 };
        let error = String::from(place.git(&grow).await.unwrap_err());
        assert!(error.contains("more than 1048576 bytes; that is the limit"), "{error}");
        let length = || std::fs::metadata(dir.path().join("big")).unwrap().len();
        // The kill has been sent; ending takes the kernel a moment.
        let mut before = 0;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if length() == std::mem::replace(&mut before, length()) {
                return;
            }
        }
        panic!("something goes on writing");
    }

    #[tokio::test]
    async fn keys_and_files_of_this_machine_are_not_for_builds() {
        let dir = tempfile::tempdir().unwrap();
        for (url, says) in [
            ("git@github.com:a/b.git", "no ssh keys"),
            ("https://127.0.0.1:1/a.git", "git fetch"),
            ("https://127.0.0.1:1/a.git#--upload-pack=x", "is no branch"),
        ] {
            let source = Source::of_url(url).unwrap();
            let error = fetch(&source, &dir.path().join("to"), None, false).await.unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
            let _ = std::fs::remove_dir_all(dir.path().join("to"));
        }
    }

    #[tokio::test]
    async fn many_small_files_are_too_much_too() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir: dir.path(), bytes: MAX_BYTES, files: 100 };
        let strew = "alias.strew=!i=0; while :; do i=$((i+1)); echo > f$i || exit; done";
        let error = String::from(place.git(&["-c", strew, "strew"]).await.unwrap_err());
        assert!(error.contains("more than 100 files; that is the limit"), "{error}");
    }

    #[test]
    fn files_count_with_what_they_take_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        for n in 0..10 {
            std::fs::write(dir.path().join(format!("in/{n}")), "x").unwrap();
        }
        let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let found = Found::below(dir.path());
        assert_eq!(found.files, 12);
        assert!(found.bytes > (1 << 30) + 10 * 500, "{found:?}");
    }

    #[tokio::test]
    async fn git_and_what_it_started_have_little_memory() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir: dir.path(), bytes: MAX_BYTES, files: 100 };
        let tell = ["-c", "alias.tell=!ulimit -d; cat /proc/self/oom_score_adj", "tell"];
        assert_eq!(place.git(&tell).await.unwrap(), "1048576\n1000\n");
        let fail = ["-c", "alias.fail=!echo fatal: Out of memory >&2; exit 128", "fail"];
        let error = place.git(&fail).await.unwrap_err();
        let Failure::Stopped(why) = error else { panic!("{error:?}") };
        assert!(why.contains("git may take 1024 MiB; that is the limit"), "{why}");
    }

    /// A server that takes connections and says nothing; the number of them.
    async fn silent() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = server.accept().await {
                held.push(connection);
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        (port, count)
    }

    #[tokio::test]
    async fn what_was_stopped_at_a_limit_is_not_tried_with_all_references() {
        let dir = tempfile::tempdir().unwrap();
        let (port, connections) = silent().await;
        let source = Source::of_url(&format!("git://127.0.0.1:{port}/a.git")).unwrap();
        let place = Place { dir: dir.path(), bytes: MAX_BYTES, files: 100 };
        // The first connection stands when there are too many files.
        let strew = async {
            while connections.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for n in 0..101 {
                std::fs::write(dir.path().join(n.to_string()), "x").unwrap();
            }
        };
        let (taken, ()) = tokio::join!(place.take(&source), strew);
        assert!(taken.unwrap_err().contains("more than 100 files"));
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
