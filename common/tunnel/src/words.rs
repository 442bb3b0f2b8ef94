//! The first line of a stream, and the line that answers it.

use serde::{Deserialize, Serialize};

use crate::MAX_LINE;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StreamHeader {
    /// Bytes to and from a TCP port of the device.
    Tcp {
        /// The port; 48484 is the supervisor wherever it listens.
        port: u16,
    },
    /// The target state changed: look at it now.
    Look,
}

/// What the device says to a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the stream goes on.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// A line is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not the JSON that is expected.
    #[error("the line is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Port 0 names nothing.
    #[error("port 0 cannot be connected to")]
    PortZero,
}

impl StreamHeader {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, HeaderError> {
        match serde_json::from_slice(line)? {
            Self::Tcp { port: 0 } => Err(HeaderError::PortZero),
            header => Ok(header),
        }
    }

    /// The line, without its line feed.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("numbers and fixed words are JSON")
    }
}

impl Answer {
    /// The stream goes on.
    pub fn accept() -> Self {
        Self { ok: true, error: None }
    }

    /// The stream ends; `error` is shortened until it fits a line.
    pub fn refuse(error: impl Into<String>) -> Self {
        // A character takes at most six bytes in JSON.
        let error = error.into().chars().take(MAX_LINE / 8).collect();
        Self { ok: false, error: Some(error) }
    }

    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, HeaderError> {
        Ok(serde_json::from_slice(line)?)
    }

    /// The line, without its line feed.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("text and a truth value are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_agreed() {
        assert_eq!(StreamHeader::Tcp { port: 48484 }.to_line(), r#"{"kind":"tcp","port":48484}"#);
        assert_eq!(StreamHeader::Look.to_line(), r#"{"kind":"look"}"#);
        assert_eq!(Answer::accept().to_line(), r#"{"ok":true}"#);
        assert_eq!(Answer::refuse("no").to_line(), r#"{"ok":false,"error":"no"}"#);
        for header in [StreamHeader::Tcp { port: 1 }, StreamHeader::Look] {
            assert_eq!(StreamHeader::parse(header.to_line().as_bytes()).unwrap(), header);
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"kind":"udp","port":1}"#,
            r#"{"kind":"tcp"}"#,
            r#"{"kind":"tcp","port":0}"#,
            r#"{"kind":"tcp","port":65536}"#,
            "\u{0}",
            r#"{"kind":"tcp","port":"22"}"#,
            r#"{"kind":"tcp","port":-1}"#,
        ] {
            assert!(StreamHeader::parse(line.as_bytes()).is_err(), "{line}");
        }
        let deep = "[".repeat(4000);
        assert!(StreamHeader::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_refusal_always_fits_a_line() {
        let line = Answer::refuse("\u{1}".repeat(10_000)).to_line();
        assert!(line.len() < MAX_LINE, "{}", line.len());
    }
}
