//! What is going on, on one line that is written over; only where somebody looks.

use std::io::{IsTerminal, Write};

use serde_json::Value;

/// Columns that the line may take on a terminal that does not say how many it has.
const WIDTH: usize = 80;

/// The line.
#[derive(Default)]
pub struct Line {
    is_shown: bool,
}

impl Line {
    /// Shows what a builder says, as `minke push --json` writes it.
    pub fn show(&mut self, event: &Value) {
        let mut out = std::io::stdout();
        if !out.is_terminal() {
            return;
        }
        let text = plain(event["message"].as_str().unwrap_or_default());
        if text.trim().is_empty() {
            return;
        }
        let columns =
            rustix::termios::tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col));
        let columns = if columns == 0 { WIDTH } else { columns };
        let text: String = text.trim().chars().take(columns.saturating_sub(12)).collect();
        // Progress that cannot be shown is no failure.
        let _ = write!(out, "\r\x1b[K          {text}").and_then(|()| out.flush());
        self.is_shown = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let mut out = std::io::stdout();
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Text without colours and other orders to a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            other if other.is_control() => plain.push(' '),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn colours_and_returns_go() {
        assert_eq!(plain("\x1b[36m[api]\x1b[39m Step 1/4\r\n"), "[api] Step 1/4  ");
        assert_eq!(plain("torn \x1b[3"), "torn ");
    }
}
