//! Servers as processes of their own: they outlive who starts them, and end by pid.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::ledger::{Entry, Ledger};

const LOOK_AGAIN: Duration = Duration::from_millis(10);
const STOP_TIME: Duration = Duration::from_secs(20);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Every wait ends with an error once this flag is set, as Ctrl-C does.
pub fn give_up_when(flag: Arc<AtomicBool>) {
    // The first flag stays: a program has one Ctrl-C.
    let _ = INTERRUPTED.set(flag);
}

/// Waits until `look` finds something; an error says what was waited for.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            bail!("interrupted while waiting for {what}");
        }
        if begun.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A server that writes to a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a session of its own and writes it into the ledger.
    pub fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        ledger: &mut Ledger,
    ) -> Result<Process> {
        let said = || format!("cannot start {name}");
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().with_context(said)?;
        // SAFETY: setsid is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(())
            });
        }
        let child =
            command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().with_context(said)?;
        let pid = child.id() as i32;
        let start = start_time(pid).with_context(|| format!("{name} ended at once"))?;
        ledger.add(Entry::Process { name: name.to_owned(), pid, start })?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process's id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for a line of the log that `wanted` makes something of.
    pub fn wait_for_line<T>(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let (name, log) = (self.name.clone(), self.log.clone());
        wait_until(what, limit, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            // The last line may be half written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(found) = whole.lines().find_map(&wanted) {
                return Ok(Some(found));
            }
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("cannot watch {name}"))?
            {
                bail!("{name} ended with {status}; it wrote:\n{}", tail(&text));
            }
            Ok(None)
        })
        .with_context(|| format!("{name} did not become ready; its log is {}", log.display()))
    }

    /// Ends it: asked first, then made to. The ledger forgets it.
    pub fn stop(mut self, ledger: &mut Ledger) -> Result<()> {
        let pid = self.pid();
        let entry =
            start_time(pid).map(|start| Entry::Process { name: self.name.clone(), pid, start });
        end(pid, || self.child.try_wait().is_ok_and(|status| status.is_some()))?;
        entry.map_or(Ok(()), |entry| ledger.strike(&entry))
    }

    /// Ends it without a warning, as a crash would.
    pub fn kill(mut self, ledger: &mut Ledger) -> Result<()> {
        let entry = start_time(self.pid()).map(|start| Entry::Process {
            name: self.name.clone(),
            pid: self.pid(),
            start,
        });
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        entry.map_or(Ok(()), |entry| ledger.strike(&entry))
    }
}

/// Ends a process that somebody else started, if it is still the one that was meant.
pub fn end_by_pid(pid: i32, start: u64) -> Result<()> {
    if start_time(pid) != Some(start) {
        return Ok(());
    }
    end(pid, || start_time(pid) != Some(start))
}

/// Ends every process whose first words after its name are these.
pub fn end_by_words(words: &[&OsStr]) -> Result<()> {
    let entries = std::fs::read_dir("/proc").context("cannot list processes")?;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let own = command.split(|byte| *byte == 0).skip(1).take(words.len());
        if own.eq(words.iter().map(|word| word.as_encoded_bytes()))
            && let Some(start) = start_time(pid)
        {
            end_by_pid(pid, start)?;
        }
    }
    Ok(())
}

fn end(pid: i32, mut is_gone: impl FnMut() -> bool) -> Result<()> {
    let process = Pid::from_raw(pid).context("a process has no pid")?;
    for signal in [Signal::TERM, Signal::KILL] {
        if kill_process(process, signal).is_err() && is_gone() {
            return Ok(());
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_TIME {
            if is_gone() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    bail!("process {pid} does not end")
}

/// When the process began, in clock ticks after boot; `None` if it is gone or a zombie. One whose first thread
/// alone is a zombie still has its files and locks.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything; the fields follow its last bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    if matches!(fields.first(), Some(&"Z" | &"X")) && threads <= 1 {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
