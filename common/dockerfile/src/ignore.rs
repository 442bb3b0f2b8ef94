//! `.dockerignore`, matched as Docker does: patterns are relative to the context root, the last
//! pattern that matches a path or one of its parents decides, `!` brings a path back, `**` is any
//! number of directories, and `*`, `?` and `[…]` stay within a name.

/// Most patterns in a file.
pub const MAX_PATTERNS: usize = 1024;
/// Longest file, in bytes.
pub const MAX_IGNORE_BYTES: usize = 256 << 10;

/// A `.dockerignore` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// Over a limit.
    #[error(
        ".dockerignore is over its limit of {MAX_PATTERNS} patterns or {MAX_IGNORE_BYTES} bytes"
    )]
    TooLarge,
    /// A pattern that is none.
    #[error(".dockerignore line {line}: `{pattern}` is no pattern: {why}")]
    Pattern {
        /// Line, from 1.
        line: usize,
        /// As written.
        pattern: String,
        /// What is wrong.
        why: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Char(char),
    Any,
    Star,
    Class(bool, Vec<(char, char)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// `**`
    Deep,
    Name(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    keep: bool,
    segments: Vec<Segment>,
}

/// The patterns of a `.dockerignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

impl Ignore {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Ignore, IgnoreError> {
        if text.len() > MAX_IGNORE_BYTES {
            return Err(IgnoreError::TooLarge);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ignore = Ignore::default();
        for (i, raw) in text.lines().enumerate() {
            if raw.starts_with('#') {
                continue;
            }
            ignore.add(raw.trim()).map_err(|why| IgnoreError::Pattern {
                line: i + 1,
                pattern: raw.to_owned(),
                why,
            })?;
            if ignore.patterns.len() > MAX_PATTERNS {
                return Err(IgnoreError::TooLarge);
            }
        }
        Ok(ignore)
    }

    fn add(&mut self, line: &str) -> Result<(), &'static str> {
        if line.is_empty() {
            return Ok(());
        }
        let (keep, body) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if keep && body.is_empty() {
            return Err("expected something after `!`");
        }
        let mut segments: Vec<Segment> = Vec::new();
        for part in body.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                "**" => {
                    if segments.last() != Some(&Segment::Deep) {
                        segments.push(Segment::Deep);
                    }
                }
                name => segments.push(Segment::Name(pieces(name)?)),
            }
        }
        if !segments.is_empty() {
            self.patterns.push(Pattern { keep, segments });
        }
        Ok(())
    }

    /// Whether there is any pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the path (relative, `/` between names) is left out of the context.
    pub fn excludes(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let mut excluded = false;
        for pattern in &self.patterns {
            if pattern.keep == excluded
                && (1..=names.len()).any(|n| matches(&pattern.segments, &names[..n]))
            {
                excluded = !pattern.keep;
            }
        }
        excluded
    }

    /// Whether nothing below an excluded directory can come back, so it need not be entered.
    pub fn prunes(&self, directory: &str) -> bool {
        self.excludes(directory) && !self.patterns.iter().any(|p| p.keep)
    }
}

fn pieces(name: &str) -> Result<Vec<Piece>, &'static str> {
    let mut out = Vec::new();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '*' => {
                while chars.peek() == Some(&'*') {
                    chars.next();
                }
                Piece::Star
            }
            '?' => Piece::Any,
            '\\' => Piece::Char(chars.next().ok_or("a trailing `\\`")?),
            '[' => class(&mut chars)?,
            c => Piece::Char(c),
        });
    }
    Ok(out)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Piece, &'static str> {
    const OPEN: &str = "a `[` that is never closed";
    let negated = chars.next_if(|c| *c == '^' || *c == '!').is_some();
    let mut ranges = Vec::new();
    loop {
        let mut low = chars.next().ok_or(OPEN)?;
        if low == ']' && !ranges.is_empty() {
            return Ok(Piece::Class(negated, ranges));
        }
        if low == '\\' {
            low = chars.next().ok_or(OPEN)?;
        }
        let mut high = low;
        if chars.peek() == Some(&'-') {
            chars.next();
            high = chars.next().ok_or(OPEN)?;
            if high == ']' {
                ranges.push((low, low));
                ranges.push(('-', '-'));
                return Ok(Piece::Class(negated, ranges));
            }
        }
        ranges.push((low, high));
    }
}

/// Dynamic programming over (segment, name): no pattern is slow.
fn matches(segments: &[Segment], names: &[&str]) -> bool {
    let mut reach = vec![false; names.len() + 1];
    reach[0] = true;
    for (nth, segment) in segments.iter().enumerate() {
        let mut next = vec![false; names.len() + 1];
        match segment {
            // `a/**` is what is below `a`, not `a` itself.
            Segment::Deep if nth + 1 == segments.len() => {
                let first = reach.iter().position(|r| *r).unwrap_or(names.len());
                next[first + 1..].fill(true);
            }
            Segment::Deep => {
                let mut open = false;
                for i in 0..=names.len() {
                    open |= reach[i];
                    next[i] = open;
                }
            }
            Segment::Name(pieces) => {
                for (i, name) in names.iter().enumerate() {
                    next[i + 1] = reach[i] && matches_name(pieces, name);
                }
            }
        }
        reach = next;
    }
    reach[names.len()]
}

fn matches_name(pieces: &[Piece], name: &str) -> bool {
    let text: Vec<char> = name.chars().collect();
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while j < text.len() {
        let here = pieces.get(i).is_some_and(|p| match p {
            Piece::Char(c) => *c == text[j],
            Piece::Any => true,
            Piece::Star => false,
            Piece::Class(negated, ranges) => {
                ranges.iter().any(|(l, h)| *l <= text[j] && text[j] <= *h) != *negated
            }
        });
        if here {
            i += 1;
            j += 1;
        } else if pieces.get(i) == Some(&Piece::Star) {
            star = Some((i, j));
            i += 1;
        } else if let Some((s, m)) = star {
            star = Some((s, m + 1));
            i = s + 1;
            j = m + 1;
        } else {
            return false;
        }
    }
    pieces[i..].iter().all(|p| *p == Piece::Star)
}
