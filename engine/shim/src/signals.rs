//! Signals as a readable descriptor.
//!
//! Handlers, not ignored or blocked signals: those would be inherited by the container's processes,
//! handlers are reset when a program is executed.

use std::io;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::PipeFlags;

static WRITE_END: AtomicI32 = AtomicI32::new(-1);

extern "C" fn wake(_signal: libc::c_int) {
    let fd = WRITE_END.load(Ordering::Relaxed);
    // SAFETY: write is async-signal-safe; the descriptor stays open for the life of the process. The
    // interrupted code must not see another errno.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(fd, [0_u8].as_ptr().cast(), 1);
        *errno = saved;
    }
}

/// In a forked child: the handler must not write to what has the number of the pipe there.
pub(crate) fn leave() {
    WRITE_END.store(-1, Ordering::Relaxed);
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Install the handlers; the descriptor is readable when a child may have ended.
pub(crate) fn install() -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    WRITE_END.store(write.into_raw_fd(), Ordering::Relaxed);
    handle(libc::SIGCHLD, wake)?;
    // Whoever wants the container to end says so to the container.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        handle(signal, nothing)?;
    }
    Ok(read)
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: a zeroed sigaction is valid, and the handler only does what a handler may.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Forget the wake-ups seen so far.
pub(crate) fn drain(read: &OwnedFd) {
    let mut bytes = [0_u8; 64];
    while rustix::io::read(read, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
}
