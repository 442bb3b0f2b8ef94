//! The files that names and upstream servers come from, read again when they change.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use minke_engine_shim::dns::Question;
use minke_engine_shim::names::{self, Sources};

/// Longest file that is read, bytes.
const MAX_FILE: u64 = 1 << 20;

/// A file's text, and which version of the file it is.
#[derive(Default)]
struct Watched {
    path: PathBuf,
    version: (u64, i64, i64, u64),
    text: String,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// Read again if it is another version; true if it was.
    fn refresh(&mut self) -> bool {
        let version = fs::metadata(&self.path)
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
            .unwrap_or_default();
        if version == self.version {
            return false;
        }
        self.version = version;
        self.text = if version.3 <= MAX_FILE { read(&self.path) } else { String::new() };
        true
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The sources file of a container and the files that it names.
pub(super) struct SourceFiles {
    file: Watched,
    names: Vec<Watched>,
    resolv: Option<Watched>,
    /// Whom to ask now.
    servers: Vec<SocketAddr>,
    sources: Sources,
    turn: usize,
}

impl SourceFiles {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            file: Watched::new(path),
            names: Vec::new(),
            resolv: None,
            servers: Vec::new(),
            sources: Sources::default(),
            turn: 0,
        }
    }

    fn refresh(&mut self) {
        let mut changed = self.file.refresh();
        if changed {
            self.sources = Sources::parse(&self.file.text);
            self.names = self.sources.names.iter().cloned().map(Watched::new).collect();
            self.resolv = self.sources.resolv.clone().map(Watched::new);
        }
        for file in &mut self.names {
            file.refresh();
        }
        if let Some(resolv) = &mut self.resolv {
            changed |= resolv.refresh();
        }
        if changed {
            self.servers =
                self.resolv.as_ref().map(|file| names::servers(&file.text)).unwrap_or_default();
            if self.servers.is_empty() {
                self.servers.clone_from(&self.sources.upstreams);
            }
        }
    }

    /// The servers for what is none of ours, as of the last [`answer`](Self::answer).
    pub(super) fn upstreams(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The answer, if the name or address is one of ours.
    pub(super) fn answer(&mut self, question: &Question, query: &[u8]) -> Option<Vec<u8>> {
        self.refresh();
        if let Some(address) = question.reverse_address() {
            let name = self.names.iter().find_map(|file| names::name_of(&file.text, address))?;
            return Some(question.answer_name(query, name));
        }
        let files = self.names.iter();
        let name = self.sources.target(&question.name);
        let mut found: Vec<_> = files.flat_map(|file| names::addresses(&file.text, name)).collect();
        if found.is_empty() {
            return None;
        }
        // Clients take the first: spread them over the containers of one name.
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn % found.len();
        found.rotate_left(turn);
        Some(question.answer(query, &found))
    }
}
