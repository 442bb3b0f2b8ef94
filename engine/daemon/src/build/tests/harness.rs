//! A builder behind its HTTP routes on a unix socket, called by the engine's own client.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use minke_engine_client::wire::ProgressLine;
use minke_engine_client::{BuildImage, Client};
use minke_engine_images::{Image, Options, Patience, PullOptions, Store};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::build::runner::{RunBind, RunFailure, RunStep, Runner};
use crate::build::work::{BuildParts, Builder};
use crate::rootfs;

/// Runs steps by `chroot` in a mount namespace of their own.
struct Chroot;

impl Runner for Chroot {
    fn run<'a>(
        &'a self,
        step: RunStep,
        output: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'a, Result<i32, RunFailure>> {
        Box::pin(async move {
            let failed = |e: &dyn std::fmt::Display| RunFailure(e.to_string());
            let root = step.work.with_file_name("root");
            let _mounted = Mounted::new(&step, &root).map_err(|e| failed(&e))?;
            let mut script = String::from("exec 2>&1\n");
            for bind in &step.binds {
                script.push_str(&mount_command(bind, &root));
            }
            script.push_str("exec chroot \"$0\" /bin/sh -c 'cd \"$0\" && exec \"$@\"' \"$@\"\n");
            let mut child = tokio::process::Command::new("unshare")
                .args(["-m", "sh", "-ec", &script])
                .arg(&root)
                .arg(&step.workdir)
                .args(&step.argv)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .envs(step.env.iter().filter_map(|e| e.split_once('=')))
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|e| failed(&e))?;
            let mut stdout = child.stdout.take().ok_or_else(|| failed(&"no pipe"))?;
            let mut buffer = vec![0u8; 4096];
            loop {
                match stdout.read(&mut buffer).await.map_err(|e| failed(&e))? {
                    0 => break,
                    n => drop(output.send(Bytes::copy_from_slice(&buffer[..n])).await),
                }
            }
            let status = child.wait().await.map_err(|e| failed(&e))?;
            Ok(status.code().unwrap_or(137))
        })
    }
}

fn mount_command(bind: &RunBind, root: &Path) -> String {
    let root = root.display();
    match bind {
        RunBind::Path { source, target, .. } => bind_command(source, &format!("{root}{target}")),
        RunBind::Tree { lower, dirs, path, target, .. } => {
            let (upper, work, root_of_tree) = (&dirs.upper, &dirs.work, &dirs.target);
            rootfs::Overlay { lower, upper, work, target: root_of_tree, volatile: true }
                .mount_at_target()
                .unwrap();
            bind_command(&dirs.target.join(path), &format!("{root}{target}"))
        }
        RunBind::Tmpfs { target, .. } => {
            format!("mkdir -p '{root}{target}'\nmount -t tmpfs none '{root}{target}'\n")
        }
    }
}

fn bind_command(source: &Path, target: &str) -> String {
    let source = source.display();
    format!(
        "mkdir -p \"$(dirname '{target}')\"\n\
         if [ -d '{source}' ]; then mkdir -p '{target}'; else : >> '{target}'; fi\n\
         mount --bind '{source}' '{target}'\n"
    )
}

/// An overlay that is unmounted when dropped.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    fn new(step: &RunStep, root: &Path) -> Result<Mounted, String> {
        let (lower, upper, work) = (&step.lower, &step.upper, &step.work);
        rootfs::Overlay { lower, upper, work, target: root, volatile: true }
            .mount_at_target()
            .map_err(|e| e.message())?;
        Ok(Mounted(root.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rootfs::unmount_all(&self.0);
    }
}

/// Files of a context: path, content. A path that ends in `*` is executable; content that begins with
/// `→` is a link.
pub(super) type Files<'a> = &'a [(&'a str, &'a str)];

pub(super) fn tar(files: Files<'_>, busybox: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if path.ends_with('*') { 0o755 } else { 0o644 });
        let path = path.trim_end_matches('*');
        if let Some(link) = content.strip_prefix('→') {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, link).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    if busybox {
        let bytes = std::fs::read("/bin/busybox").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, "busybox", &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A builder and everything it stands on.
pub(super) struct Site {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) client: Client,
    server: tokio::task::JoinHandle<()>,
}

/// What a build said and made.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) image: Option<Image>,
    pub(super) error: Option<String>,
}

