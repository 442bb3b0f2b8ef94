//! A block device that records what is written to it, with ext4 on it; and reboots.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::UnshareFlags;

use super::log::Log;
use crate::support::wait_until;

const SIZE: u64 = 512 << 20;

/// A mounted, recorded disk. What it made is gone when it is dropped.
pub struct Recorded {
    storage: Child,
    device: String,
    mount: PathBuf,
    base: PathBuf,
    log: Log,
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Recorded {
    /// Makes a disk in files below `dir` and mounts it.
    pub fn start(dir: &Path, mount: &Path) -> Recorded {
        let path = |name: &str| dir.join(name);
        let (base, log, export) = (path("base.raw"), path("log.raw"), path("export.raw"));
        fs::File::create(&base).unwrap().set_len(SIZE).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&base));
        copy(&base, &path("disk.raw"));
        for file in [&log, &export] {
            fs::File::create(file).unwrap();
        }
        let node = |name: &str, file: &str| {
            format!("driver=file,node-name={name},filename={}", path(file).display())
        };
        let storage = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node("data", "disk.raw")])
            .args(["--blockdev", &node("log", "log.raw")])
            .args(["--blockdev", "driver=blklogwrites,node-name=top,file=data,log=log"])
            .arg("--export")
            .arg(format!(
                "type=fuse,id=top,node-name=top,writable=on,mountpoint={}",
                export.display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-storage-daemon can be started");
        wait_until("the recorded disk", || {
            (fs::metadata(&export).ok()?.len() == SIZE).then_some(())
        });
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&export));
        run(Command::new("mount").args(["-t", "ext4", &device]).arg(mount));
        let log = Log::open(&log);
        Recorded { storage, device, mount: mount.to_owned(), base, log }
    }

    /// How many writes and flushes there were so far.
    pub fn position(&mut self) -> usize {
        self.log.read_on();
        self.log.len()
    }

    /// Ends the recording: what the disk held at first, and what happened to it.
    pub fn finish(mut self) -> (PathBuf, Log) {
        let position = self.position();
        self.release();
        let mut log = Log::open(self.log.path());
        log.read_on();
        // Unmounting writes, too; that is no part of what is looked at.
        log.truncate(position);
        (self.base.clone(), log)
    }

    fn release(&mut self) {
        if self.device.is_empty() {
            return;
        }
        let _ = unmount(&self.mount, UnmountFlags::DETACH);
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        self.device.clear();
        let pid = rustix::process::Pid::from_child(&self.storage);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.storage.wait();
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.release();
    }
}

/// A disk that counts what comes to it, with ext4 on it.
pub struct Loop {
    device: String,
    mount: PathBuf,
}

impl Loop {
    /// Makes a disk in a file below `dir` and mounts it.
    pub fn start(dir: &Path, mount: &Path) -> Loop {
        Loop::of_size(dir, mount, SIZE)
    }

    /// The same with so many bytes.
    pub fn of_size(dir: &Path, mount: &Path, size: u64) -> Loop {
        let file = dir.join("disk.raw");
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        // The tables of a new file system are not to be written while something is measured.
        let lazily = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", lazily]).arg(&file));
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&file));
        run(Command::new("mount").args(["-t", "ext4", &device]).arg(mount));
        Loop { device, mount: mount.to_owned() }
    }

    /// Waits until everything is on the disk.
    pub fn settle(&self) {
        rustix::fs::syncfs(fs::File::open(&self.mount).unwrap()).unwrap();
    }

    /// Writes a file until only so many bytes are free; its path.
    pub fn fill(&self, leave: u64) -> PathBuf {
        use std::io::Write;
        let path = self.mount.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let free = || {
            let found = rustix::fs::statvfs(&self.mount).unwrap();
            found.f_bavail * found.f_frsize
        };
        while free() > leave {
            let more = (free() - leave).min(1 << 20) as usize;
            if file.write_all(&vec![7; more]).and_then(|()| file.sync_all()).is_err() {
                break;
            }
        }
        path
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        let name = self.device.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        let sectors: u64 = stat.split_whitespace().nth(6).unwrap().parse().unwrap();
        sectors * 512
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = unmount(&self.mount, UnmountFlags::DETACH);
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

/// Copies a file with its holes.
pub fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to));
}

/// A disk image, mounted for as long as this lives.
pub struct Mounted {
    mount: PathBuf,
}

impl Mounted {
    /// Mounts as the kernel does after a power cut: the journal is replayed.
    pub fn new(image: &Path, mount: &Path) -> Result<Mounted, String> {
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", "loop,errors=remount-ro"]).arg(image).arg(mount);
        let output = command.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Mounted { mount: mount.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What an engine mounted below it goes first.
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let below = self.mount.to_string_lossy().into_owned();
        let mounts = text.lines().filter_map(|line| line.split(' ').nth(4));
        let mut mounts: Vec<&str> = mounts.filter(|path| path.starts_with(&below)).collect();
        mounts.reverse();
        for mount in mounts {
            let _ = unmount(mount, UnmountFlags::DETACH);
        }
    }
}

/// A boot id that this thread and what it starts see, another one after each power cut.
pub struct Reboot {
    file: PathBuf,
}

impl Reboot {
    /// Gives this thread mounts of its own, which end with it.
    pub fn prepare(dir: &Path) -> Reboot {
        // SAFETY: only this thread and what it starts get new mounts; no descriptor is involved.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS).unwrap() };
        let recursively = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", recursively).unwrap();
        let reboot = Reboot { file: dir.join("boot-id") };
        reboot.again(usize::MAX);
        mount_bind(&reboot.file, "/proc/sys/kernel/random/boot_id").unwrap();
        reboot
    }

    pub fn again(&self, number: usize) {
        fs::write(&self.file, format!("00000000-0000-4000-8000-{number:012x}\n")).unwrap();
    }
}
