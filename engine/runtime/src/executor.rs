//! The last step inside the container: become the program.
//!
//! Invariant: the process environment is not touched. libcontainer's default way goes through the
//! standard library's environment lock, which a cloned child may find taken; here the environment of
//! the specification is handed to `execve` as it is.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, RawFd};

use libcontainer::oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec};
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::DumpableBehavior;

use crate::joining;
use crate::privileges::{self, Identity};
use crate::seccomp::{self, Program};
use crate::spec::capabilities::bits;

const NOT_FOUND: u8 = 1;
const NOT_EXECUTABLE: u8 = 2;
const OTHER: u8 = 3;

/// Runs the program of the specification.
#[derive(Clone)]
pub(crate) struct ProgramExecutor {
    /// Socket to the shim.
    pub(crate) status: RawFd,
    /// The calls that the program may make; `None`: all.
    pub(crate) filter: Option<Program>,
    /// Files of cgroups to be entered first.
    pub(crate) task_files: Vec<RawFd>,
    /// To be entered last: libcontainer brings a further process into all namespaces but this.
    pub(crate) user_namespace: Option<RawFd>,
}

impl Executor for ProgramExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // SAFETY: the descriptor was inherited from the helper, which keeps it open.
        let status = unsafe { BorrowedFd::borrow_raw(self.status) };
        let failed = |number: u8, text: String| {
            let line = format!("failed {number} {text}\n");
            let _ = rustix::net::send(status, line.as_bytes(), SendFlags::NOSIGNAL);
            // SAFETY: ends this cloned process without running the helper's clean-up in it.
            unsafe { libc::_exit(i32::from(128 - u8::from(number == NOT_FOUND) - number)) }
        };
        if let Err(error) = joining::enter(&self.task_files) {
            failed(OTHER, format!("entering the container's cgroups: {error}"));
        }
        if rustix::net::send(status, b"ready\n", SendFlags::NOSIGNAL).is_err() {
            failed(OTHER, "the shim has gone".to_owned());
        }
        let mut byte = [0_u8; 1];
        match rustix::net::recv(status, &mut byte, RecvFlags::empty()) {
            Ok((1, _)) => {}
            _ => failed(OTHER, "the shim has gone".to_owned()),
        }
        let Some(process) = spec.process() else {
            failed(OTHER, "the specification has no process".to_owned());
            return Err(ExecutorError::InvalidArg);
        };
        // From here on the process has no more power than others in the container, who could open the
        // program it still is: a file of the host.
        if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            failed(OTHER, format!("hiding from the container: {error}"));
        }
        if let Some(namespace) = self.user_namespace {
            // SAFETY: as above.
            let namespace = unsafe { BorrowedFd::borrow_raw(namespace) };
            if let Err(error) = enter(process, namespace) {
                failed(OTHER, format!("entering the user namespace: {error}"));
            }
        }
        if let Err(error) = confine(process, self.filter.as_ref()) {
            failed(OTHER, format!("installing the seccomp filter: {error}"));
        }
        let (number, text) = become_program(process);
        failed(number, text);
        Err(ExecutorError::InvalidArg)
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        // What is wrong with the program shows when it is executed, and is reported from there.
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// Become the container's user. Until here this was a process of the host's root: one that nobody in
/// the container has power over.
fn enter(process: &Process, namespace: BorrowedFd<'_>) -> std::io::Result<()> {
    let sets = process.capabilities().as_ref();
    let of = |set: Option<&Option<Capabilities>>| set.and_then(Option::as_ref).map_or(0, bits);
    let user = process.user();
    privileges::enter(
        namespace,
        &Identity {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().as_deref().unwrap_or_default(),
            bounding: of(sets.map(LinuxCapabilities::bounding)),
            permitted: of(sets.map(LinuxCapabilities::permitted)),
        },
    )
}

/// Take the last privileges away. What the process may do from here on is what the program may.
fn confine(process: &Process, filter: Option<&Program>) -> std::io::Result<()> {
    if let Some(filter) = filter {
        privileges::raise_admin()?;
        seccomp::install(filter)?;
    }
    let effective = process.capabilities().as_ref().and_then(|sets| sets.effective().as_ref());
    match effective.is_some_and(|set| set.contains(&Capability::SysAdmin)) {
        true => Ok(()),
        // It was only there to install the filter.
        false => privileges::drop_admin(),
    }
}

/// Only returns if the program cannot be executed: a failure number, and why.
fn become_program(process: &Process) -> (u8, String) {
    let (Some(args), Some(envs)) = (process.args(), process.env()) else {
        return (OTHER, "the process has no arguments or no environment".to_owned());
    };
    let strings = |list: &[String]| -> Option<Vec<CString>> {
        list.iter().map(|text| CString::new(text.as_str()).ok()).collect()
    };
    let (Some(argv), Some(envp)) = (strings(args), strings(envs)) else {
        return (OTHER, "an argument or variable contains a NUL byte".to_owned());
    };
    let Some(name) = args.first() else {
        return (OTHER, "no command specified".to_owned());
    };
    reset_signals();
    if name.contains('/') {
        return explain(name, true, execute(name, &argv, &envp));
    }
    let search = envs.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let mut worst = Errno::NOENT;
    for directory in search.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        match execute(&format!("{directory}/{name}"), &argv, &envp) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => worst = Errno::ACCESS,
            error => return explain(name, false, error),
        }
    }
    explain(name, false, worst)
}

/// In the words that Docker's clients look for.
fn explain(name: &str, is_path: bool, error: Errno) -> (u8, String) {
    match error {
        Errno::NOENT if is_path => {
            (NOT_FOUND, format!("exec: {name:?}: stat {name}: no such file or directory"))
        }
        Errno::NOENT => (NOT_FOUND, format!("exec: {name:?}: executable file not found in $PATH")),
        Errno::ACCESS | Errno::ISDIR | Errno::NOTDIR => {
            (NOT_EXECUTABLE, format!("exec: {name:?}: permission denied"))
        }
        Errno::NOEXEC => (NOT_EXECUTABLE, format!("exec {name}: exec format error")),
        other => (OTHER, format!("exec {name:?}: {other}")),
    }
}

/// What a Rust program ignores, and what its parents blocked, would stay so in the container: a `yes`
/// that does not die of a closed pipe.
fn reset_signals() {
    // The C library keeps two signals to itself, so the kernel is asked. All zeros is its structure for
    // the default action, and no architecture's is longer.
    let default = [0_u64; 8];
    // SAFETY: only dispositions and the mask of this single-threaded process change.
    unsafe {
        for signal in 1..=64 {
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8_usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

fn execute(path: &str, argv: &[CString], envp: &[CString]) -> Errno {
    let Ok(path) = CString::new(path) else { return Errno::INVAL };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: path and both lists are NUL-terminated and live until the call returns, if it does.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