impl Outcome {
    /// Steps that came from the cache.
    pub(super) fn cached(&self) -> usize {
        self.text.matches("Using cache").count()
    }

    pub(super) fn image(&self) -> &Image {
        self.image.as_ref().unwrap_or_else(|| panic!("{:?}\n{}", self.error, self.text))
    }
}

impl Site {
    pub(super) async fn new() -> Site {
        Site::at(tempfile::tempdir().unwrap()).await
    }

    async fn at(dir: tempfile::TempDir) -> Site {
        let store = Store::open(dir.path().join("images"), Options::default()).await.unwrap();
        let patience = Patience { attempts: 1, ..Patience::default() };
        let parts = BuildParts {
            store: store.clone(),
            runner: Arc::new(Chroot),
            dir: dir.path().join("build"),
            pull: PullOptions { patience, ..PullOptions::default() },
            shared: false,
        };
        let routes = crate::build::router(Builder::open(parts).await.unwrap());
        // The daemon takes the version off the path.
        let router = axum::Router::new().nest("/v1.47", routes);
        let socket = dir.path().join("socket");
        let _ = std::fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Site { client: Client::unix(&socket), dir, store, server }
    }

    /// The same directory under a new builder, as after a restart.
    pub(super) async fn restarted(self) -> Site {
        let Site { dir, store, server, .. } = self;
        server.abort();
        let _ = server.await;
        drop(store);
        Site::at(dir).await
    }

    pub(super) async fn build(&self, files: Files<'_>) -> Outcome {
        self.build_with(files, BuildImage::default()).await
    }

    pub(super) async fn build_with(&self, files: Files<'_>, request: BuildImage) -> Outcome {
        let mut outcome = Outcome::default();
        let body = futures_util::stream::iter([Ok(Bytes::from(tar(files, true)))]).boxed();
        let take = |line: &ProgressLine| {
            outcome.text.push_str(line.stream.as_deref().unwrap_or(""));
        };
        match self.client.build(&request, body, take).await {
            Ok(id) => outcome.image = id.map(|id| self.store.image(&id).unwrap()),
            Err(minke_engine_client::Error::Refused { message, .. }) => {
                outcome.error = Some(message);
            }
            Err(error) => panic!("{error:?}"),
        }
        outcome
    }

    /// Every path of an image with what it is: `mode uid:gid content`.
    pub(super) fn tree(&self, image: &Image) -> BTreeMap<String, String> {
        let base = tempfile::tempdir().unwrap();
        let [upper, work, root] = ["upper", "work", "root"].map(|n| base.path().join(n));
        for path in [&upper, &work, &root] {
            std::fs::create_dir(path).unwrap();
        }
        let step = RunStep {
            lower: self.store.lower_dirs(&image.id).unwrap(),
            upper,
            work,
            ..RunStep::default()
        };
        let _mounted = Mounted::new(&step, &root).unwrap();
        let mut out = BTreeMap::new();
        list(&root, "", &mut out);
        out
    }

    /// Waits until builds have left nothing in their working directory.
    pub(super) async fn emptied(&self) {
        let builds = self.dir.path().join("build/builds");
        let empty = || std::fs::read_dir(&builds).unwrap().next().is_none();
        until("a build's directory stays", empty).await;
    }
}

/// Waits for something.
pub(super) async fn until(otherwise: &str, done: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{otherwise}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn list(root: &Path, path: &str, out: &mut BTreeMap<String, String>) {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir(root.join(path.trim_start_matches('/'))).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{path}/{}", entry.file_name().into_string().unwrap());
        let meta = entry.metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        let content = if meta.is_dir() {
            "/".to_owned()
        } else if meta.is_symlink() {
            format!("→{}", std::fs::read_link(entry.path()).unwrap().display())
        } else if meta.len() > 4096 {
            "…".to_owned()
        } else {
            String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned()
        };
        out.insert(name.clone(), format!("{mode:o} {}:{} {content}", meta.uid(), meta.gid()));
        if meta.is_dir() {
            list(root, &name, out);
        }
    }
}

/// A stage with a shell: the first lines of most Dockerfiles here.
pub(super) const SHELL: &str =
    "FROM scratch AS shell\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\n";
