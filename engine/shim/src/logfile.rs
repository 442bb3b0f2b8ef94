//! The log file of a container: appended to, rotated, never left with a torn line in the middle.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use minke_engine_shim::config::LogConfig;
use minke_engine_shim::log::LineWriter;

/// Most bytes of whole lines that are gathered before they are written.
const BATCH: usize = 64 * 1024;

/// An open log.
pub(crate) struct LogFile {
    config: LogConfig,
    file: File,
    size: u64,
    streams: [LineWriter; 2],
}

impl LogFile {
    /// Open or make it. A last line without an end, left by a crash, is cut off.
    pub(crate) fn open(config: &LogConfig) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(&config.path)?;
        let size = whole_lines(&mut file)?;
        file.set_len(size)?;
        Ok(Self {
            config: config.clone(),
            file,
            size,
            streams: [LineWriter::new("stdout"), LineWriter::new("stderr")],
        })
    }

    /// Log what a stream (0 stdout, 1 stderr) has said. A full disk loses lines, not the container.
    pub(crate) fn write(&mut self, stream: usize, bytes: &[u8], time: u64) {
        let mut batch = Vec::new();
        let Self { config, file, size, streams } = self;
        let mut sink = Sink { config, file, size, batch: &mut batch };
        streams[stream].push(bytes, time, &mut |line| sink.line(line));
        sink.flush();
    }

    /// A stream has ended.
    pub(crate) fn finish(&mut self, stream: usize, time: u64) {
        let mut batch = Vec::new();
        let Self { config, file, size, streams } = self;
        let mut sink = Sink { config, file, size, batch: &mut batch };
        streams[stream].finish(time, &mut |line| sink.line(line));
        sink.flush();
    }
}

struct Sink<'a> {
    config: &'a LogConfig,
    file: &'a mut File,
    size: &'a mut u64,
    batch: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn line(&mut self, line: &[u8]) {
        let limit = self.config.max_size;
        let after = *self.size + (self.batch.len() + line.len()) as u64;
        if limit > 0 && after > limit && *self.size + self.batch.len() as u64 > 0 {
            self.flush();
            if let Ok(fresh) = rotate(self.config) {
                *self.file = fresh;
                *self.size = 0;
            }
        }
        self.batch.extend_from_slice(line);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.write_all(self.batch).is_ok() {
            *self.size += self.batch.len() as u64;
        } else if let Ok(size) = whole_lines(self.file) {
            // The disk is full: drop the torn line, so that the next one is whole.
            let _ = self.file.set_len(size);
            *self.size = size;
        }
        self.batch.clear();
    }
}

/// Length of the file up to and including its last line feed.
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

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(number.to_string());
    name.into()
}

/// Move the files on by one and begin a new one.
fn rotate(config: &LogConfig) -> io::Result<File> {
    let keep = config.max_files - 1;
    for number in (1..keep).rev() {
        let _ = fs::rename(numbered(&config.path, number), numbered(&config.path, number + 1));
    }
    if keep > 0 {
        fs::rename(&config.path, numbered(&config.path, 1))?;
    } else {
        fs::remove_file(&config.path)?;
    }
    File::options().read(true).append(true).create_new(true).open(&config.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path, max_size: u64, max_files: u32) -> LogConfig {
        LogConfig { path: directory.join("c.log"), max_size, max_files }
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
}
