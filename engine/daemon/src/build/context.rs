//! The context a client sends: unpacked while it arrives, with its `.dockerignore`.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use minke_common_dockerfile::ignore::{Ignore, MAX_IGNORE_BYTES};
use tokio::sync::mpsc;

use crate::build::archive::{self, Limits, Owners};
use crate::build::owners::Owner;
use crate::build::tree::Tree;
use crate::build::work::Workspace;
use crate::error::{Error, Result};

/// Longest pause between two pieces.
const STALL: Duration = Duration::from_secs(120);

/// A context on disk.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) tree: Arc<Tree>,
    pub(crate) ignore: Ignore,
}

/// Unpacks a request's body into the workspace.
pub(crate) async fn receive(body: Body, workspace: &Arc<Workspace>) -> Result<Context> {
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
    unpacked.map_err(|e| Error::Invalid(format!("the build context cannot be read: {e}")))?;
    open(&workspace.context())
}

fn unpack(receiver: mpsc::Receiver<io::Result<Bytes>>, workspace: &Workspace) -> io::Result<()> {
    let mut pieces = Pieces { receiver, piece: Bytes::new() };
    let mut head = [0u8; 2];
    let mut got = 0;
    while got < 2 {
        match pieces.read(&mut head[got..])? {
            0 => break,
            n => got += n,
        }
    }
    let joined = io::Cursor::new(head[..got].to_vec()).chain(pieces);
    let mut source: Box<dyn Read> = match head {
        [0x1f, 0x8b] => Box::new(MultiGzDecoder::new(joined)),
        _ => Box::new(joined),
    };
    let tree = Tree::open(&workspace.context())?;
    let owners = Owners::One(Owner::default());
    let limits = Limits::default();
    archive::unpack(&mut source, &tree, "", owners, &limits, &workspace.cancelled)?;
    // What follows the archive's end is taken too, or the client would meet a closed door.
    io::copy(&mut source.take(16 << 20), &mut io::sink()).map(|_| ())
}

fn open(path: &Path) -> Result<Context> {
    let failed = |e: io::Error| Error::Invalid(format!("reading .dockerignore: {e}"));
    let tree = Tree::open(path).map_err(failed)?;
    let text = tree.text(".dockerignore", MAX_IGNORE_BYTES as u64).map_err(failed)?;
    let ignore = Ignore::parse(&text.unwrap_or_default());
    let ignore = ignore.map_err(|e| Error::Invalid(e.to_string()))?;
    Ok(Context { tree: Arc::new(tree), ignore })
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
