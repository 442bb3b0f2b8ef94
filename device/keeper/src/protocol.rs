//! The lines of the protocol.

use serde::{Deserialize, Serialize};

/// The protocol's version, in every line.
pub const VERSION: u32 = 1;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 4096;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Which keeper this is.
    Version,
    /// Changes with every boot, stays over a restart of anything else.
    BootId,
    /// Restarts the host, after the answer.
    Reboot,
    /// Turns the host off, after the answer.
    Shutdown,
    /// The host's name.
    Hostname,
    /// Names the host, also after the next boot.
    SetHostname {
        /// 1 to 63 letters, digits and hyphens.
        name: String,
    },
}

/// One request line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub v: u32,
    #[serde(flatten)]
    pub request: Request,
}

/// What the keeper answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer {
    pub(crate) fn value(value: impl Into<String>) -> Answer {
        Answer { ok: true, value: Some(value.into()), error: None }
    }

    pub(crate) fn done() -> Answer {
        Answer { ok: true, ..Answer::default() }
    }

    pub(crate) fn error(error: impl Into<String>) -> Answer {
        Answer { ok: false, value: None, error: Some(error.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_version_1_stay_as_they_are() {
        for (line, request) in [
            (r#"{"v":1,"do":"version"}"#, Request::Version),
            (r#"{"v":1,"do":"boot-id"}"#, Request::BootId),
            (r#"{"v":1,"do":"reboot"}"#, Request::Reboot),
            (r#"{"v":1,"do":"shutdown"}"#, Request::Shutdown),
            (r#"{"v":1,"do":"hostname"}"#, Request::Hostname),
            (
                r#"{"v":1,"do":"set-hostname","name":"x"}"#,
                Request::SetHostname { name: "x".into() },
            ),
        ] {
            let line_of = Line { v: VERSION, request };
            assert_eq!(serde_json::to_string(&line_of).unwrap(), line);
            assert_eq!(serde_json::from_str::<Line>(line).unwrap(), line_of);
        }
    }
}
