//! Documents whose every byte is checked. Pure.
//!
//! A document has a line before it that says what it is, and the BLAKE3 of the rest: a byte that a medium
//! has spoiled is never taken for what was stored.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How a JSON document begins.
const WHAT: &str = "minke-document 1";

/// The document with its first line.
pub fn seal(what: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{what} {}\n", blake3::hash(body).to_hex());
    [head.as_bytes(), body].concat()
}

/// The body of a sealed document; nothing if a byte of it differs or it is something else.
pub fn unseal<'a>(what: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let (head, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
    let hash = head.strip_prefix(what)?.strip_prefix(' ')?;
    (blake3::hash(body).to_hex().as_str() == hash).then_some(body)
}

/// A sealed JSON document.
pub fn print<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    Ok(seal(WHAT, &serde_json::to_vec(value)?))
}

/// What a JSON document says. Engines before that sealed them wrote the JSON alone.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let body = match bytes.first() {
        Some(b'{') => bytes,
        _ => unseal(WHAT, bytes)
            .ok_or_else(|| io::Error::other("it is damaged: its checksum differs"))?,
    };
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn any_altered_bit_of_a_document_is_an_error_and_plain_json_is_read() {
        let value = BTreeMap::from([("name".to_owned(), "a".repeat(40))]);
        let whole = print(&value).unwrap();
        assert_eq!(parse::<BTreeMap<String, String>>(&whole).unwrap(), value);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let read: io::Result<serde_json::Value> = parse(&bytes);
                assert!(read.is_err(), "byte {at}, bit {bit}");
            }
        }
        let plain = serde_json::to_vec(&value).unwrap();
        assert_eq!(parse::<BTreeMap<String, String>>(&plain).unwrap(), value);
    }
}
