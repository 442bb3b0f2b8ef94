//! Physical lines to logical lines: directives, comments, continuations, heredoc bodies.
//!
//! A logical line remembers where each piece of it stood, so an error deep in a continued
//! instruction names the line and column that the author sees.

use crate::ast::Heredoc;
use crate::error::ParseError;
use crate::words;

/// One instruction's text, continuations joined.
#[derive(Debug, Clone)]
pub(crate) struct Logical {
    pub text: String,
    /// Byte offset in `text` → line and column there.
    marks: Vec<(usize, usize, usize)>,
    pub end_line: usize,
    pub heredocs: Vec<Heredoc>,
}

impl Logical {
    /// Line and column of a byte offset.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let i = self.marks.partition_point(|m| m.0 <= offset).saturating_sub(1);
        let (start, line, column) = self.marks[i];
        let end = offset.min(self.text.len());
        let chars = self.text.get(start..end).map_or(0, |s| s.chars().count());
        (line, column + chars)
    }

    pub fn error(&self, offset: usize, message: impl Into<String>) -> ParseError {
        let (line, column) = self.position(offset);
        ParseError::new(line, column, message)
    }
}

/// The lines of a file, read one logical line at a time.
pub(crate) struct Reader<'a> {
    lines: Vec<&'a str>,
    next: usize,
    pub escape: char,
}

impl<'a> Reader<'a> {
    /// Reads the parser directives at the top.
    pub fn new(text: &'a str) -> Result<Self, ParseError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.split('\n').map(|l| l.trim_end_matches('\r')).collect();
        let mut reader = Reader { lines, next: 0, escape: '\\' };
        reader.directives()?;
        Ok(reader)
    }

    /// Directives are comments of the form `# key=value` before anything else in the file.
    fn directives(&mut self) -> Result<(), ParseError> {
        let mut seen: Vec<String> = Vec::new();
        for (i, line) in self.lines.iter().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix('#') else { break };
            let Some((key, value)) = comment.split_once('=') else { break };
            let key = key.trim().to_ascii_lowercase();
            if !["escape", "syntax", "check"].contains(&key.as_str()) {
                break;
            }
            if seen.contains(&key) {
                let message = format!("the directive `{key}` is given twice; expected it once");
                return Err(ParseError::new(i + 1, 1, message));
            }
            if key == "escape" {
                self.escape = match value.trim() {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let column = line.chars().count() - value.trim_start().chars().count() + 1;
                        let message = format!(
                            "the escape character is `{other}`; expected `\\` or a backtick"
                        );
                        return Err(ParseError::new(i + 1, column, message));
                    }
                };
            }
            seen.push(key);
        }
        Ok(())
    }

    /// The next instruction, or `None` at the end of the file.
    pub fn next_logical(&mut self) -> Result<Option<Logical>, ParseError> {
        while let Some(line) = self.lines.get(self.next) {
            let trimmed = line.trim_start();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                return self.joined().map(Some);
            }
            self.next += 1;
        }
        Ok(None)
    }

    fn joined(&mut self) -> Result<Logical, ParseError> {
        let mut logical =
            Logical { text: String::new(), marks: Vec::new(), end_line: 0, heredocs: Vec::new() };
        let mut first = true;
        while let Some(&line) = self.lines.get(self.next) {
            let number = self.next + 1;
            let skip = line.trim_start();
            if !first && (skip.is_empty() || skip.starts_with('#')) {
                self.next += 1;
                continue;
            }
            self.next += 1;
            logical.end_line = number;
            let body = if first { skip } else { line };
            let column = line[..line.len() - body.len()].chars().count() + 1;
            logical.marks.push((logical.text.len(), number, column));
            first = false;
            match self.continued(body) {
                Some(kept) => logical.text.push_str(kept),
                None => {
                    logical.text.push_str(body.trim_end());
                    break;
                }
            }
        }
        let mut kept = logical.text.trim_end();
        while let Some(shorter) = self.continued(kept) {
            kept = shorter.trim_end();
        }
        let kept = kept.len();
        logical.text.truncate(kept);
        self.heredocs(&mut logical)?;
        Ok(logical)
    }

    /// The part before a trailing escape character, if the line is continued; an escaped escape
    /// character does not continue.
    fn continued<'l>(&self, line: &'l str) -> Option<&'l str> {
        let kept = line.trim_end_matches([' ', '\t']).strip_suffix(self.escape)?;
        (!kept.ends_with(self.escape)).then_some(kept)
    }

    fn heredocs(&mut self, logical: &mut Logical) -> Result<(), ParseError> {
        let mut rest = logical.text.as_str();
        let mut base = 0;
        loop {
            let keyword = rest.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
            match keyword.as_str() {
                "RUN" | "COPY" | "ADD" => break,
                "ONBUILD" => {
                    let after = rest[keyword.len()..].trim_start();
                    base += rest.len() - after.len();
                    rest = after;
                }
                _ => return Ok(()),
            }
        }
        let mut found = Vec::new();
        for (offset, word) in words::split(rest, self.escape) {
            if let Some(mark) = heredoc_mark(word) {
                let at = logical.position(base + offset);
                found.push(self.body(mark, at)?);
            }
        }
        if !found.is_empty() {
            logical.end_line = self.next;
        }
        logical.heredocs = found;
        Ok(())
    }

    fn body(&mut self, mut mark: Heredoc, at: (usize, usize)) -> Result<Heredoc, ParseError> {
        while let Some(line) = self.lines.get(self.next) {
            self.next += 1;
            let probe = if mark.strip_tabs { line.trim_start_matches('\t') } else { line };
            if probe == mark.name {
                return Ok(mark);
            }
            mark.body.push_str(line);
            mark.body.push('\n');
        }
        let message = format!("the heredoc never ends; expected a line `{}`", mark.name);
        Err(ParseError::new(at.0, at.1, message))
    }
}

/// Reads `<<EOF`, `<<-EOF`, `<<"EOF"` or `3<<EOF`.
pub(crate) fn heredoc_mark(word: &str) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (descriptor, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let name: String = rest.chars().filter(|c| *c != '"' && *c != '\'').collect();
    let plain = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    if name.is_empty() || !plain {
        return None;
    }
    Some(Heredoc {
        expand: name.len() == rest.len(),
        name,
        strip_tabs,
        descriptor: descriptor.to_owned(),
        body: String::new(),
    })
}
