//! `D/exit`: how a container ended, for whoever asks later. One line, written once, fsynced.
//!
//! Golden form: `v1 code=137 signal=9 oom=0 started=17… finished=17… error=<rest of the line>`, the
//! times in nanoseconds since the epoch; `error` only if the container could not be started.

use crate::protocol::Exit;

/// Content of the exit file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitRecord {
    /// Code, signal, time.
    pub exit: Exit,
    /// Nanoseconds since the epoch; 0 if it never ran.
    pub started_at: u64,
    /// Why it could not be started; line feeds are printed as spaces.
    pub error: Option<String>,
}

impl ExitRecord {
    /// The file's text.
    pub fn print(&self) -> String {
        let Exit { code, signal, oom, finished_at } = self.exit;
        let (oom, started) = (u8::from(oom), self.started_at);
        let mut line = format!(
            "v1 code={code} signal={signal} oom={oom} started={started} finished={finished_at}"
        );
        if let Some(error) = &self.error {
            line.push_str(" error=");
            line.extend(error.chars().map(|c| if c == '\n' { ' ' } else { c }));
        }
        line.push('\n');
        line
    }

    /// Read the file's text; `None` if it is not a whole record.
    pub fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n')?.strip_prefix("v1 ")?;
        let (fields, error) = match line.split_once(" error=") {
            Some((fields, error)) => (fields, Some(error.to_owned())),
            None => (line, None),
        };
        let mut record = Self { error, ..Self::default() };
        for field in fields.split(' ') {
            let (key, value) = field.split_once('=')?;
            match key {
                "code" => record.exit.code = value.parse().ok()?,
                "signal" => record.exit.signal = value.parse().ok()?,
                "oom" => record.exit.oom = value == "1",
                "started" => record.started_at = value.parse().ok()?,
                "finished" => record.exit.finished_at = value.parse().ok()?,
                _ => {}
            }
        }
        Some(record)
    }
}
