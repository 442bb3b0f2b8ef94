//! Device rules on cgroup version 2, which has no files for them: a program that the kernel asks at each
//! use of a device node.
//!
//! The last rule that fits decides, as on version 1; without one, nothing is allowed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fs::{Mode, OFlags};

/// One instruction of the kernel's extended filter machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    operand: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_UNEQUAL: u8 = 0x55;
const JUMP_UNEQUAL_REGISTER: u8 = 0x5d;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

/// Registers: the answer, the question, and what is read from it.
const ANSWER: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const EVERY_ACCESS: i32 = 7;

/// A rule as the program sees it.
struct Rule {
    allow: bool,
    kind: Option<i32>,
    access: i32,
    major: Option<i32>,
    minor: Option<i32>,
}

/// Apply device rules to a cgroup of version 2.
pub(crate) fn apply(cgroup: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let program = load(&compile(&rules.iter().map(read).collect::<Vec<_>>()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(cgroup, flags, Mode::empty())?;
    attach(&directory, &program)
}

fn read(rule: &LinuxDeviceCgroup) -> Rule {
    let bit = |letter: char| match letter {
        'm' => 1,
        'r' => 2,
        'w' => 4,
        _ => 0,
    };
    let number = |number: Option<i64>| number.filter(|n| *n >= 0).map(|n| n as i32);
    Rule {
        allow: rule.allow(),
        kind: match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::B => Some(BLOCK),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
            LinuxDeviceType::P | LinuxDeviceType::A => None,
        },
        access: rule
            .access()
            .as_deref()
            .map_or(EVERY_ACCESS, |text| text.chars().map(bit).fold(0, |all, bit| all | bit)),
        major: number(rule.major()),
        minor: number(rule.minor()),
    }
}

/// Loads the question, then asks the rules from the last to the first.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    // The first word holds the kind in its lower half and the access in its upper.
    let mut out = vec![
        load_word(KIND, 0),
        with(AND, KIND, 0xffff),
        load_word(ACCESS, 0),
        with(SHIFT_RIGHT, ACCESS, 16),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        if let Some(kind) = rule.kind {
            tests.push(with(JUMP_UNEQUAL, KIND, kind));
        }
        if rule.access != EVERY_ACCESS {
            tests.push(Instruction {
                registers: SCRATCH | ACCESS << 4,
                ..with(MOVE_REGISTER, 0, 0)
            });
            tests.push(with(AND, SCRATCH, rule.access));
            tests.push(match rule.allow {
                // All that is asked for is allowed.
                true => Instruction {
                    registers: SCRATCH | ACCESS << 4,
                    ..with(JUMP_UNEQUAL_REGISTER, 0, 0)
                },
                // Something that is asked for is denied.
                false => with(JUMP_EQUAL, SCRATCH, 0),
            });
        }
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            tests.extend(number.map(|number| with(JUMP_UNEQUAL, register, number)));
        }
        let answer = [with(MOVE, ANSWER, i32::from(rule.allow)), with(EXIT, 0, 0)];
        let decides_all = tests.is_empty();
        let length = tests.len() + answer.len();
        for (at, mut test) in tests.into_iter().enumerate() {
            if matches!(test.code, JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER | JUMP_EQUAL) {
                test.offset = (length - at - 1) as i16;
            }
            out.push(test);
        }
        out.extend(answer);
        if decides_all {
            // The kernel takes no program with instructions that are never reached.
            return out;
        }
    }
    out.extend([with(MOVE, ANSWER, 0), with(EXIT, 0, 0)]);
    out
}

fn with(code: u8, register: u8, operand: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, operand }
}

fn load_word(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | SCRATCH << 4, offset, operand: 0 }
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// What an outer manager has attached stays in force too.
const ALLOW_MULTI: u32 = 2;

/// The head of the kernel's `union bpf_attr` for loading.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The head of the kernel's `union bpf_attr` for attaching.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the kernel reads the structure and what it points to while the call lasts.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            std::ptr::from_ref(&attributes),
            size_of::<LoadAttributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

fn attach(cgroup: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: cgroup.as_fd().as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: as above.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            std::ptr::from_ref(&attributes),
            size_of::<AttachAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's machine, as far as these programs use it.
    fn ask(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> i32 {
        let question = [kind | access << 16, major, minor];
        let mut registers = [0_i32; 6];
        let mut at = 0_usize;
        loop {
            let it = program[at];
            at += 1;
            let (to, from) = (usize::from(it.registers & 15), usize::from(it.registers >> 4));
            let mut jump = |holds: bool| {
                if holds {
                    at = at.checked_add_signed(isize::from(it.offset)).unwrap();
                }
            };
            match it.code {
                LOAD_WORD => registers[to] = question[it.offset as usize / 4],
                AND => registers[to] &= it.operand,
                SHIFT_RIGHT => registers[to] >>= it.operand,
                MOVE => registers[to] = it.operand,
                MOVE_REGISTER => registers[to] = registers[from],
                JUMP_UNEQUAL => jump(registers[to] != it.operand),
                JUMP_EQUAL => jump(registers[to] == it.operand),
                JUMP_UNEQUAL_REGISTER => jump(registers[to] != registers[from]),
                EXIT => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn rule(allow: bool, kind: Option<i32>, access: i32, numbers: (i32, i32)) -> Rule {
        let some = |n: i32| (n >= 0).then_some(n);
        Rule { allow, kind, access, major: some(numbers.0), minor: some(numbers.1) }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let program = compile(&[
            rule(false, None, 7, (-1, -1)),
            rule(true, Some(CHARACTER), 7, (1, 3)),
            rule(true, Some(CHARACTER), 7, (136, -1)),
            rule(true, Some(BLOCK), 2, (8, 0)),
            rule(false, Some(CHARACTER), 4, (136, 5)),
        ]);
        assert_eq!(ask(&program, CHARACTER, 6, 1, 3), 1);
        assert_eq!(ask(&program, BLOCK, 2, 1, 3), 0);
        assert_eq!(ask(&program, CHARACTER, 6, 1, 5), 0);
        assert_eq!(ask(&program, CHARACTER, 2, 136, 77), 1);
        assert_eq!(ask(&program, BLOCK, 2, 8, 0), 1);
        assert_eq!(ask(&program, BLOCK, 6, 8, 0), 0, "only reading is allowed");
        assert_eq!(ask(&program, CHARACTER, 2, 136, 5), 1);
        assert_eq!(ask(&program, CHARACTER, 6, 136, 5), 0, "writing is denied");
        assert_eq!(ask(&compile(&[]), CHARACTER, 2, 1, 3), 0);
        assert_eq!(ask(&compile(&[rule(true, None, 7, (-1, -1))]), BLOCK, 7, 9, 9), 1);
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if let Err(error) = load(&[with(MOVE, ANSWER, 1), with(EXIT, 0, 0)]) {
            // Kernels without programs for devices: what they say is that the kind is unknown.
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            return;
        }
        for first in [true, false] {
            load(&compile(&[rule(first, None, 7, (-1, -1))])).unwrap();
            let all = rule(first, None, 7, (-1, -1));
            let some = rule(true, Some(CHARACTER), 6, (1, 3));
            load(&compile(&[all, some, rule(false, None, 4, (5, -1))])).unwrap();
        }
        load(&compile(&[])).unwrap();
    }
}
