//! Disks for tests.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::Advice;

/// A file system of its own in a file.
pub struct Disk {
    pub path: PathBuf,
    dir: tempfile::TempDir,
}

impl Disk {
    /// Makes one, mounted at `path`.
    pub fn new(megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = (dir.path().join("file"), dir.path().join("disk"));
        fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
        fs::create_dir(&path).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&file));
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&path));
        Self { path, dir }
    }

    /// Lets the medium forget one bit of a file, where these bytes of it are: no file system sees that,
    /// and what is in memory of the file is dropped.
    pub fn forget_a_bit(&self, of: &Path, bytes: &[u8]) {
        rustix::fs::syncfs(fs::File::open(&self.path).unwrap()).unwrap();
        let file = self.dir.path().join("file");
        let medium = fs::read(&file).unwrap();
        let places = (0..medium.len() - bytes.len()).filter(|at| medium[*at..].starts_with(bytes));
        // Copies that no file has any more may be there, too.
        let places: Vec<usize> = places.collect();
        assert!(!places.is_empty(), "{}", of.display());
        let medium = fs::File::options().write(true).open(&file).unwrap();
        for at in places {
            medium.write_all_at(&[bytes[0] ^ 1], at as u64).unwrap();
        }
        rustix::fs::fadvise(fs::File::open(of).unwrap(), 0, None, Advice::DontNeed).unwrap();
    }

    /// Bytes that can be written.
    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Writes a file until only this much is free.
    pub fn fill(&self, leave: u64) -> PathBuf {
        let path = self.path.join("fill");
        let mut file = fs::File::create(&path).unwrap();
        while self.free() > leave {
            let more = (self.free() - leave).min(64 << 10) as usize;
            if file.write_all(&vec![7; more]).and_then(|()| file.sync_all()).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
