//! Where the newest lines of a log begin.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::{Line, Query};

/// How much is read at once, going backwards.
const BLOCK: u64 = 64 * 1024;

/// The file (by index) and offset where the newest `count` wanted lines begin.
pub(super) fn position(files: &[PathBuf], query: &Query, count: u64) -> io::Result<(usize, u64)> {
    let mut missing = count;
    for (index, path) in files.iter().enumerate().rev() {
        if missing == 0 {
            let end = std::fs::metadata(path)?.len();
            return Ok((index, end));
        }
        let offset = backwards(path, query, &mut missing)?;
        if missing == 0 {
            return Ok((index, offset));
        }
    }
    Ok((0, 0))
}

/// Goes back through a file until `missing` is 0 or its beginning is reached.
fn backwards(path: &PathBuf, query: &Query, missing: &mut u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut start = file.seek(SeekFrom::End(0))?;
    // Bytes from `start` on that are not judged yet: the beginning of some line is still before them.
    let mut pending: Vec<u8> = Vec::new();
    while start > 0 {
        let size = start.min(BLOCK);
        start -= size;
        file.seek(SeekFrom::Start(start))?;
        let mut block = vec![0; size as usize];
        file.read_exact(&mut block)?;
        block.extend_from_slice(&pending);
        pending = block;
        // Every line that begins after the first line feed is whole.
        let mut end = pending.len();
        while let Some(feed) = pending[..end.saturating_sub(1)].iter().rposition(|b| *b == b'\n') {
            let line = &pending[feed + 1..end];
            if Line::parse(line).is_some_and(|line| query.wants(&line)) {
                *missing -= 1;
                if *missing == 0 {
                    return Ok(start + feed as u64 + 1);
                }
            }
            end = feed + 1;
        }
        pending.truncate(end);
    }
    if Line::parse(&pending).is_some_and(|line| query.wants(&line)) {
        *missing -= 1;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(dir: &std::path::Path, name: &str, numbers: std::ops::Range<u32>) -> PathBuf {
        let path = dir.join(name);
        let lines: String = numbers
            .map(|n| {
                let stream = if n % 2 == 0 { "stdout" } else { "stderr" };
                let text = "x".repeat((n as usize * 37) % 3000);
                format!("{{\"log\":\"{n} {text}\\n\",\"stream\":\"{stream}\",\"time\":\"2023-11-14T22:13:20Z\"}}\n")
            })
            .collect();
        std::fs::write(&path, lines).unwrap();
        path
    }

    #[test]
    fn the_newest_lines_are_found_across_files_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let files = [file_of(dir.path(), "a", 0..100), file_of(dir.path(), "b", 100..200)];
        let both = Query { stdout: true, stderr: true, ..Query::default() };
        let first = |query: &Query, count| {
            let (index, offset) = position(&files, query, count).unwrap();
            let text = std::fs::read_to_string(&files[index]).unwrap();
            let rest = &text[offset as usize..];
            rest.split("\"log\":\"").nth(1).map(|t| t.split(' ').next().unwrap().to_owned())
        };
        assert_eq!(first(&both, 0), None);
        assert_eq!(first(&both, 1).as_deref(), Some("199"));
        assert_eq!(first(&both, 100).as_deref(), Some("100"));
        assert_eq!(first(&both, 101).as_deref(), Some("99"));
        assert_eq!(first(&both, 1000).as_deref(), Some("0"));
        let out = Query { stdout: true, ..Query::default() };
        assert_eq!(first(&out, 3).as_deref(), Some("194"));
    }
}
