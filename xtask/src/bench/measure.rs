//! Medians, and what the operating system knows of processes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long `work` takes.
pub fn time(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// The middle of some measurements.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// CPU time that a process tree has used so far, with that of its children that have ended.
pub fn cpu(root: i32) -> Duration {
    let ticks: u64 = tree(root).into_iter().filter_map(cpu_ticks).sum();
    Duration::from_millis(ticks * 10)
}

/// User and system time of a process and of its waited-for children, in ticks of 10 ms.
fn cpu_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (11..=14).map(|index| fields.get(index)?.parse::<u64>().ok()).sum()
}

/// Resident and proportional memory of a process tree, in KiB.
pub fn memory(root: i32) -> (u64, u64) {
    tree(root)
        .into_iter()
        .filter_map(rollup)
        .fold((0, 0), |(rss, pss), one| (rss + one.0, pss + one.1))
}

/// The highest resident memory that a process has had, in KiB.
pub fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Proportional memory of one process, in KiB.
pub fn proportional(pid: i32) -> Option<u64> {
    rollup(pid).map(|(_, pss)| pss)
}

fn rollup(pid: i32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    Some((field("Rss:")?, field("Pss:")?))
}

/// A process and all its descendants.
fn tree(root: i32) -> Vec<i32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children =
                std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|it| it.parse::<i32>().ok()));
        }
    }
    all
}

/// Processes anywhere on the machine whose program is called `name`.
pub fn processes_called(name: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim() == &name[..name.len().min(15)])
        })
        .collect()
}

/// One request to an engine's socket; the answer's status and body.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let said = || format!("{method} {path} at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(said)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).with_context(said)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    )
    .with_context(said)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(said)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(said)?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).with_context(said)?;
    Ok((status, body.to_owned()))
}

/// A request that must succeed; its body.
pub fn must(socket: &Path, method: &str, path: &str, body: &str) -> Result<String> {
    let (status, answer) = request(socket, method, path, body)?;
    if !(200..300).contains(&status) {
        bail!("{method} {path} at {} answered {status}: {}", socket.display(), answer.trim());
    }
    Ok(answer)
}

/// The value of `"Id"` in a small JSON answer, which may be chunked.
pub fn id_of(answer: &str) -> Result<String> {
    let (_, after) = answer.split_once("\"Id\":").context("the answer names no id")?;
    after.split('"').nth(1).map(str::to_owned).context("the answer names no id")
}
