//! The log file of a container: appended to, rotated, packed, never left with a torn record in the
//! middle.
//!
//! The newest file is `<path>`; `<path>.1` is the one before, and so on. With compression each numbered
//! file becomes `<path>.N.gz` soon after: a child of the shim packs it, so that output is taken on
//! meanwhile. The file's former inode number stands as the name in the gzip header: readers who had the
//! plain file open know by it where they are.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use minke_engine_shim::config::LogConfig;
use minke_engine_shim::log::{Format, LineWriter};
use minke_engine_shim::record;

use crate::logwriter::LogWriter;
use crate::packing::{self, Packing};

/// Most bytes of whole lines that are gathered before they are written.
pub(crate) const BATCH: usize = 64 * 1024;

/// An open log.
pub(crate) struct LogFile {
    sink: Sink,
    streams: [LineWriter; 2],
}

/// Who writes the lines.
enum Sink {
    /// The shim, before it takes more output.
    Here(Files),
    Apart(LogWriter),
}

/// The files, without what has not become a whole line yet.
pub(crate) struct Files {
    config: LogConfig,
    file: File,
    size: u64,
    batch: Vec<u8>,
    packing: Option<Packing>,
}

impl LogFile {
    /// Open or make it.
    pub(crate) fn open(config: &LogConfig) -> io::Result<Self> {
        let sink = match config.buffer {
            0 => {
                let mut files = Files::open(config)?;
                files.pack_next();
                Sink::Here(files)
            }
            _ => Sink::Apart(LogWriter::begin(config)?),
        };
        let streams = [false, true]
            .map(|stderr| LineWriter::new(config.format, stderr).marked(&config.marks));
        Ok(Self { sink, streams })
    }

    /// Log what a stream (0 stdout, 1 stderr) has said. A full disk loses lines, not the container.
    pub(crate) fn write(&mut self, stream: usize, bytes: &[u8], time: u64) {
        let Self { sink, streams } = self;
        streams[stream].push(bytes, time, &mut |line| sink.line(line));
        sink.flush();
    }

    /// A stream has ended.
    pub(crate) fn finish(&mut self, stream: usize, time: u64) {
        let Self { sink, streams } = self;
        streams[stream].finish(time, &mut |line| sink.line(line));
        sink.flush();
    }

    /// Both have: whoever reads the log now reads all of it.
    pub(crate) fn close(mut self, time: u64) {
        self.finish(0, time);
        self.finish(1, time);
        if let Sink::Apart(writer) = self.sink {
            writer.finish();
        }
    }

    /// A child of this process has ended.
    pub(crate) fn child_ended(&mut self, pid: i32, well: bool) {
        if let Sink::Here(files) = &mut self.sink {
            files.child_ended(pid, well);
        }
    }
}

impl Sink {
    fn line(&mut self, line: &[u8]) {
        match self {
            Self::Here(files) => files.line(line),
            Self::Apart(writer) => writer.line(line),
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Here(files) => files.flush(),
            Self::Apart(writer) => writer.flush(),
        }
    }
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Files {
    /// A last record without an end, left by a crash, is cut off.
    pub(crate) fn open(config: &LogConfig) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(&config.path)?;
        let size = whole_length(&mut file, config.format)?;
        file.set_len(size)?;
        let _ = fs::remove_file(packing::unfinished(&config.path));
        Ok(Self { config: config.clone(), file, size, batch: Vec::new(), packing: None })
    }

    /// A child of this process has ended.
    pub(crate) fn child_ended(&mut self, pid: i32, well: bool) {
        if let Some(packing) = self.packing.take_if(|packing| packing.pid == pid) {
            packing.finish(&self.config, well);
            if well {
                self.pack_next();
            }
        }
    }

