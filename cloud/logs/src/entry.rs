//! One line of a device's log, as it is stored and as it is answered.

use serde::{Deserialize, Serialize};

/// Longest message kept, in bytes; the rest is cut off.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// One line of a device's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// What was logged.
    pub message: String,
    /// When the server took it in, in milliseconds since the epoch.
    pub created_at: i64,
    /// When it was logged by the device's clock, in milliseconds since the epoch.
    pub timestamp: i64,
    /// Said by the supervisor, not by a service.
    pub is_system: bool,
    /// Written to the error stream.
    pub is_std_err: bool,
    /// The service that said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<i64>,
}

impl Entry {
    /// Cuts the message to [`MAX_MESSAGE`].
    pub(crate) fn bounded(mut self) -> Entry {
        if self.message.len() > MAX_MESSAGE {
            let mut end = MAX_MESSAGE;
            while !self.message.is_char_boundary(end) {
                end -= 1;
            }
            self.message.truncate(end);
            self.message.push_str("[...]");
        }
        self
    }

    pub(crate) fn to_line(&self) -> String {
        let text = serde_json::to_string(self).expect("texts, numbers and Booleans");
        format!("{:08x} {text}\n", checksum(text.as_bytes()))
    }

    /// Reads a line without its line break; `None` if it was not written whole.
    pub(crate) fn from_line(line: &[u8]) -> Option<Entry> {
        let (sum, rest) = line.split_at_checked(8)?;
        let text = rest.strip_prefix(b" ")?;
        let sum = u32::from_str_radix(str::from_utf8(sum).ok()?, 16).ok()?;
        (sum == checksum(text)).then(|| serde_json::from_slice(text).ok())?
    }
}

/// FNV-1a: enough to tell a torn line from a whole one.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let entry = Entry {
            message: "ä".repeat(MAX_MESSAGE),
            created_at: 0,
            timestamp: 0,
            is_system: false,
            is_std_err: false,
            service_id: None,
        };
        let cut = entry.bounded().message;
        assert!(cut.len() <= MAX_MESSAGE + 5 && cut.ends_with("[...]"));
    }

    #[test]
    fn an_answer_is_written_as_clients_read_it() {
        let entry = Entry {
            message: "hi".to_owned(),
            created_at: 2,
            timestamp: 1,
            is_system: true,
            is_std_err: false,
            service_id: Some(7),
        };
        assert_eq!(
            serde_json::to_string(&entry).unwrap(),
            r#"{"message":"hi","createdAt":2,"timestamp":1,"isSystem":true,"isStdErr":false,"serviceId":7}"#
        );
    }
}
