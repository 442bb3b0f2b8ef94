//! Disks of this machine, and disks that are files.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

// The kernel's requests for devices that are files.
const LOOP_SET_FD: u64 = 0x4C00;
const LOOP_CLR_FD: u64 = 0x4C01;
const LOOP_CTL_GET_FREE: u64 = 0x4C82;
/// Size of a disk that is a file, bytes.
const SIZE: u64 = 8 << 20;

/// A block device.
pub struct Disk {
    /// Its node.
    pub node: String,
    pub major: u32,
    pub minor: u32,
    /// Open if it is a file that we have made a disk.
    device: Option<File>,
}

impl Disk {
    /// The first that the kernel names; one that may be opened, and is not memory or a file, if there
    /// is any.
    pub fn find() -> Disk {
        let entries = std::fs::read_dir("/sys/block").unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut nodes: Vec<String> = names.map(|name| format!("/dev/{name}")).collect();
        nodes.retain(|node| Path::new(node).exists());
        let lesser = ["/dev/loop", "/dev/ram", "/dev/zram"];
        nodes
            .sort_by_key(|node| (File::open(node).is_err(), lesser.map(|it| node.starts_with(it))));
        Disk::at(nodes.into_iter().next().expect("the machine has a disk"), None)
    }

    /// A new one, whose content is a new file in this directory.
    pub fn make(dir: &Path) -> Disk {
        let path = dir.join("disk");
        let file = File::create_new(&path).unwrap();
        file.set_len(SIZE).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let control = File::open("/dev/loop-control").unwrap();
        loop {
            let number = ask(&control, LOOP_CTL_GET_FREE, 0).unwrap();
            let node = format!("/dev/loop{number}");
            let device = File::options().read(true).write(true).open(&node).unwrap();
            // Somebody else may have been faster.
            if ask(&device, LOOP_SET_FD, file.as_raw_fd()).is_ok() {
                return Disk::at(node, Some(device));
            }
        }
    }

    fn at(node: String, device: Option<File>) -> Disk {
        let number = std::fs::metadata(&node).unwrap().rdev();
        Disk { node, major: rustix::fs::major(number), minor: rustix::fs::minor(number), device }
    }

    /// Gives it another scheduler.
    pub fn schedule_by(&self, scheduler: &str) {
        let name = self.node.trim_start_matches("/dev/");
        std::fs::write(format!("/sys/block/{name}/queue/scheduler"), scheduler).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            let _ = ask(device, LOOP_CLR_FD, 0);
        }
    }
}

fn ask(device: &File, request: u64, argument: i32) -> std::io::Result<i32> {
    // SAFETY: the requests above take a number and touch no memory of ours.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, argument) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
