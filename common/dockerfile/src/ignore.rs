//! `.dockerignore`, matched as Docker does: patterns are relative to the context root, the last
//! pattern that matches a path or the directory it is in decides, `!` brings a path back, `**` is any
//! number of directories, and `*` and `?` stay within a name.

use crate::glob::{self, Piece};

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
struct Pattern {
    keep: bool,
    pieces: Vec<Piece>,
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
        match clean(body) {
            Some(clean) => self.patterns.push(Pattern { keep, pieces: glob::path(&clean)? }),
            None if keep && (body.is_empty() || body.starts_with('/')) => {
                return Err("expected something after `!`");
            }
            None => {}
        }
        Ok(())
    }

    /// Whether there is any pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the path (relative, `/` between names) is left out of the context.
    ///
    /// A pattern that a directory matched goes on for what is in it; one that had nothing to decide for
    /// the directory is only asked about the path itself. That is how the docker CLI walks.
    pub fn excludes(&self, path: &str) -> bool {
        let mut clean: Vec<char> = Vec::with_capacity(path.len());
        let mut ends = Vec::new();
        for name in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.extend(name.chars());
            ends.push(clean.len());
        }
        let count = self.patterns.len();
        let mut reached: Vec<Option<Vec<bool>>> = vec![None; count];
        let (mut above, mut excluded) = (vec![false; count], false);
        for end in ends {
            let mut matched = vec![false; count];
            excluded = false;
            for (nth, pattern) in self.patterns.iter().enumerate() {
                matched[nth] = above[nth] || {
                    let asked = pattern.keep == excluded;
                    let reach = |asked: &mut Option<Vec<bool>>| {
                        let reach =
                            asked.get_or_insert_with(|| glob::reach(&pattern.pieces, &clean));
                        reach.get(end) == Some(&true)
                    };
                    asked && reach(&mut reached[nth])
                };
                if matched[nth] {
                    excluded = !pattern.keep;
                }
            }
            above = matched;
        }
        excluded
    }

    /// Whether nothing below an excluded directory can come back, so it need not be entered.
    pub fn prunes(&self, directory: &str) -> bool {
        self.excludes(directory) && !self.patterns.iter().any(|p| p.keep)
    }
}

/// A pattern without `.`, `..` and doubled slashes; `None` for one that names nothing inside.
fn clean(body: &str) -> Option<String> {
    let rooted = body.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in body.split('/') {
        match name {
            "" | "." => {}
            ".." if names.is_empty() && rooted => {}
            // It leads out of the context, where nothing is.
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}
