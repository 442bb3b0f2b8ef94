//! A reader that goes through a log and, if wanted, on with what is written to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{Line, Query, files, tail};
use crate::containers::container::Phase;

/// How much is read at once.
const BLOCK: usize = 64 * 1024;
/// A stored line is never longer: a shim cuts lines at 16 KiB, which JSON can make six times as long.
const LONGEST: usize = 1 << 20;

/// A reader of one container's log.
pub(crate) struct Follower {
    query: Query,
    log: PathBuf,
    /// Files still to be read, newest first; the current one is not among them.
    older: Vec<PathBuf>,
    current: Option<File>,
    buffer: Vec<u8>,
    /// Present when it shall go on at the end.
    live: Option<Live>,
}

struct Live {
    changes: AsyncFd<OwnedFd>,
    phase: watch::Receiver<Phase>,
    ended: bool,
}

impl Follower {
    /// A reader of the log at `log`; with `phase` it goes on until the container is at its end.
    pub(crate) fn open(
        log: &Path,
        query: Query,
        phase: Option<watch::Receiver<Phase>>,
    ) -> io::Result<Follower> {
        // Watching begins before reading: nothing that is written in between is missed.
        let live = match phase {
            Some(phase) => Some(Live { changes: watch_directory(log)?, phase, ended: false }),
            None => None,
        };
        let mut list = files(log);
        let mut offset = 0;
        if let Some(count) = query.tail {
            let (index, start) = tail::position(&list, &query, count)?;
            list.drain(..index);
            offset = start;
        }
        list.reverse();
        let current = match list.pop() {
            Some(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Some(file)
            }
            None => None,
        };
        Ok(Follower { query, log: log.to_owned(), older: list, current, buffer: Vec::new(), live })
    }

    /// The next wanted lines; `None` at the end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<Line>>> {
        loop {
            let lines = self.read_some()?;
            match lines {
                Some(lines) if lines.is_empty() => continue,
                Some(lines) => return Ok(Some(lines)),
                None => {}
            }
            let Some(live) = &mut self.live else { return Ok(None) };
            if live.ended {
                return Ok(None);
            }
            if self.query.until != 0 && crate::stamp::now() > self.query.until {
                return Ok(None);
            }
            live.wait(self.query.until).await?;
        }
    }

    /// Reads a block; `None` when there is nothing more now.
    fn read_some(&mut self) -> io::Result<Option<Vec<Line>>> {
        loop {
            if self.current.is_none() {
                self.current = match File::open(&self.log) {
                    Ok(file) => Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                };
            }
            let Some(file) = &mut self.current else { return Ok(None) };
            let filled = self.buffer.len();
            self.buffer.resize(filled + BLOCK, 0);
            let count = file.read(&mut self.buffer[filled..])?;
            self.buffer.truncate(filled + count);
            if count > 0 {
                return Ok(Some(self.take_lines()));
            }
            if !self.next_file()? {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next newer file; false if the current one is the live one.
    fn next_file(&mut self) -> io::Result<bool> {
        if let Some(path) = self.older.pop() {
            self.buffer.clear();
            self.current = Some(File::open(path)?);
            return Ok(true);
        }
        let Some(current) = &self.current else { return Ok(false) };
        let own = current.metadata()?;
        match std::fs::metadata(&self.log) {
            Ok(live) if (live.dev(), live.ino()) == (own.dev(), own.ino()) => Ok(false),
            // The file was renamed away, and all of it has been read: the new one is next.
            Ok(_) => {
                self.buffer.clear();
                self.current = Some(File::open(&self.log)?);
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    fn take_lines(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(feed) = self.buffer[start..].iter().position(|byte| *byte == b'\n') {
            let line = Line::parse(&self.buffer[start..start + feed + 1]);
            lines.extend(line.filter(|line| self.query.wants(line)));
            start += feed + 1;
        }
        self.buffer.drain(..start);
        if self.buffer.len() > LONGEST {
            self.buffer.clear();
        }
        lines
    }
}

impl Live {
    /// Waits until the log may have grown, the container has ended, or `until` has come.
    async fn wait(&mut self, until: i64) -> io::Result<()> {
        let left = match until {
            0 => std::time::Duration::MAX,
            until => std::time::Duration::from_nanos(
                until.saturating_sub(crate::stamp::now()).max(0).unsigned_abs() + 1_000_000,
            ),
        };
        // All arms are cancel-safe and none awaits in its body.
        tokio::select! {
            ready = self.changes.readable() => {
                let mut ready = ready?;
                drain(ready.get_inner());
                ready.clear_ready();
            }
            ended = self.phase.wait_for(|phase| !phase.running || phase.removed) => {
                // What was written before the end is in the files by now: one more look, then out.
                let _ = ended;
                self.ended = true;
            }
            () = tokio::time::sleep(left.min(std::time::Duration::from_secs(1 << 30))) => {}
        }
        Ok(())
    }
}

fn watch_directory(log: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let directory = log.parent().unwrap_or(Path::new("/"));
    let what =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&changes, directory, what)?;
    // SAFETY: the descriptor is owned by the result and closed only with it.
    unsafe { AsyncFd::register(changes).map_err(Into::into) }
}

fn drain(changes: &OwnedFd) {
    let mut buffer = [0u8; 4096];
    while rustix::io::read(changes, &mut buffer).is_ok_and(|count| count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(text: &str) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}}\n"
        )
    }

    fn all() -> Query {
        Query { stdout: true, stderr: true, ..Query::default() }
    }

    async fn read(follower: &mut Follower, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            let lines = follower.next().await.unwrap().expect("the log has ended");
            found.extend(lines.into_iter().map(|line| line.text.trim_end().to_owned()));
        }
        found
    }

    #[tokio::test]
    async fn a_follower_crosses_rotations_and_torn_lines_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c-json.log");
        std::fs::write(format!("{}.1", log.display()), line("old")).unwrap();
        std::fs::write(&log, line("one")).unwrap();
        let phase = watch::Sender::new(Phase { running: true, ..Phase::default() });
        let mut follower = Follower::open(&log, all(), Some(phase.subscribe())).unwrap();
        assert_eq!(read(&mut follower, 2).await, ["old", "one"]);

        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        let two = line("two");
        file.write_all(&two.as_bytes()[..20]).unwrap();
        file.write_all(&two.as_bytes()[20..]).unwrap();
        assert_eq!(read(&mut follower, 1).await, ["two"]);

        file.write_all(line("three").as_bytes()).unwrap();
        std::fs::rename(&log, format!("{}.1", log.display())).unwrap();
        std::fs::write(&log, line("four")).unwrap();
        assert_eq!(read(&mut follower, 2).await, ["three", "four"]);

        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(line("last").as_bytes()).unwrap();
        phase.send_modify(|phase| phase.running = false);
        assert_eq!(read(&mut follower, 1).await, ["last"]);
        assert!(follower.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_reader_without_follow_ends_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c-json.log");
        let mut missing = Follower::open(&log, all(), None).unwrap();
        assert!(missing.next().await.unwrap().is_none());
        std::fs::write(&log, [line("one"), line("two"), line("three")].concat()).unwrap();
        let query = Query { tail: Some(2), ..all() };
        let mut follower = Follower::open(&log, query, None).unwrap();
        assert_eq!(read(&mut follower, 2).await, ["two", "three"]);
        assert!(follower.next().await.unwrap().is_none());
    }
}
