//! Variable expansion and quote removal in a word, as Dockerfiles do it.
//!
//! `$NAME`, `${NAME}`, `:-` `-` `:+` `+` `:?` `?`, `#` `##` `%` `%%` (shell patterns), `/` `//`.
//! Single quotes keep everything; in double quotes the escape character only escapes `"`, `$` and
//! itself; outside quotes it escapes any character.

use crate::MAX_EXPANDED;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote without an end.
    #[error("a {0} quote in `{1}` is never closed")]
    Quote(&'static str, String),
    /// `${` without `}`.
    #[error("`${{` in `{0}` is never closed; expected `}}`")]
    Brace(String),
    /// Something unknown after the name.
    #[error("`{0}` is not a way to expand a variable; expected `:-`, `:+`, `:?`, `#`, `%` or `/`")]
    Modifier(String),
    /// `${}` or `${1abc}`.
    #[error("`{0}` is not a variable name")]
    Name(String),
    /// `${NAME:?message}` and it is not set.
    #[error("{0}: {1}")]
    Missing(String, String),
    /// Grew beyond the limit.
    #[error("the expanded value is longer than {MAX_EXPANDED} bytes; that is the limit")]
    TooLong,
    /// Patterns are tried on short values only.
    #[error("`#`, `%` and `/` work on values of at most {0} bytes; this one is longer")]
    TooLongForPattern(usize),
    /// `${a:-${a:-…}}` deeper than is sensible.
    #[error("variables are nested deeper than {MAX_DEPTH}; that is the limit")]
    TooDeep,
}

/// Longest value that `#` and `%` take, in bytes: matching is quadratic.
const MAX_TRIMMED: usize = 4096;
/// Longest value that `/` takes, in bytes: matching is cubic.
const MAX_REPLACED: usize = 512;

/// How deep `${…${…}}` may nest.
pub const MAX_DEPTH: usize = 32;

/// Where values come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands variables and removes quotes and escapes: one word in, one word out.
pub fn word(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    let mut words = run(text, escape, lookup, true)?;
    Ok(words.pop().unwrap_or_default())
}

/// Expands and splits at whitespace that is outside quotes, that of values included; empty words
/// stay only where they were quoted.
pub fn words(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
    run(text, escape, lookup, false)
}

/// Expands variables only, as in the body of an unquoted heredoc: quotes are ordinary characters.
pub fn heredoc(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    let mut expander = Expander::new(text, escape, lookup, 0);
    let mut out = String::new();
    while let Some(c) = expander.next() {
        if c == escape {
            match expander.peek() {
                Some(n) if n == '$' || n == escape => {
                    expander.next();
                    out.push(n);
                }
                _ => out.push(c),
            }
        } else if c == '$' {
            out.push_str(&expander.variable()?);
        } else {
            out.push(c);
        }
        limit(&out)?;
    }
    Ok(out)
}

fn short(value: Option<String>, limit: usize) -> Result<String, ExpandError> {
    match value.unwrap_or_default() {
        value if value.len() > limit => Err(ExpandError::TooLongForPattern(limit)),
        value => Ok(value),
    }
}

fn limit(text: &str) -> Result<(), ExpandError> {
    if text.len() > MAX_EXPANDED { Err(ExpandError::TooLong) } else { Ok(()) }
}

fn run(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
    whole: bool,
) -> Result<Vec<String>, ExpandError> {
    let mut expander = Expander::new(text, escape, lookup, 0);
    let mut out = Output { words: Vec::new(), current: None, whole };
    while let Some(c) = expander.next() {
        match c {
            '\'' => expander.single(&mut out)?,
            '"' => expander.double(&mut out)?,
            '$' => {
                let value = expander.variable()?;
                out.unquoted(&value);
            }
            c if c == escape => match expander.next() {
                Some(n) => out.quoted(n),
                // An escape character that escapes nothing goes, as with Docker.
                None => out.touch(),
            },
            c => out.unquoted(c.encode_utf8(&mut [0; 4])),
        }
        if let Some(current) = &out.current {
            limit(current)?;
        }
    }
    out.finish_word();
    Ok(out.words)
}

