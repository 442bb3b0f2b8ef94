//! The keys that detach a terminal from its container. Pure.

use crate::error::{Error, Result};

/// A sequence of keys, and how far a client has typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `a,ctrl-x`, …; empty is the former.
    pub(crate) fn parse(text: &str) -> Result<DetachKeys> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let key = |word: &str| -> Option<u8> {
            match word.strip_prefix("ctrl-") {
                None => word.bytes().next().filter(|_| word.len() == 1),
                Some(key) => match key.as_bytes() {
                    [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                    [b'@'] => Some(0),
                    [symbol @ b'['..=b'_'] => Some(symbol - b'@'),
                    _ => None,
                },
            }
        };
        let sequence: Option<Vec<u8>> = text.split(',').take(32).map(key).collect();
        let invalid = || Error::Invalid(format!("Invalid detach keys ({text}) provided"));
        Ok(DetachKeys { sequence: sequence.ok_or_else(invalid)?, typed: 0 })
    }

    /// Takes typed bytes: what goes on to the container, and whether the sequence is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut onward = Vec::with_capacity(bytes.len() + self.typed);
        for byte in bytes {
            if *byte == self.sequence[self.typed] {
                self.typed += 1;
                if self.typed == self.sequence.len() {
                    return (onward, true);
                }
                continue;
            }
            // What was held back was no sequence after all; this byte may begin one.
            onward.extend_from_slice(&self.sequence[..self.typed]);
            self.typed = 0;
            if *byte == self.sequence[0] && self.sequence.len() > 1 {
                self.typed = 1;
            } else {
                onward.push(*byte);
            }
        }
        (onward, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_held_back_and_everything_else_goes_on() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11more"), (Vec::new(), true));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        assert_eq!(DetachKeys::parse("a,ctrl-[").unwrap().sequence, [b'a', 27]);
        for bad in ["ctrl-", "ab", "ctrl-1", "a,,b"] {
            DetachKeys::parse(bad).unwrap_err();
        }
    }
}
