//! Packing a finished log file in a child of the shim.
//!
//! The child writes `<path>.packing`; only the shim gives it its name, as the file's number may have
//! changed meanwhile. A crash leaves the plain file, and at worst a `.packing` that the next run removes.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use minke_engine_shim::config::LogConfig;

use crate::logfile::{numbered, packed, with_ending};
use crate::process;

/// A file that is being packed.
pub(crate) struct Packing {
    pub(crate) pid: i32,
    /// Which file it is by now.
    pub(crate) number: u32,
}

/// Where the child writes to.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    with_ending(path, ".packing")
}

impl Packing {
    /// Begin with the file of this number.
    pub(crate) fn begin(path: &Path, number: u32) -> io::Result<Packing> {
        let from = File::open(numbered(path, number))?;
        let to = File::create(unfinished(path))?;
        // SAFETY: this process has one thread, so the child may do whatever this process may.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let code = if pack_alone(&from, &to).is_ok() { 0 } else { 1 };
                // SAFETY: nothing of the parent's may run at the child's end.
                unsafe { libc::_exit(code) }
            }
            pid => Ok(Packing { pid, number }),
        }
    }

    /// The child has ended: its file takes the place of the plain one.
    pub(crate) fn finish(&self, config: &LogConfig, well: bool) {
        let result = unfinished(&config.path);
        if !well || self.number >= config.max_files {
            let _ = fs::remove_file(result);
        } else if fs::rename(result, packed(&config.path, self.number)).is_ok() {
            let _ = fs::remove_file(numbered(&config.path, self.number));
        }
    }
}

/// In the child: without the shim's sockets, which must end when the shim does, and after everybody else.
fn pack_alone(from: &File, to: &File) -> io::Result<()> {
    process::close_all_but(from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: it has no memory effects.
    unsafe { libc::nice(10) };
    pack(from, to)
}

fn pack(mut from: &File, to: &File) -> io::Result<()> {
    let name = from.metadata()?.ino().to_string();
    let mut encoder = GzBuilder::new().filename(name).write(to, Compression::fast());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_data()
}