/// Words being built.
struct Output {
    words: Vec<String>,
    current: Option<String>,
    whole: bool,
}

impl Output {
    fn quoted(&mut self, c: char) {
        self.current.get_or_insert_default().push(c);
    }

    fn touch(&mut self) {
        self.current.get_or_insert_default();
    }

    fn unquoted(&mut self, text: &str) {
        if self.whole {
            self.current.get_or_insert_default().push_str(text);
            return;
        }
        for c in text.chars() {
            match c.is_whitespace() {
                true => self.finish_word(),
                false => self.quoted(c),
            }
        }
    }

    fn finish_word(&mut self) {
        self.words.extend(self.current.take());
    }
}

struct Expander<'a> {
    text: &'a str,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
}

impl<'a> Expander<'a> {
    fn new(text: &'a str, escape: char, lookup: Lookup<'a>, depth: usize) -> Self {
        Expander { text, at: 0, escape, lookup, depth }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn single(&mut self, out: &mut Output) -> Result<(), ExpandError> {
        out.touch();
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(());
            }
            out.quoted(c);
        }
        Err(ExpandError::Quote("single", self.text.to_owned()))
    }

    fn double(&mut self, out: &mut Output) -> Result<(), ExpandError> {
        out.touch();
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(()),
                '$' => {
                    for c in self.variable()?.chars() {
                        out.quoted(c);
                    }
                }
                c if c == self.escape => match self.peek() {
                    Some(n) if n == '"' || n == '$' || n == self.escape => {
                        self.next();
                        out.quoted(n);
                    }
                    _ => out.quoted(c),
                },
                c => out.quoted(c),
            }
            limit(out.current.as_deref().unwrap_or(""))?;
        }
        Err(ExpandError::Quote("double", self.text.to_owned()))
    }

    /// Reads what follows a `$`.
    fn variable(&mut self) -> Result<String, ExpandError> {
        match self.peek() {
            Some('{') => {
                self.next();
                self.braced()
            }
            // Letters of any script are letters, as they are for Docker.
            Some(c) if c == '_' || c.is_alphabetic() => {
                let name = self.name();
                Ok((self.lookup)(&name).unwrap_or_default())
            }
            Some(c) if c.is_ascii_digit() || "@*#?-!$".contains(c) => {
                self.next();
                Ok((self.lookup)(c.encode_utf8(&mut [0; 4])).unwrap_or_default())
            }
            _ => Ok("$".to_owned()),
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        let name = self.name();
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        if name.is_empty() || (digits > 0 && digits < name.len()) {
            return Err(ExpandError::Name(self.text[start..].chars().take(20).collect()));
        }
        let value = (self.lookup)(&name);
        let Some(c) = self.next() else { return Err(ExpandError::Brace(self.text.to_owned())) };
        match c {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let kind = self.next();
                let operand = self.operand()?;
                let set = value.filter(|v| !v.is_empty());
                self.default(&name, kind, set, operand)
            }
            '-' | '+' | '?' => {
                let operand = self.operand()?;
                self.default(&name, Some(c), value, operand)
            }
            '#' | '%' => {
                let greedy = self.peek() == Some(c);
                if greedy {
                    self.next();
                }
                let pattern = self.operand()?;
                let value = short(value, MAX_TRIMMED)?;
                Ok(trim(&value, &pattern, c == '#', greedy))
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let operand = self.raw_operand()?;
                let (from, to) = operand.split_once('/').unwrap_or((operand, ""));
                let nested = |t: &str| self.nested(t);
                let (from, to) = (nested(from)?, nested(to)?);
                let value = short(value, MAX_REPLACED)?;
                let out = replace(&value, &from, &to, all);
                limit(&out).map(|()| out)
            }
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    fn default(
        &self,
        name: &str,
        kind: Option<char>,
        set: Option<String>,
        operand: String,
    ) -> Result<String, ExpandError> {
        match kind {
            Some('-') => Ok(set.unwrap_or(operand)),
            Some('+') => Ok(if set.is_some() { operand } else { String::new() }),
            Some('?') => set.ok_or_else(|| {
                let message = if operand.is_empty() { "is not set".to_owned() } else { operand };
                ExpandError::Missing(name.to_owned(), message)
            }),
            other => Err(ExpandError::Modifier(format!(":{}", other.unwrap_or('}')))),
        }
    }

    /// The text up to the closing brace, expanded.
    fn operand(&mut self) -> Result<String, ExpandError> {
        let raw = self.raw_operand()?;
        self.nested(raw)
    }

    fn nested(&self, raw: &str) -> Result<String, ExpandError> {
        if self.depth >= MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let mut inner = Expander::new(raw, self.escape, self.lookup, self.depth + 1);
        let mut out = Output { words: Vec::new(), current: None, whole: true };
        out.touch();
        while let Some(c) = inner.next() {
            match c {
                '\'' => inner.single(&mut out)?,
                '"' => inner.double(&mut out)?,
                '$' => {
                    let value = inner.variable()?;
                    out.unquoted(&value);
                }
                c if c == self.escape => out.quoted(inner.next().unwrap_or(c)),
                c => out.quoted(c),
            }
            limit(out.current.as_deref().unwrap_or(""))?;
        }
        Ok(out.current.unwrap_or_default())
    }

    fn raw_operand(&mut self) -> Result<&'a str, ExpandError> {
        let start = self.at;
        let mut depth = 0usize;
        let mut quote = None;
        while let Some(c) = self.next() {
            match (quote, c) {
                (Some('"') | None, c) if c == self.escape => {
                    self.next();
                }
                (Some(q), c) if c == q => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '$') if self.peek() == Some('{') => {
                    self.next();
                    depth += 1;
                }
                (None, '}') if depth == 0 => return Ok(&self.text[start..self.at - 1]),
                (None, '}') => depth -= 1,
                (None, _) => {}
            }
        }
        Err(ExpandError::Brace(self.text.to_owned()))
    }
}

