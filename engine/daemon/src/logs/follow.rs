//! A reader that goes through a log and, if wanted, on with what is written to it. If not, it ends where
//! the log ended when it was opened: a container may write as fast as somebody reads.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minke_engine_shim::log::Format;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::line::{self, Next};
use super::part::{self, Part};
use super::tail::{self, Begin};
use super::{Line, Query};
use crate::containers::container::Phase;

/// How much is read at once.
const BLOCK: usize = 64 * 1024;
/// How often a log is looked at that the kernel tells nothing of.
const POLL: Duration = Duration::from_millis(200);

/// A reader of one container's log.
pub(crate) struct Follower {
    query: Query,
    log: PathBuf,
    format: Format,
    current: Option<Part>,
    /// Files still to be read, oldest first; the current one is not among them.
    newer: VecDeque<Part>,
    /// How many wanted lines are passed over first.
    skip: u64,
    buffer: Vec<u8>,
    /// Present when it shall go on at the end.
    live: Option<Live>,
}

struct Live {
    /// There are only so many of these for a user (128 by default), and others want some too: a follower
    /// that gets none looks now and then.
    changes: Option<AsyncFd<OwnedFd>>,
    phase: watch::Receiver<Phase>,
    ended: bool,
}

impl Follower {
    /// A reader of the whole log at `log`; with `phase` it goes on until the container is at its end.
    pub(crate) fn open(
        log: &Path,
        query: Query,
        phase: Option<watch::Receiver<Phase>>,
    ) -> io::Result<Follower> {
        // Watching begins before reading: nothing that is written in between is missed.
        let live = phase.map(|phase| Live::begin(log, phase));
        Follower::begin(log, query, live, parts_now(log)?, Begin::At(0))
    }

    /// The same, for the newest lines alone if the query asks for them: those have to be found first.
    pub(crate) async fn open_newest(
        log: &Path,
        query: Query,
        phase: Option<watch::Receiver<Phase>>,
    ) -> io::Result<Follower> {
        let Some(count) = query.tail else { return Follower::open(log, query, phase) };
        let live = phase.map(|phase| Live::begin(log, phase));
        let mut parts = parts_now(log)?;
        let mut begin = Begin::At(0);
        let format = super::format_of(log);
        if let Some((index, place)) = tail::position(&mut parts, format, &query, count).await? {
            parts.truncate(index + 1);
            begin = place;
        }
        // Finding the place has moved the files.
        parts.iter_mut().try_for_each(Part::rewind)?;
        Follower::begin(log, query, live, parts, begin)
    }

    /// A reader of these files, newest first, from a place in the oldest.
    fn begin(
        log: &Path,
        query: Query,
        live: Option<Live>,
        mut parts: Vec<Part>,
        begin: Begin,
    ) -> io::Result<Follower> {
        if live.is_some()
            && let Some(newest) = parts.first_mut()
        {
            newest.release();
        }
        while query.since > 0
            && parts.len() > 1
            && parts.last().is_some_and(|p| p.ended_before(query.since))
        {
            parts.pop();
        }
        let mut newer: VecDeque<Part> = parts.into_iter().rev().collect();
        let mut current = newer.pop_front();
        let skip = match (begin, &mut current) {
            (Begin::At(offset), Some(part)) => {
                part.seek(offset)?;
                0
            }
            (Begin::After(lines), _) => lines,
            (Begin::At(_), None) => 0,
        };
        let (log, format) = (log.to_owned(), super::format_of(log));
        Ok(Follower { query, log, format, current, newer, skip, buffer: Vec::new(), live })
    }

