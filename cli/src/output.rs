//! How results look: tables and colours for people, JSON for programs.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
    line(&text)
}

/// Prints a value as one line of JSON, for streams.
pub fn json_line(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value).context("cannot write the result as JSON")?)
}

/// Prints a line; a reader that has gone away ends the command quietly.
pub fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("cannot write the result"),
    }
}

/// Prints rows under headings.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings).add_rows(rows);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    line(&trimmed(&table.to_string()))
}

/// Prints names and values below each other; values that are not known are left out.
pub fn fields(rows: &[(&str, Option<String>)]) -> Result<()> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        if let Some(value) = value {
            line(&format!("{}  {value}", paint(Style::Dim, &format!("{name:width$}"))))?;
        }
    }
    Ok(())
}

/// Prints an error with its causes.
pub fn error(error: &anyhow::Error, json: bool) {
    if json {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let value = serde_json::json!({ "error": error.to_string(), "causes": causes });
        eprintln!("{value}");
        return;
    }
    eprintln!("{} {error}", paint_stderr(Style::Bad, "error:"));
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// Asks before something is lost; without a terminal only `--yes` will do.
pub fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} Say --yes to go on without being asked.");
    }
    let agreed = inquire::Confirm::new(question).with_default(false).prompt()?;
    if agreed { Ok(()) } else { bail!("nothing was changed") }
}

/// What a colour says.
#[derive(Clone, Copy)]
pub enum Style {
    /// It is as it should be.
    Good,
    /// It is under way.
    Busy,
    /// It has failed.
    Bad,
    /// Less important.
    Dim,
    /// One of six colours, to tell things apart.
    Tag(usize),
}

/// `text` in colour when standard output is a terminal that may have colours.
pub fn paint(style: Style, text: &str) -> String {
    colour(style, text, std::io::stdout().is_terminal())
}

fn paint_stderr(style: Style, text: &str) -> String {
    colour(style, text, std::io::stderr().is_terminal())
}

fn colour(style: Style, text: &str, terminal: bool) -> String {
    if !terminal || std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty()) {
        return text.to_owned();
    }
    let code = match style {
        Style::Good => "32",
        Style::Busy => "33",
        Style::Bad => "31",
        Style::Dim => "2",
        Style::Tag(number) => ["36", "35", "34", "32", "33", "96"][number % 6],
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Whether colours and bars can be shown to the reader of standard error.
pub fn interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// An ISO time for people, in UTC; text that is no time stays as it is.
pub fn time(iso: &str) -> String {
    match iso.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => iso.to_owned(),
    }
}

/// A number of bytes for people: 1000s, one decimal.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn trimmed(table: &str) -> String {
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(264_000_000), "264.0 MB");
        assert_eq!(bytes(u64::MAX), "18446744.1 TB");
    }

    #[test]
    fn times_are_shown_and_others_kept() {
        assert_eq!(time("2026-11-14T01:41:16.638Z"), "2026-11-14 01:41:16 UTC");
        assert_eq!(time("never"), "never");
    }
}
