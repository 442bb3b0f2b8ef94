//! Signals by name and number.

use crate::error::{Error, Result};

const NAMES: [(&str, u8); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first and last real-time signal.
const REALTIME: std::ops::RangeInclusive<u8> = 34..=64;

pub(crate) const KILL: u8 = 9;
pub(crate) const TERM: u8 = 15;

/// Reads `SIGTERM`, `term`, `15`, `RTMIN+3` or `RTMAX-1`; empty is `default`.
pub(crate) fn parse(text: &str, default: u8) -> Result<u8> {
    if text.is_empty() {
        return Ok(default);
    }
    let invalid = || Error::Invalid(format!("Invalid signal: {}", text.escape_debug()));
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let realtime = match name {
        "RTMIN" => Some(*REALTIME.start()),
        "RTMAX" => Some(*REALTIME.end()),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(offset), _) => offset.parse().ok().and_then(|n| REALTIME.start().checked_add(n)),
            (_, Some(offset)) => offset.parse().ok().and_then(|n| REALTIME.end().checked_sub(n)),
            _ => None,
        },
    };
    realtime.filter(|number| REALTIME.contains(number)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_spellings() {
        for text in ["SIGTERM", "term", "15", "Term"] {
            assert_eq!(parse(text, 9).unwrap(), 15);
        }
        assert_eq!(parse("", 9).unwrap(), 9);
        assert_eq!(parse("SIGRTMIN+3", 9).unwrap(), 37);
        assert_eq!(parse("RTMAX-1", 9).unwrap(), 63);
        for bad in ["0", "65", "SIGNOTHING", "RTMIN+40", "-1"] {
            parse(bad, 9).unwrap_err();
        }
    }
}