    /// The next wanted lines; `None` at the end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<Line>>> {
        loop {
            let lines = self.read_some()?;
            match lines {
                Some(lines) if lines.is_empty() => {
                    // Nothing in a whole block is wanted, and there may be thousands of them.
                    tokio::task::yield_now().await;
                    continue;
                }
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
            if self.current.is_none() && self.live.is_some() {
                self.newer = part::newest_first(&self.log, None)?.into_iter().rev().collect();
                self.current = self.newer.pop_front();
            }
            let Some(part) = &mut self.current else { return Ok(None) };
            let filled = self.buffer.len();
            self.buffer.resize(filled + BLOCK, 0);
            let count = part.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + count.as_ref().map_or(0, |count| *count));
            match count {
                Ok(count) if count > 0 => return Ok(Some(self.take_lines())),
                // A packed file that is damaged ends where it is.
                Ok(_) | Err(_) => {}
            }
            if !self.next_part()? {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next newer file; false if the current one is the last to be read.
    fn next_part(&mut self) -> io::Result<bool> {
        if self.newer.is_empty()
            && self.live.is_some()
            && let Some(current) = &self.current
        {
            self.newer = part::newest_first(&self.log, Some(current))?.into_iter().rev().collect();
            // What was written to the current one before it was renamed is read first.
            if !self.newer.is_empty() && self.read_rest()? {
                return Ok(true);
            }
        }
        match self.newer.pop_front() {
            Some(part) => {
                self.buffer.clear();
                self.current = Some(part);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Whether the current file has more after all.
    fn read_rest(&mut self) -> io::Result<bool> {
        let Some(part) = &mut self.current else { return Ok(false) };
        let filled = self.buffer.len();
        self.buffer.resize(filled + 1, 0);
        let count = part.read(&mut self.buffer[filled..])?;
        self.buffer.truncate(filled + count);
        Ok(count > 0)
    }

    fn take_lines(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut start = 0;
        loop {
            match line::front(self.format, &self.buffer[start..]) {
                Next::Taken(line, length) => {
                    start += length;
                    let Some(line) = line.filter(|line| self.query.wants(line)) else { continue };
                    if self.skip > 0 {
                        self.skip -= 1;
                    } else {
                        lines.push(line);
                    }
                }
                Next::Part => break,
                Next::Broken => {
                    // Nothing of this file can be made out any more.
                    start = self.buffer.len();
                    break;
                }
            }
        }
        self.buffer.drain(..start);
        if self.buffer.len() > super::LONGEST {
            self.buffer.clear();
        }
        lines
    }
}

/// The files of a log, newest first, to be read as far as they go now: only the newest still grows.
fn parts_now(log: &Path) -> io::Result<Vec<Part>> {
    let mut parts = part::newest_first(log, None)?;
    parts.first_mut().map_or(Ok(()), Part::hold)?;
    Ok(parts)
}

impl Live {
    fn begin(log: &Path, phase: watch::Receiver<Phase>) -> Live {
        let changes = watch_directory(log);
        if let Err(error) = &changes {
            tracing::debug!(log = %log.display(), %error, "a log is looked at now and then");
        }
        Live { changes: changes.ok(), phase, ended: false }
    }

    /// Waits until the log may have grown, the container has ended, or `until` has come.
    async fn wait(&mut self, until: i64) -> io::Result<()> {
        let left = match until {
            0 => Duration::MAX,
            until => Duration::from_nanos(
                until.saturating_sub(crate::stamp::now()).max(0).unsigned_abs() + 1_000_000,
            ),
        };
        // All arms are cancel-safe and none awaits in its body.
        tokio::select! {
            changed = changed(self.changes.as_ref()) => changed?,
            ended = self.phase.wait_for(|phase| !phase.running || phase.removed) => {
                // What was written before the end is in the files by now: one more look, then out.
                let _ = ended;
                self.ended = true;
            }
            () = tokio::time::sleep(left.min(Duration::from_secs(1 << 30))) => {}
        }
        Ok(())
    }
}

/// Waits until the directory of a log may have changed.
async fn changed(changes: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let Some(changes) = changes else {
        tokio::time::sleep(POLL).await;
        return Ok(());
    };
    let mut ready = changes.readable().await?;
    drain(ready.get_inner());
    ready.clear_ready();
    Ok(())
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

    /// Writes as a shim does: rotation at every fifth line, and packing now and then.
    #[tokio::test]
    async fn a_slow_follower_misses_nothing_that_is_kept() {
        use minke_engine_shim::record::{Record, encode};
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c-local.log");
        let numbered = |n: u32, end: &str| format!("{}.{n}{end}", log.display());
        let phase = watch::Sender::new(Phase { running: true, ..Phase::default() });
        let mut follower = Follower::open(&log, all(), Some(phase.subscribe())).unwrap();
        let mut seen = Vec::new();
        for line in 0..60u64 {
            if line % 5 == 0 && log.exists() {
                for n in (1..30).rev() {
                    for end in ["", ".gz"] {
                        let _ = std::fs::rename(numbered(n, end), numbered(n + 1, end));
                    }
                }
                std::fs::rename(&log, numbered(1, "")).unwrap();
            }
            if line % 7 == 0 && Path::new(&numbered(2, "")).exists() {
                use std::os::unix::fs::MetadataExt;
                let bytes = std::fs::read(numbered(2, "")).unwrap();
                let inode = std::fs::metadata(numbered(2, "")).unwrap().ino().to_string();
                let file = std::fs::File::create(numbered(2, ".gz")).unwrap();
                let fast = flate2::Compression::fast();
                let mut gz = flate2::GzBuilder::new().filename(inode).write(file, fast);
                gz.write_all(&bytes).unwrap();
                gz.finish().unwrap();
                std::fs::remove_file(numbered(2, "")).unwrap();
            }
            let text = line.to_string();
            let mut bytes = Vec::new();
            let record = Record { stderr: false, piece: false, time: 1, text: text.as_bytes() };
            encode(&record, &mut bytes);
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
            file.write_all(&bytes).unwrap();
            // Slower than the rotation: it must find its place among renamed and packed files.
            if line % 13 == 12 {
                let lines = follower.next().await.unwrap().unwrap();
                seen.extend(lines.into_iter().map(|line| line.text.trim_end().to_owned()));
            }
        }
        phase.send_modify(|phase| phase.running = false);
        while let Some(lines) = follower.next().await.unwrap() {
            seen.extend(lines.into_iter().map(|line| line.text.trim_end().to_owned()));
        }
        let all_lines: Vec<String> = (0..60).map(|line: u32| line.to_string()).collect();
        assert_eq!(seen, all_lines);
        // And from any place near the end.
        for count in [0, 1, 4, 7, 29, 59, 60, 99] {
            let query = Query { tail: Some(count as u64), ..all() };
            let mut reader = Follower::open_newest(&log, query, None).await.unwrap();
            let mut found = Vec::new();
            while let Some(lines) = reader.next().await.unwrap() {
                found.extend(lines.into_iter().map(|line| line.text.trim_end().to_owned()));
            }
            assert_eq!(found, all_lines[60 - count.min(60)..], "the last {count}");
        }
    }

    #[tokio::test]
    async fn a_follower_that_the_kernel_tells_nothing_reads_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c-json.log");
        std::fs::write(&log, line("one")).unwrap();
        let phase = watch::Sender::new(Phase { running: true, ..Phase::default() });
        let mut follower = Follower::open(&log, all(), Some(phase.subscribe())).unwrap();
        follower.live.as_mut().unwrap().changes = None;
        assert_eq!(read(&mut follower, 1).await, ["one"]);
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(line("two").as_bytes()).unwrap();
        assert_eq!(read(&mut follower, 1).await, ["two"]);
        // A directory that cannot be watched is no reason to fail.
        assert!(watch_directory(Path::new("/no/such/log")).is_err());
        let missing = Path::new("/no/such/log");
        assert!(Follower::open(missing, all(), Some(phase.subscribe())).is_ok());
    }

    /// Runs `work`; how often another task had its turn meanwhile.
    async fn turns(work: impl Future<Output = ()>) -> u32 {
        let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = count.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        work.await;
        other.abort();
        count.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[tokio::test]
    async fn others_have_their_turn_while_a_large_log_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c-json.log");
        std::fs::write(&log, line(&"x".repeat(1000)).repeat(3000)).unwrap();
        let query = Query { stderr: true, ..Query::default() };
        let newest = Query { tail: Some(5), ..query.clone() };
        let forwards = turns(async {
            let mut follower = Follower::open(&log, query, None).unwrap();
            assert!(follower.next().await.unwrap().is_none());
        });
        assert!(forwards.await > 20);
        let backwards = turns(async {
            Follower::open_newest(&log, newest, None).await.unwrap();
        });
        assert!(backwards.await > 20);
    }

    /// Appends more than is read at once, and rotates every third time.
    fn write_more(log: &Path, times: u32) {
        if times % 3 == 2 {
            let _ = std::fs::rename(format!("{}.1", log.display()), format!("{}.2", log.display()));
            std::fs::rename(log, format!("{}.1", log.display())).unwrap();
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        file.write_all(line(&"later".repeat(20)).repeat(1000).as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn a_reader_without_follow_ends_where_the_log_ended_though_that_grows_faster() {
        let lines: Vec<String> = (0..3000).map(|number| format!("line {number}")).collect();
        let stored: Vec<String> = lines.iter().map(|text| line(text)).collect();
        for tail in [None, Some(0), Some(1), Some(2500), Some(5000)] {
            let dir = tempfile::tempdir().unwrap();
            let log = dir.path().join("c-json.log");
            std::fs::write(format!("{}.1", log.display()), stored[..1000].concat()).unwrap();
            std::fs::write(&log, stored[1000..].concat()).unwrap();
            let query = Query { tail, ..all() };
            let mut follower = Follower::open_newest(&log, query, None).await.unwrap();
            let mut found = Vec::new();
            for times in 0.. {
                write_more(&log, times);
                let Some(lines) = follower.next().await.unwrap() else { break };
                found.extend(lines.into_iter().map(|line| line.text.trim_end().to_owned()));
                assert!(times < 50, "it goes on and on");
            }
            let wanted = tail.map_or(lines.len(), |count| lines.len().min(count as usize));
            assert_eq!(found, lines[lines.len() - wanted..], "{tail:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_without_follow_ends_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c-json.log");
        let mut missing = Follower::open(&log, all(), None).unwrap();
        assert!(missing.next().await.unwrap().is_none());
        std::fs::write(&log, [line("one"), line("two"), line("three")].concat()).unwrap();
        let query = Query { tail: Some(2), ..all() };
        let mut follower = Follower::open_newest(&log, query, None).await.unwrap();
        assert_eq!(read(&mut follower, 2).await, ["two", "three"]);
        assert!(follower.next().await.unwrap().is_none());
    }
}
