//! `docker-init -- PROGRAM ARGUMENTS…`: process 1 of a container. See the library beside it.
//!
//! Invariants: no memory is allocated; every signal that can be handed on is; the exit status is the
//! program's, or 128 and the signal that ended it, 127 if it was not found, 126 if it could not be run.

#![no_std]
#![no_main]
#![no_builtins]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

#[cfg(target_arch = "arm")]
mod number {
    pub const WRITE: usize = 4;
    pub const EXECVE: usize = 11;
    pub const KILL: usize = 37;
    pub const IOCTL: usize = 54;
    pub const SETPGID: usize = 57;
    pub const WAIT4: usize = 114;
    pub const CLONE: usize = 120;
    pub const SIGPROCMASK: usize = 175;
    pub const SIGTIMEDWAIT: usize = 177;
    pub const EXIT_GROUP: usize = 248;
}

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    begin = sym begin
);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x0, sp", "bl {begin}", begin = sym begin);
#[cfg(target_arch = "arm")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov r0, sp",
    "bic sp, sp, #7",
    "bl {begin}",
    begin = sym begin
);

/// One call of the kernel. Negative results are error numbers.
unsafe fn call(number: usize, a: [usize; 5]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a[0], in("rsi") a[1],
            in("rdx") a[2], in("r10") a[3], in("r8") a[4], lateout("rcx") _, lateout("r11") _)
    };
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] as isize => result, in("x1") a[1],
            in("x2") a[2], in("x3") a[3], in("x4") a[4])
    };
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("push {{r7}}", "mov r7, {number}", "svc 0", "pop {{r7}}", number = in(reg) number,
            inlateout("r0") a[0] as isize => result, in("r1") a[1], in("r2") a[2], in("r3") a[3],
            in("r4") a[4])
    };
    result
}

const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;
const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;

/// All signals but those that a fault raises in the process itself: those must not wait.
const HANDED_ON: u64 = !((1 << 3) | (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 10));

extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel puts count, arguments, a null, the environment and a null at the top of the
    // stack, all strings with their NULs.
    unsafe {
        let count = *stack;
        let arguments = stack.add(1);
        let environment = arguments.add(count + 1);
        let mut first = 1;
        if count > 1 && begins(*arguments.add(1) as *const u8, b"--\0") {
            first = 2;
        }
        if count <= first {
            say(b"docker-init: no command\n");
            exit(1);
        }
        run(arguments.add(first), environment)
    }
}

unsafe fn run(arguments: *const usize, environment: *const usize) -> ! {
    let mut old = 0_u64;
    let mask = HANDED_ON;
    unsafe {
        call(number::SIGPROCMASK, [SIG_BLOCK, address(&mask), (&raw mut old) as usize, 8, 0]);
        let child = call(number::CLONE, [SIGCHLD, 0, 0, 0, 0]);
        if child == 0 {
            become_program(arguments, environment, &old)
        }
        if child < 0 {
            say(b"docker-init: no process can be started\n");
            exit(1);
        }
        watch(child)
    }
}

/// The child: a process group of its own, in the foreground if there is a terminal.
unsafe fn become_program(arguments: *const usize, environment: *const usize, mask: &u64) -> ! {
    unsafe {
        call(number::SETPGID, [0, 0, 0, 0, 0]);
        let own = own_pid();
        // SIGTTOU is blocked, so this does not stop a background process.
        call(number::IOCTL, [0, TIOCSPGRP, address(&own), 0, 0]);
        call(number::SIGPROCMASK, [SIG_SETMASK, address(mask), 0, 8, 0]);
        let worst = search(arguments, environment);
        say(b"docker-init: cannot run ");
        say_text(*arguments as *const u8);
        say(match worst {
            EACCES => b": permission denied\n",
            ENOENT => b": no such file or directory\n",
            _ => b": it is no program\n",
        });
        exit(if worst == ENOENT { 127 } else { 126 })
    }
}

