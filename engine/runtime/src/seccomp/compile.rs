//! A policy as one program: a jump by ABI, then for each a search tree over the numbers of its calls.
//!
//! ```text
//!   load the ABI        is it x86_64? no ──► is it x86? no ──► kill the thread
//!                         │ yes                │ yes
//!                       load the number      load the number
//!                         < 232 ?              …
//!                       ┌───┴───┐
//!                    < 101 ?  < 334 ?          leaves: return an action, or check arguments first
//! ```
//! A tree and not a list: ten comparisons instead of four hundred for a call that is refused. (Calls that
//! are always allowed cost nothing since Linux 5.11, which remembers them.)

use std::collections::BTreeMap;

use super::abi::Abi;
use super::profile::{Action, Check, Policy};
use super::program::{Instruction, Program};
use super::{SeccompError, conditions};

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const EQUAL: u16 = 0x15;
pub(super) const GREATER: u16 = 0x25;
pub(super) const GREATER_EQUAL: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// Where the kernel shows the call's number and ABI to a filter, bytes.
const NUMBER_AT: u32 = 0;
const ABI_AT: u32 = 4;
/// Numbers from here on are of x32, an ABI that no kernel we meet has turned on.
const X32: u32 = 0x4000_0000;
const ENOSYS: u16 = 38;

/// What becomes of one call: rules in order, then an action for the rest.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    rules: Vec<(Vec<Check>, Action)>,
    rest: Action,
}

/// What was found of a call so far.
#[derive(Default)]
struct Found {
    rules: Vec<(Vec<Check>, Action)>,
    rest: Option<Action>,
}

/// The program of a policy.
pub(super) fn compile(policy: &Policy) -> Result<Program, SeccompError> {
    let mut out = vec![plain(LOAD, ABI_AT)];
    for abi in &policy.abis {
        let mut body = vec![plain(LOAD, NUMBER_AT)];
        if *abi == Abi::X86_64 {
            body.push(test(GREATER_EQUAL, X32, 0, 1));
            body.push(stop(Action::Errno(ENOSYS)));
        }
        body.extend(tree(&ranges(&leaves(policy, *abi), policy.default)));
        out.push(test(EQUAL, abi.audit(), 1, 0));
        out.push(plain(JUMP, length(&body)?));
        out.extend(body);
    }
    out.push(stop(Action::KillThread));
    Program::new(policy.flags, out)
}

fn length(instructions: &[Instruction]) -> Result<u32, SeccompError> {
    u32::try_from(instructions.len()).map_err(|_| SeccompError::TooLong(instructions.len()))
}

/// What each named call of an ABI comes to. Rules that check arguments are asked in their order; the
/// first rule without checks decides what they leave.
fn leaves(policy: &Policy, abi: Abi) -> BTreeMap<u32, Leaf> {
    let mut leaves: BTreeMap<u32, Found> = BTreeMap::new();
    for rule in &policy.rules {
        // A name that this ABI does not have is no mistake: profiles are written for all of them.
        for number in rule.names.iter().filter_map(|name| abi.number(name)) {
            let found = leaves.entry(number).or_default();
            if rule.checks.is_empty() {
                found.rest.get_or_insert(rule.action);
            } else {
                found.rules.push((rule.checks.clone(), rule.action));
            }
        }
    }
    let whole = |(number, Found { mut rules, rest }): (u32, Found)| {
        let rest = rest.unwrap_or(policy.default);
        // What comes to the same in any case needs no question.
        if rules.iter().all(|(_, action)| *action == rest) {
            rules.clear();
        }
        (number, Leaf { rules, rest })
    };
    leaves.into_iter().map(whole).collect()
}

/// All numbers as ranges: the first number of each and what becomes of its calls.
fn ranges(leaves: &BTreeMap<u32, Leaf>, default: Action) -> Vec<(u32, Leaf)> {
    let other = Leaf { rules: Vec::new(), rest: default };
    let mut ranges: Vec<(u32, Leaf)> = vec![(0, other.clone())];
    let mut add = |start: u32, leaf: &Leaf| {
        let Some(last) = ranges.last_mut() else { return };
        if last.0 == start {
            last.1 = leaf.clone();
        } else if last.1 != *leaf {
            ranges.push((start, leaf.clone()));
        }
    };
    for (number, leaf) in leaves {
        add(*number, leaf);
        add(number + 1, &other);
    }
    // A default that was put behind a number may have been replaced by an equal neighbour.
    ranges.dedup_by(|next, before| next.1 == before.1);
    ranges
}

/// Instructions that decide by the number in the register. Every path ends in a return.
fn tree(ranges: &[(u32, Leaf)]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [(_, leaf)] => {
            let mut out: Vec<Instruction> = Vec::new();
            for (checks, action) in &leaf.rules {
                out.extend(conditions::rule(checks, *action));
            }
            out.push(stop(leaf.rest));
            out
        }
        _ => {
            let (before, behind) = ranges.split_at(ranges.len() / 2);
            let start = behind[0].0;
            let (left, right) = (tree(before), tree(behind));
            let mut out = match u8::try_from(left.len()) {
                Ok(distance) => vec![test(GREATER_EQUAL, start, distance, 0)],
                Err(_) => {
                    vec![test(GREATER_EQUAL, start, 0, 1), plain(JUMP, left.len() as u32)]
                }
            };
            out.extend(left);
            out.extend(right);
            out
        }
    }
}

/// Return an action.
pub(super) fn stop(action: Action) -> Instruction {
    plain(RETURN, code(action))
}

/// The kernel's word for an action.
pub(super) fn code(action: Action) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Trace(number) => 0x7ff0_0000 | u32::from(number),
        Action::Errno(number) => 0x0005_0000 | u32::from(number),
        Action::Trap => 0x0003_0000,
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
    }
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, operand }
}

fn test(code: u16, operand: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code, yes, no, operand }
}

#[cfg(test)]
mod tests;
