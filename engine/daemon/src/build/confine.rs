//! Programs of the host that read what strangers wrote: they run as root, so what they may use is bounded.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Gives a program, and each that it starts, at most so many bytes of memory of its own. They are the first
/// that the kernel ends when all memory runs out.
///
/// Files that are mapped for reading do not count: git maps packs that are larger.
pub(crate) fn confine(command: &mut Command, bytes: u64) {
    let most = getrlimit(Resource::Data).maximum.map_or(bytes, |most| most.min(bytes));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    let apply = move || {
        setrlimit(Resource::Data, limit)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        // The limit holds without it too.
        if let Ok(score) = open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
            let _ = rustix::io::write(&score, b"1000");
        }
        Ok(())
    };
    // SAFETY: after the fork it makes system calls only: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(apply) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_and_what_it_starts_have_little_memory_and_go_first() {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d; cat /proc/self/oom_score_adj"]);
        confine(&mut command, 64 << 20);
        let said = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "65536\n1000\n", "{said:?}");
        // Twice as much as that in one piece.
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"]);
        confine(&mut command, 64 << 20);
        assert!(!command.output().unwrap().status.success());
    }
}