    /// Takes a stored line; it is in the file after the next [`Self::flush`].
    pub(crate) fn line(&mut self, line: &[u8]) {
        let limit = self.config.max_size;
        let before = self.size + self.batch.len() as u64;
        if limit > 0 && before + line.len() as u64 > limit && before > 0 {
            self.flush();
            if let Ok(fresh) = self.rotate() {
                self.file = fresh;
                self.size = 0;
            }
        }
        self.batch.extend_from_slice(line);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.write_all(&self.batch).is_ok() {
            self.size += self.batch.len() as u64;
        } else if let Ok(size) = whole_length(&mut self.file, self.config.format) {
            // The disk is full: drop the torn record, so that the next one is whole.
            let _ = self.file.set_len(size);
            self.size = size;
        }
        // Memory that one burst needed is not kept by a process that lives as long as a container.
        self.batch = Vec::new();
    }

    /// Move the files on by one and begin a new one. The new one is made first: where there is no room for
    /// it, none of the old ones goes.
    fn rotate(&mut self) -> io::Result<File> {
        let path = &self.config.path;
        let new = with_ending(path, ".new");
        let _ = fs::remove_file(&new);
        let fresh = File::options().read(true).append(true).create_new(true).open(&new)?;
        let keep = self.config.max_files - 1;
        let both = |number: u32| [numbered(path, number), packed(path, number)];
        if keep > 0 {
            for oldest in both(keep) {
                let _ = fs::remove_file(oldest);
            }
            for number in (1..keep).rev() {
                for (from, to) in both(number).into_iter().zip(both(number + 1)) {
                    let _ = fs::rename(from, to);
                }
            }
            fs::rename(path, numbered(path, 1))?;
        } else {
            fs::remove_file(path)?;
        }
        fs::rename(&new, path)?;
        if let Some(packing) = &mut self.packing {
            packing.number += 1;
        }
        self.pack_next();
        Ok(fresh)
    }

    /// Begin to pack the oldest file that is not, unless one is being packed.
    pub(crate) fn pack_next(&mut self) {
        if !self.config.compress || self.packing.is_some() {
            return;
        }
        let mut plain = (1..self.config.max_files).rev();
        let number = plain.find(|number| numbered(&self.config.path, *number).exists());
        self.packing = number.and_then(|number| Packing::begin(&self.config.path, number).ok());
    }
}

/// Length of the file up to and including its last whole record.
fn whole_length(file: &mut File, format: Format) -> io::Result<u64> {
    match format {
        Format::JsonFile => whole_lines(file),
        Format::Local => whole_records(file),
    }
}

fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn whole_records(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut buffer = vec![0; length.min(BATCH as u64) as usize];
    file.seek(SeekFrom::Start(length - buffer.len() as u64))?;
    file.read_exact(&mut buffer)?;
    if record::back(&buffer).is_some() {
        return Ok(length);
    }
    // Torn: only from the beginning can be known what is whole.
    let mut whole = 0;
    buffer.clear();
    file.seek(SeekFrom::Start(0))?;
    loop {
        match record::front(&buffer) {
            record::Front::Whole(_, size) => {
                whole += size as u64;
                buffer.drain(..size);
            }
            record::Front::Broken => return Ok(whole),
            record::Front::Part => {
                let mut block = io::Read::by_ref(file).take(BATCH as u64);
                if block.read_to_end(&mut buffer)? == 0 {
                    return Ok(whole);
                }
            }
        }
    }
}

/// The plain file of this number.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    with_ending(path, &format!(".{number}"))
}

/// The packed file of this number.
pub(crate) fn packed(path: &Path, number: u32) -> PathBuf {
    with_ending(path, &format!(".{number}.gz"))
}

