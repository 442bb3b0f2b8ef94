//! A filter program as it is stored: eight bytes of head, then the kernel's instructions.

use super::{MAX_INSTRUCTIONS, SeccompError};

/// First bytes of a stored program; the last is the version of the form.
const MAGIC: [u8; 4] = *b"scf\x01";

/// One instruction of the kernel's classic filter machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// Instructions to leave out when the comparison holds.
    pub(super) yes: u8,
    /// And when it does not.
    pub(super) no: u8,
    pub(super) operand: u32,
}

/// A program that is ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub(super) flags: u32,
    pub(super) instructions: Vec<Instruction>,
}

impl Program {
    /// A program of 1 to 4096 instructions.
    pub(super) fn new(flags: u32, instructions: Vec<Instruction>) -> Result<Program, SeccompError> {
        match instructions.len() {
            1..=MAX_INSTRUCTIONS => Ok(Program { flags, instructions }),
            count => Err(SeccompError::TooLong(count)),
        }
    }

    /// Length, instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Never: there is at least one instruction.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.flags.to_le_bytes());
        for it in &self.instructions {
            bytes.extend(it.code.to_le_bytes());
            bytes.extend([it.yes, it.no]);
            bytes.extend(it.operand.to_le_bytes());
        }
        bytes
    }

    /// Reads the stored form; `None` if it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Program> {
        let (head, rest) = bytes.split_at_checked(8)?;
        let flags = u32::from_le_bytes(head[4..].try_into().ok()?);
        let (instructions, left) = rest.as_chunks::<8>();
        if head[..4] != MAGIC || !left.is_empty() {
            return None;
        }
        let read = |it: &[u8; 8]| Instruction {
            code: u16::from_le_bytes([it[0], it[1]]),
            yes: it[2],
            no: it[3],
            operand: u32::from_le_bytes([it[4], it[5], it[6], it[7]]),
        };
        Program::new(flags, instructions.iter().map(read).collect()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_fixed_and_round_trips() {
        let instructions = vec![Instruction { code: 0x15, yes: 1, no: 2, operand: 0x0403_0201 }];
        let program = Program::new(4, instructions).unwrap();
        let bytes = program.to_bytes();
        assert_eq!(bytes, b"scf\x01\x04\0\0\0\x15\0\x01\x02\x01\x02\x03\x04");
        assert_eq!(Program::from_bytes(&bytes), Some(program));
        assert_eq!(Program::from_bytes(&bytes[..15]), None);
        assert_eq!(Program::from_bytes(&bytes[..8]), None);
        assert_eq!(Program::from_bytes(b"scf\x02\x04\0\0\0\x15\0\x01\x02\x01\x02\x03\x04"), None);
    }
}
