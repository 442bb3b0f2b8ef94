//! Hands a program to the kernel, for this process and all that it will start.

use std::io;

use super::Program;
use super::program::Instruction;

const SET_MODE_FILTER: libc::c_uint = 1;

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const Instruction,
}

/// Install the filter. The caller has `CAP_SYS_ADMIN` in effect, or can gain no privileges any more.
pub(crate) fn install(program: &Program) -> io::Result<()> {
    let filter = FilterProgram {
        length: u16::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.instructions.as_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, program.flags, &raw const filter)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
