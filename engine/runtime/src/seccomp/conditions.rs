//! Checks of arguments as instructions. An argument has 64 bits, the machine's register 32: each check
//! looks at the upper half first.

use super::compile::{AND, EQUAL, GREATER, GREATER_EQUAL, LOAD, stop};
use super::profile::{Action, Check, Comparison};
use super::program::Instruction;

/// Where the first argument is in what the kernel shows to a filter, bytes.
const ARGUMENTS_AT: u32 = 16;

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum Goal {
    /// To the next instruction.
    On,
    /// The check holds.
    Pass,
    /// It does not.
    Fail,
}

struct Line {
    code: u16,
    operand: u32,
    yes: Goal,
    no: Goal,
}

/// Instructions that return `action` if all checks hold, and go on behind themselves if not.
pub(super) fn rule(checks: &[Check], action: Action) -> Vec<Instruction> {
    let blocks: Vec<Vec<Line>> = checks.iter().map(lines).collect();
    let mut left: usize = blocks.iter().map(Vec::len).sum();
    let mut out = Vec::with_capacity(left + 1);
    for block in blocks {
        let mut here = block.len();
        for line in block {
            here -= 1;
            left -= 1;
            // At most six checks of six lines: every distance fits.
            let distance = |goal: Goal| match goal {
                Goal::On => 0,
                Goal::Pass => here as u8,
                Goal::Fail => left as u8 + 1,
            };
            out.push(Instruction {
                code: line.code,
                operand: line.operand,
                yes: distance(line.yes),
                no: distance(line.no),
            });
        }
    }
    out.push(stop(action));
    out
}

fn lines(check: &Check) -> Vec<Line> {
    use Goal::{Fail, On, Pass};
    let at = ARGUMENTS_AT + 8 * check.index;
    // Filters of big-endian processors would have the halves the other way round.
    let (low_at, high_at) = (at, at + 4);
    let (high, low) = ((check.value >> 32) as u32, check.value as u32);
    let load = |at: u32| Line { code: LOAD, operand: at, yes: On, no: On };
    let test = |code: u16, operand: u32, yes: Goal, no: Goal| Line { code, operand, yes, no };
    let ordered = |code: u16, yes: Goal, no: Goal| {
        vec![
            load(high_at),
            test(GREATER, high, yes, On),
            test(EQUAL, high, On, no),
            load(low_at),
            test(code, low, yes, no),
        ]
    };
    match check.comparison {
        Comparison::Equal => vec![
            load(high_at),
            test(EQUAL, high, On, Fail),
            load(low_at),
            test(EQUAL, low, Pass, Fail),
        ],
        Comparison::NotEqual => vec![
            load(high_at),
            test(EQUAL, high, On, Pass),
            load(low_at),
            test(EQUAL, low, Fail, Pass),
        ],
        Comparison::Greater => ordered(GREATER, Pass, Fail),
        Comparison::GreaterEqual => ordered(GREATER_EQUAL, Pass, Fail),
        Comparison::Less => ordered(GREATER_EQUAL, Fail, Pass),
        Comparison::LessEqual => ordered(GREATER, Fail, Pass),
        Comparison::Masked(mask) => vec![
            load(high_at),
            test(AND, (mask >> 32) as u32, On, On),
            test(EQUAL, high, On, Fail),
            load(low_at),
            test(AND, mask as u32, On, On),
            test(EQUAL, low, Pass, Fail),
        ],
    }
}
