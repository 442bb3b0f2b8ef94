//! `ADD` of a URL: downloaded within limits, checked where a checksum is given.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use minke_common_model::digest::Hasher;

use crate::api::params::unescape;
use crate::build::archive::Limits;

/// Longest download, in bytes.
const MAX_BYTES: u64 = 4 << 30;
/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest pause between two pieces.
const STALL: Duration = Duration::from_secs(60);
/// Files that a build leaves room for on the file system.
const FREE_FILES: u64 = 1000;

/// Whether a source of `ADD` is a URL.
pub(crate) fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

/// The file's name in a URL: the last part of its path.
pub(crate) fn name(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let path = unescape(rest.split(['?', '#']).next()?);
    let (_, last) = path.rsplit_once('/')?;
    let named = !last.is_empty() && last != "." && last != "..";
    let fits = named && last.len() < 255 && !last.contains('\0');
    fits.then(|| last.to_owned())
}

/// Downloads `url` to a new file.
pub(crate) async fn fetch(url: &str, to: &Path, checksum: Option<&str>) -> Result<(), String> {
    let failed = |e: &dyn std::error::Error| format!("ADD {url}: {}", crate::error::chain(e));
    let client = client().map_err(|e| failed(&e))?;
    let asked = tokio::time::timeout(CONNECT + STALL, client.get(url).send()).await;
    let answer =
        asked.map_err(|_| format!("ADD {url}: no answer began in {:?}", CONNECT + STALL))?;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(|e| failed(&e.without_url()))?;
    let file = std::fs::File::create_new(to).map_err(|e| failed(&e))?;
    let mut arrived = Arrived { file, digest: Hasher::new() };
    let mut total = 0u64;
    loop {
        let piece = tokio::time::timeout(STALL, answer.chunk()).await;
        let piece = piece.map_err(|_| format!("ADD {url}: nothing arrived for {STALL:?}"))?;
        let Some(piece) = piece.map_err(|e| failed(&e.without_url()))? else { break };
        total += piece.len() as u64;
        if total > MAX_BYTES {
            return Err(format!("ADD {url}: more than {MAX_BYTES} bytes; that is the limit"));
        }
        let taken = tokio::task::spawn_blocking(move || arrived.take(&piece)).await;
        arrived = taken.map_err(std::io::Error::other).flatten().map_err(|e| failed(&e))?;
    }
    let found = arrived.digest.finish().to_string();
    match checksum {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&found) => {
            Err(format!("ADD {url}: the checksum is {found}; expected {wanted}"))
        }
        _ => Ok(()),
    }
}

/// What has arrived of a download.
struct Arrived {
    file: std::fs::File,
    digest: Hasher,
}

impl Arrived {
    /// Writes one more piece if the disk has room for it. Blocking.
    fn take(mut self, piece: &[u8]) -> std::io::Result<Arrived> {
        spare(&self.file, piece.len() as u64)?;
        self.digest.update(piece);
        self.file.write_all(piece)?;
        Ok(self)
    }
}

/// Whether so many bytes more leave the file system of `place` what a build must leave free of it.
pub(crate) fn spare(place: impl AsFd, more: u64) -> std::io::Result<()> {
    leave(place, more, Limits::default().reserve)
}

/// The same where `reserve` bytes must stay free.
pub(crate) fn leave(place: impl AsFd, more: u64, reserve: u64) -> std::io::Result<()> {
    let found = rustix::fs::fstatvfs(place)?;
    // Some file systems have any number of files, and say 0.
    if found.f_files > 0 && found.f_favail < FREE_FILES {
        let files = found.f_favail;
        let text =
            format!("the disk is full: it takes {files} files more, and {FREE_FILES} are left so");
        return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, text));
    }
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= reserve.saturating_add(more) {
        return Ok(());
    }
    let (free, reserve) = (free / 1_000_000, reserve / 1_000_000);
    let text = format!("the disk is full: {free} MB are free, and {reserve} MB are left so");
    Err(std::io::Error::new(std::io::ErrorKind::StorageFull, text))
}

/// A client for what somebody else's address gives. A server that falls silent is given up.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    // Fails only if a provider was installed before: that one is used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(STALL)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_leaves_a_part_of_the_disk_free() {
        let place = tempfile::tempfile().unwrap();
        spare(&place, 1).unwrap();
        let error = spare(&place, 1 << 60).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("67 MB are left so"), "{error}");
    }

    #[test]
    fn names_come_from_the_path() {
        assert_eq!(name("https://x.org/a/b.tar.gz?c=d/e").as_deref(), Some("b.tar.gz"));
        assert_eq!(name("https://x.org/a%20b/c%2Bd%C3%A9.txt").as_deref(), Some("c+d\u{e9}.txt"));
        assert_eq!(name("https://x.org/a%2Fb").as_deref(), Some("b"));
        for url in ["https://x.org/a/", "https://x.org/%2e%2E", "https://x.org/a%00"] {
            assert_eq!(name(url), None, "{url}");
        }
        assert_eq!(name("https://x.org"), None);
        assert!(is_url("http://x/y") && !is_url("git@x:y"));
    }
}