/// The path with some text behind it.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path, max_size: u64, max_files: u32) -> LogConfig {
        LogConfig { path: directory.join("c.log"), max_size, max_files, ..LogConfig::default() }
    }

    #[test]
    fn files_are_rotated_and_no_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 500, 3);
        let mut log = LogFile::open(&config).unwrap();
        for number in 0..40 {
            log.write(0, format!("line {number}\n").as_bytes(), number);
        }
        let mut seen = Vec::new();
        for path in [numbered(&config.path, 2), numbered(&config.path, 1), config.path.clone()] {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.len() <= 500 && text.ends_with("}\n"), "{text}");
            seen.extend(text.lines().map(str::to_owned));
        }
        assert!(!numbered(&config.path, 3).exists());
        assert!(seen.last().unwrap().contains("line 39\\n"));
        let first = 40 - seen.len();
        for (place, line) in seen.iter().enumerate() {
            assert!(line.contains(&format!("\"line {}\\n\"", first + place)), "{line}");
        }
    }

    #[test]
    fn without_room_for_a_new_file_no_old_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 200, 3);
        let mut log = LogFile::open(&config).unwrap();
        let mut write = |numbers: std::ops::Range<u64>| {
            numbers.for_each(|number| log.write(0, format!("line {number}\n").as_bytes(), number));
        };
        write(0..9);
        let old = |number| fs::read_to_string(numbered(&config.path, number)).unwrap();
        let before = [old(1), old(2)];
        // Nothing can be made where the new file is made.
        let place = with_ending(&config.path, ".new");
        fs::create_dir_all(place.join("full")).unwrap();
        write(9..30);
        assert_eq!([old(1), old(2)], before);
        assert!(fs::read_to_string(&config.path).unwrap().contains("line 29"));
        fs::remove_dir_all(&place).unwrap();
        write(30..31);
        assert!(old(1).contains("line 29") && old(2) == before[0]);
    }

    #[test]
    fn one_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 200, 1);
        let mut log = LogFile::open(&config).unwrap();
        for _ in 0..10 {
            log.write(1, b"some words\n", 0);
        }
        assert!(fs::metadata(&config.path).unwrap().len() <= 200);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_at_opening() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 0, 1);
        let torn = format!("{{\"log\":\"a\\n\"}}\n{{\"log\":\"{}", "x".repeat(10_000));
        fs::write(&config.path, torn).unwrap();
        let mut log = LogFile::open(&config).unwrap();
        log.write(0, b"b\n", 0);
        let text = fs::read_to_string(&config.path).unwrap();
        assert!(text.starts_with("{\"log\":\"a\\n\"}\n{\"log\":\"b\\n\""), "{text}");
    }

    #[test]
    fn a_torn_last_record_is_cut_off_wherever_it_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { format: Format::Local, ..config(dir.path(), 0, 1) };
        LogFile::open(&config).unwrap().write(0, b"first\nsecond\n", 7);
        let whole = fs::read(&config.path).unwrap();
        let second = whole.len() - (whole.len() - 1) / 2;
        for end in second..whole.len() {
            fs::write(&config.path, &whole[..end]).unwrap();
            LogFile::open(&config).unwrap().write(1, b"third\n", 8);
            let bytes = fs::read(&config.path).unwrap();
            let record::Front::Whole(first, length) = record::front(&bytes) else { panic!() };
            assert_eq!(first.text, b"first");
            let record::Front::Whole(next, _) = record::front(&bytes[length..]) else { panic!() };
            assert_eq!((next.text, next.stderr), (&b"third"[..], true), "torn at {end}");
        }
    }

    #[test]
    fn older_files_are_packed_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let config =
            LogConfig { format: Format::Local, compress: true, ..config(dir.path(), 4000, 4) };
        let mut log = LogFile::open(&config).unwrap();
        for number in 0..400 {
            log.write(0, format!("line {number} of a service\n").as_bytes(), number);
        }
        // What the server does when a child has ended.
        let packing = |log: &LogFile| match &log.sink {
            Sink::Here(files) => files.packing.as_ref().map(|packing| packing.pid),
            Sink::Apart(_) => None,
        };
        while let Some(pid) = packing(&log) {
            let pid = rustix::process::Pid::from_raw(pid);
            let flags = rustix::process::WaitOptions::empty();
            let (pid, status) = rustix::process::waitpid(pid, flags).unwrap().unwrap();
            log.child_ended(pid.as_raw_nonzero().get(), status.exit_status() == Some(0));
        }
        for number in 1..4 {
            assert!(!numbered(&config.path, number).exists());
            let file = File::open(packed(&config.path, number)).unwrap();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(file).read_to_end(&mut text).unwrap();
            assert!(matches!(record::front(&text), record::Front::Whole(..)));
            assert!(text.len() <= 4000 && text.len() > 3900);
        }
        assert!(!packed(&config.path, 4).exists() && !packing::unfinished(&config.path).exists());
    }
}