/// Removes the shortest or longest prefix or suffix that matches a shell pattern.
fn trim(value: &str, pattern: &str, front: bool, greedy: bool) -> String {
    let mut cuts: Vec<usize> = value.char_indices().map(|(i, _)| i).chain([value.len()]).collect();
    if front == greedy {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = value.split_at(cut);
        let (probe, kept) = if front { (head, tail) } else { (tail, head) };
        if glob(pattern, probe) {
            return kept.to_owned();
        }
    }
    value.to_owned()
}

fn replace(value: &str, pattern: &str, to: &str, all: bool) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < value.len() {
        let ends = value[at..].char_indices().map(|(i, c)| at + i + c.len_utf8());
        let hit = ends.rev().find(|end| glob(pattern, &value[at..*end]));
        match hit {
            Some(end) if out.len() <= MAX_EXPANDED => {
                out.push_str(to);
                at = end;
                if !all {
                    break;
                }
            }
            _ => {
                let c = value[at..].chars().next().unwrap_or_default();
                out.push(c);
                at += c.len_utf8().max(1);
            }
        }
    }
    out.push_str(&value[at.min(value.len())..]);
    out
}

/// `*` and `?` only; linear memory, quadratic time at worst.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while j < t.len() {
        if i < p.len() && p[i] == '*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && (p[i] == '?' || p[i] == t[j]) {
            i += 1;
            j += 1;
        } else if let Some((s, m)) = star {
            star = Some((s, m + 1));
            i = s + 1;
            j = m + 1;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == '*')
}
