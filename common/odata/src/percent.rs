//! Percent-encoding of request texts.

use std::fmt::{self, Write};

use crate::error::{ParseError, Problem};

/// Decodes `%XX`, and `+` as a space where `plus` says so.
pub(crate) fn decode(part: &str, text: &str, plus: bool) -> Result<String, ParseError> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'%' => {
                let pair = [bytes.next(), bytes.next()].map(|b| b.and_then(|(_, b)| digit(b)));
                let [Some(high), Some(low)] = pair else {
                    return Err(fault(part, text, at, "two hexadecimal digits after `%`"));
                };
                out.push(high << 4 | low);
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        ParseError::new(part, at, Problem::Expected("UTF-8 text"))
    })
}

fn fault(part: &str, text: &str, at: usize, what: &'static str) -> ParseError {
    let position = text.get(..at).map_or(at, |before| before.chars().count());
    ParseError::new(part, position, Problem::Expected(what))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// Splits a raw query string at each `&` that stands outside parentheses and quotes of an option. Encoded
/// quotes and parentheses count like plain ones; an encoded `&` never separates.
pub(crate) fn split(query: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quoted) = (0, 0_usize, false);
    let bytes = query.as_bytes();
    let mut at = 0;
    // Only our own options have a grammar; in others a lone quote is an ordinary character.
    let ours = |at: usize| {
        let rest = query.get(at..).unwrap_or_default();
        ["$", "@", "%24", "%40"].iter().any(|mark| rest.starts_with(mark))
    };
    let mut grammar = ours(0);
    while let Some(&byte) = bytes.get(at) {
        let (symbol, width) = match (byte, bytes.get(at + 1), bytes.get(at + 2)) {
            (b'%', Some(b'2'), Some(b'7')) => (b'\'', 3),
            (b'%', Some(b'2'), Some(b'8')) => (b'(', 3),
            (b'%', Some(b'2'), Some(b'9')) => (b')', 3),
            (byte, ..) => (byte, 1),
        };
        match symbol {
            b'\'' if grammar => quoted = !quoted,
            b'(' if grammar && !quoted => depth += 1,
            b')' if grammar && !quoted => depth = depth.saturating_sub(1),
            b'&' if !quoted && depth == 0 => {
                parts.push(&query[start..at]);
                start = at + 1;
                grammar = ours(start);
            }
            _ => {}
        }
        at += width;
    }
    parts.push(&query[start..]);
    parts
}

/// Writes `text` so that [`decode`] gives it back and [`split`] does not cut it.
pub(crate) fn encode(text: &str, out: &mut impl Write) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.write_char(char::from(byte))?,
            b'-' | b'_' | b'.' | b'~' | b'$' | b'(' | b')' | b',' | b'\'' | b'=' | b':' | b';'
            | b'/' | b'@' | b'*' | b'!' => out.write_char(char::from(byte))?,
            _ => write!(out, "%{byte:02X}")?,
        }
    }
    Ok(())
}

/// Writes the name of an option so that its first `=` does not end it.
pub(crate) fn encode_name(name: &str, out: &mut impl Write) -> fmt::Result {
    for (at, piece) in name.split('=').enumerate() {
        out.write_str(if at == 0 { "" } else { "%3D" })?;
        encode(piece, out)?;
    }
    Ok(())
}
