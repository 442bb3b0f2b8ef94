//! What a build works on: the files a client sends, or that stand where it says, without those that
//! `.dockerignore` leaves out; and the Dockerfile's text.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use minke_common_dockerfile::MAX_BYTES;
use minke_common_dockerfile::ignore::{Ignore, MAX_IGNORE_BYTES};
use tokio::sync::mpsc;

use crate::build::archive::{self, Limits, Owners};
use crate::build::owners::Owner;
use crate::build::request::BuildRequest;
use crate::build::tree::Tree;
use crate::build::work::Workspace;
use crate::build::{exclude, fetch, git};
use crate::error::{Error, Result};

/// Longest pause between two pieces.
const STALL: Duration = Duration::from_secs(120);

/// A context on disk.
pub(crate) struct Context {
    pub(crate) tree: Arc<Tree>,
    /// The Dockerfile's text.
    pub(crate) dockerfile: String,
}

/// Brings the context into the workspace: from the request's body, or from where the request says.
pub(crate) async fn receive(
    body: Body,
    workspace: &Arc<Workspace>,
    request: &BuildRequest,
) -> Result<Context> {
    match request.remote.as_str() {
        "" => unpack_body(body, workspace).await?,
        remote => from_remote(remote, workspace, &request.dockerfile).await?,
    }
    let (held, name) = (workspace.clone(), request.dockerfile.clone());
    let open = move || open(&held, &name);
    tokio::task::spawn_blocking(open).await.map_err(Error::system("reading the context"))?
}

async fn unpack_body(body: Body, workspace: &Arc<Workspace>) -> Result<()> {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(16);
    let held = workspace.clone();
    let unpacking = tokio::task::spawn_blocking(move || unpack(receiver, &held));
    let mut body = body.into_data_stream();
    loop {
        let piece = match tokio::time::timeout(STALL, body.next()).await {
            Ok(None) => break,
            Ok(Some(piece)) => piece.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the context stopped coming")),
        };
        let last = piece.is_err();
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(Error::system("unpacking the context"))?;
    unpacked.map_err(|e| Error::Invalid(format!("the build context cannot be read: {e}")))
}

/// A git repository, an archive or a lone Dockerfile that somebody else serves.
async fn from_remote(remote: &str, workspace: &Arc<Workspace>, dockerfile: &str) -> Result<()> {
    if let Some(source) = git::Source::of_context(remote) {
        let dir = workspace.file();
        let failed = |e: String| Error::Invalid(format!("{remote}: {e}"));
        let found = git::fetch(&source, &dir, None, false).await.map_err(failed)?;
        let context = workspace.context();
        let moved =
            std::fs::remove_dir(&context).and_then(|()| std::fs::rename(found.path, &context));
        return moved.map_err(Error::file("filling", &context));
    }
    if !fetch::is_url(remote) {
        let text = format!("`remote` is {remote:?}; expected a URL or a git repository");
        return Err(Error::Invalid(text));
    }
    let file = workspace.file();
    fetch::fetch(remote, &file, None).await.map_err(Error::Invalid)?;
    let (held, name) = (workspace.clone(), dockerfile.to_owned());
    let place = move || place(&file, &held, &name);
    let placed = tokio::task::spawn_blocking(place).await;
    let placed = placed.map_err(Error::system("unpacking the context"))?;
    placed.map_err(|e| Error::Invalid(format!("{remote}: {e}")))
}

/// Unpacks a downloaded archive; anything else is a Dockerfile.
fn place(path: &Path, workspace: &Workspace, dockerfile: &str) -> io::Result<()> {
    let mut file = File::open(path)?;
    match archive::packing(&mut file)? {
        Some(packing) => unpack_tar(archive::open(file, packing)?, workspace),
        None => {
            let tree = Tree::open(&workspace.context())?;
            let (parent, name) = dockerfile.rsplit_once('/').unwrap_or(("", dockerfile));
            let parent = tree.make_directory(parent, &mut |_| Ok(()))?;
            let limit = MAX_BYTES as u64 + 1;
            let mut out = crate::build::tree::create(std::os::fd::AsFd::as_fd(&parent), name)?;
            io::copy(&mut file.take(limit), &mut out).map(|_| ())
        }
    }
}

fn unpack(receiver: mpsc::Receiver<io::Result<Bytes>>, workspace: &Workspace) -> io::Result<()> {
    unpack_tar(archive::plain(Pieces { receiver, piece: Bytes::new() })?, workspace)
}

fn unpack_tar(source: impl Read, workspace: &Workspace) -> io::Result<()> {
    let tree = Tree::open(&workspace.context())?;
    let owners = Owners::One(Owner::default());
    archive::unpack(source, &tree, "", owners, &Limits::default(), &workspace.cancelled)
}

/// Reads the Dockerfile, then removes what the ignore file leaves out.
fn open(workspace: &Workspace, dockerfile: &str) -> Result<Context> {
    let failed = |e: io::Error| Error::Invalid(format!("reading the context: {e}"));
    let tree = Tree::open(&workspace.context()).map_err(failed)?;
    let text = read_dockerfile(&tree, dockerfile)?;
    let own = format!("{dockerfile}.dockerignore");
    for name in [own.as_str(), ".dockerignore"] {
        let invalid = |e: &dyn std::fmt::Display| Error::Invalid(format!("reading {name}: {e}"));
        let found = tree.text(name, MAX_IGNORE_BYTES as u64).map_err(|e| invalid(&e))?;
        let Some(found) = found else { continue };
        let ignore = Ignore::parse(&found).map_err(|e| invalid(&e))?;
        exclude::prune(&tree, &ignore, &workspace.cancelled).map_err(|e| invalid(&e))?;
        break;
    }
    Ok(Context { tree: Arc::new(tree), dockerfile: text })
}

fn read_dockerfile(tree: &Tree, name: &str) -> Result<String> {
    let found = tree.text(name, MAX_BYTES as u64);
    let text = found.map_err(|e| Error::Invalid(format!("reading the Dockerfile {name}: {e}")))?;
    match text {
        Some(text) if text.trim().is_empty() => {
            Err(Error::Invalid(format!("the Dockerfile ({name}) cannot be empty")))
        }
        Some(text) => Ok(text),
        None => Err(Error::Invalid(format!("Cannot locate specified Dockerfile: {name}"))),
    }
}

/// The pieces of a body as a blocking reader.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