/// Only returns if there is no program: the error number.
unsafe fn search(arguments: *const usize, environment: *const usize) -> isize {
    unsafe {
        let name = *arguments as *const u8;
        let run = |path: *const u8| {
            call(
                number::EXECVE,
                [path as usize, arguments as usize, environment as usize, 0, 0],
            )
        };
        if contains(name, b'/') {
            return run(name);
        }
        let Some(mut directories) = variable(environment, b"PATH=") else { return ENOENT };
        let mut worst = ENOENT;
        let mut path = [0_u8; 4096];
        loop {
            let mut length = 0;
            while *directories != 0 && *directories != b':' && length < 3000 {
                path[length] = *directories;
                length += 1;
                directories = directories.add(1);
            }
            if length == 0 {
                path[0] = b'.';
                length = 1;
            }
            path[length] = b'/';
            length += 1;
            let mut letter = name;
            while *letter != 0 && length < 4095 {
                path[length] = *letter;
                length += 1;
                letter = letter.add(1);
            }
            path[length] = 0;
            match run(path.as_ptr()) {
                ENOENT | ENOTDIR => {}
                error => worst = error,
            }
            while *directories != 0 && *directories != b':' {
                directories = directories.add(1);
            }
            if *directories == 0 {
                return worst;
            }
            directories = directories.add(1);
        }
    }
}

/// The parent: hands signals on and collects the dead until the program is among them.
unsafe fn watch(child: isize) -> ! {
    let mask = HANDED_ON;
    loop {
        unsafe {
            let signal = call(number::SIGTIMEDWAIT, [address(&mask), 0, 0, 8, 0]);
            if signal == SIGCHLD as isize {
                collect(child);
            } else if signal > 0 {
                call(number::KILL, [child as usize, signal as usize, 0, 0, 0]);
            }
        }
    }
}

unsafe fn collect(child: isize) {
    loop {
        let mut status = 0_i32;
        let pid = unsafe {
            call(number::WAIT4, [usize::MAX, (&raw mut status) as usize, WNOHANG, 0, 0])
        };
        if pid <= 0 {
            return;
        }
        if pid == child {
            let signal = status & 0x7f;
            exit(if signal == 0 { (status >> 8) & 0xff } else { 128 + signal });
        }
    }
}

/// In a container's first process namespace the child of process 1 is whatever the kernel says.
fn own_pid() -> i32 {
    #[cfg(target_arch = "x86_64")]
    const GETPID: usize = 39;
    #[cfg(target_arch = "aarch64")]
    const GETPID: usize = 172;
    #[cfg(target_arch = "arm")]
    const GETPID: usize = 20;
    // SAFETY: it takes and changes nothing.
    unsafe { call(GETPID, [0; 5]) as i32 }
}

fn exit(code: i32) -> ! {
    loop {
        // SAFETY: it does not return.
        unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0]) };
    }
}

fn address<T>(value: &T) -> usize {
    core::ptr::from_ref(value) as usize
}

fn say(text: &[u8]) {
    // SAFETY: the kernel reads the text while the call lasts.
    unsafe { call(number::WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0]) };
}

unsafe fn say_text(text: *const u8) {
    unsafe {
        let mut length = 0;
        while *text.add(length) != 0 {
            length += 1;
        }
        say(core::slice::from_raw_parts(text, length));
    }
}

unsafe fn contains(mut text: *const u8, byte: u8) -> bool {
    unsafe {
        while *text != 0 {
            if *text == byte {
                return true;
            }
            text = text.add(1);
        }
    }
    false
}

/// Whether a text begins so. With a NUL at its end, `wanted` is the whole text.
unsafe fn begins(text: *const u8, wanted: &[u8]) -> bool {
    for (at, byte) in wanted.iter().enumerate() {
        if unsafe { *text.add(at) } != *byte {
            return false;
        }
    }
    true
}

/// What follows `NAME=` in an environment.
unsafe fn variable(mut environment: *const usize, name: &[u8]) -> Option<*const u8> {
    unsafe {
        while *environment != 0 {
            let text = *environment as *const u8;
            if begins(text, name) {
                return Some(text.add(name.len()));
            }
            environment = environment.add(1);
        }
    }
    None
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}

/// What the compiler calls for larger moves.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for at in 0..count {
        unsafe { *to.add(at) = *from.add(at) };
    }
    to
}

/// As above.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for at in 0..count {
        unsafe { *to.add(at) = byte as u8 };
    }
    to
}
