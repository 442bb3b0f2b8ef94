//! Where the newest lines of a log begin.
//!
//! Lines that are not wanted are passed over, so all of a large log may have to be read: between any two
//! blocks others have their turn.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use minke_engine_shim::log::Format;

use super::Query;
use super::line::{self, Next};
use super::part::Part;

/// How much is read at once.
const BLOCK: u64 = 64 * 1024;

/// No record of the compact form is longer, bytes.
const LONGEST_RECORD: u64 = 17 * 1024;

/// Where to begin in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// At this byte.
    At(u64),
    /// After this many wanted lines: packed files cannot be read from the middle.
    After(u64),
}

/// The part (by index, newest first) where the newest `count` wanted lines begin, and the place in it.
pub(super) async fn position(
    parts: &mut [Part],
    format: Format,
    query: &Query,
    count: u64,
) -> io::Result<Option<(usize, Begin)>> {
    let mut missing = count;
    for (index, part) in parts.iter_mut().enumerate() {
        if let Some((file, end)) = part.plain_to()? {
            if missing == 0 {
                return Ok(Some((index, Begin::At(end))));
            }
            let offset = backwards(file, end, format, query, &mut missing).await?;
            match offset {
                Some(offset) if missing == 0 => return Ok(Some((index, Begin::At(offset)))),
                Some(_) => continue,
                // Its last record is not whole yet: it can only be read from the front.
                None => part.seek(0)?,
            }
        }
        let found = wanted_lines(part, format, query).await?;
        if found >= missing {
            return Ok(Some((index, Begin::After(found - missing))));
        }
        missing -= found;
    }
    Ok(parts.len().checked_sub(1).map(|oldest| (oldest, Begin::At(0))))
}

/// How many wanted lines a packed part has. It has been read to its end then.
async fn wanted_lines(part: &mut Part, format: Format, query: &Query) -> io::Result<u64> {
    let (mut buffer, mut start, mut found) = (Vec::new(), 0, 0);
    loop {
        match line::front(format, &buffer[start..]) {
            Next::Taken(line, length) => {
                found += u64::from(line.is_some_and(|line| query.wants(&line)));
                start += length;
            }
            Next::Broken => return Ok(found),
            Next::Part => {
                buffer.drain(..start);
                start = 0;
                if part.by_ref().take(BLOCK).read_to_end(&mut buffer)? == 0 {
                    return Ok(found);
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Goes back through a file from `end` until `missing` is 0 or its beginning is reached; the place where it
/// stopped, or `None` if that cannot be done from there.
async fn backwards(
    mut file: &File,
    end: u64,
    format: Format,
    query: &Query,
    missing: &mut u64,
) -> io::Result<Option<u64>> {
    let mut start = end;
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
        let at_end = start + pending.len() as u64 == end;
        let torn =
            at_end && format == Format::Local && pending.len() as u64 >= LONGEST_RECORD.min(end);
        if torn && line::back(format, &pending, start == 0).is_none() {
            return Ok(None);
        }
        while let Some((line, begin)) = line::back(format, &pending, start == 0) {
            pending.truncate(begin);
            if line.is_some_and(|line| query.wants(&line)) {
                *missing -= 1;
                if *missing == 0 {
                    return Ok(Some(start + begin as u64));
                }
            }
        }
        if pending.len() > super::LONGEST {
            // Not lines of ours: a record that is being written, or garbage.
            pending.clear();
        }
        tokio::task::yield_now().await;
    }
    Ok(Some(0))
}

#[cfg(test)]
mod tests {
    use super::super::part::newest_first;
    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> String {
        numbers
            .map(|n| {
                let stream = if n % 2 == 0 { "stdout" } else { "stderr" };
                let text = "x".repeat((n as usize * 37) % 3000);
                format!("{{\"log\":\"{n} {text}\\n\",\"stream\":\"{stream}\",\"time\":\"2023-11-14T22:13:20Z\"}}\n")
            })
            .collect()
    }

    #[tokio::test]
    async fn the_newest_lines_are_found_across_files_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a");
        std::fs::write(dir.path().join("a.1"), lines(0..100)).unwrap();
        std::fs::write(&log, lines(100..200)).unwrap();
        let both = Query { stdout: true, stderr: true, ..Query::default() };
        let first = async |query: &Query, count| {
            let mut parts = newest_first(&log, None).unwrap();
            let found = position(&mut parts, Format::JsonFile, query, count).await;
            let (index, begin) = found.unwrap().unwrap();
            let Begin::At(offset) = begin else { panic!("{begin:?}") };
            let path = if index == 0 { log.clone() } else { dir.path().join("a.1") };
            let text = std::fs::read_to_string(path).unwrap();
            let rest = &text[offset as usize..];
            rest.split("\"log\":\"").nth(1).map(|t| t.split(' ').next().unwrap().to_owned())
        };
        assert_eq!(first(&both, 0).await, None);
        assert_eq!(first(&both, 1).await.as_deref(), Some("199"));
        assert_eq!(first(&both, 100).await.as_deref(), Some("100"));
        assert_eq!(first(&both, 101).await.as_deref(), Some("99"));
        assert_eq!(first(&both, 1000).await.as_deref(), Some("0"));
        let out = Query { stdout: true, ..Query::default() };
        assert_eq!(first(&out, 3).await.as_deref(), Some("194"));
    }
}
