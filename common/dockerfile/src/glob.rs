//! Patterns of `.dockerignore` and of `COPY`, and how they match: in time that grows with pattern times
//! text, never faster.
//!
//! Both have `*`, `?` and `[…]` (`^` negates). `**` of `.dockerignore` works on whole paths, with Docker's
//! corners: `a**b` is `a`, then any directories, then `b`; at the end it is anything at all; at the
//! beginning of an otherwise plain pattern it is anything too.

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// This character.
    Char(char),
    /// `?`: one character other than `/`.
    Any,
    /// `*`: any number of them.
    Star,
    /// `**` in the middle: nothing, or anything that ends with `/`.
    Directories,
    /// `**` at the end: anything.
    Rest,
    /// `[…]`: negated or not, and ranges.
    Class(bool, Vec<(char, char)>),
}

/// A pattern for one name, as `COPY` has it between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pieces: Vec<Piece>,
}

impl Glob {
    /// Reads a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Glob, &'static str> {
        Ok(Glob { pieces: pieces(text, false)? })
    }

    /// Whether it matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        let text: Vec<char> = name.chars().collect();
        reach(&self.pieces, &text).last() == Some(&true)
    }

    /// Whether a text holds anything that is special in a pattern.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '['])
    }
}

/// Reads a pattern for whole paths.
pub(crate) fn path(text: &str) -> Result<Vec<Piece>, &'static str> {
    pieces(text, true)
}

fn pieces(text: &str, deep: bool) -> Result<Vec<Piece>, &'static str> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    let plain_end = |text: &str| !text.contains(['*', '?', '[', ']', '\\', '/']);
    while let Some(c) = chars.next() {
        out.push(match c {
            '*' if deep && chars.peek() == Some(&'*') => {
                chars.next();
                let first = out.is_empty();
                match chars.next_if_eq(&'/').is_some() {
                    _ if chars.peek().is_none() => Piece::Rest,
                    false if first && plain_end(&text[2..]) => Piece::Rest,
                    _ => Piece::Directories,
                }
            }
            '*' => Piece::Star,
            '?' => Piece::Any,
            '\\' => Piece::Char(chars.next().ok_or("a trailing `\\`")?),
            '[' => class(&mut chars)?,
            c => Piece::Char(c),
        });
    }
    Ok(out)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Piece, &'static str> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Piece::Class(negated, ranges));
        }
        let low = member(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => member(chars)?,
            None => low,
        };
        if high < low {
            return Err("a range in `[…]` that is upside down");
        }
        ranges.push((low, high));
    }
}

fn member(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    const OPEN: &str = "a `[` that is never closed";
    match chars.next().ok_or(OPEN)? {
        '\\' => chars.next().ok_or(OPEN),
        '-' | ']' => Err("a `-` or `]` in `[…]` that needs a `\\` in front"),
        c => Ok(c),
    }
}

/// Which lengths of the text's beginning the whole pattern matches; empty when none.
pub(crate) fn reach(pieces: &[Piece], text: &[char]) -> Vec<bool> {
    let mut now = vec![false; text.len() + 1];
    now[0] = true;
    let mut next = vec![false; text.len() + 1];
    for piece in pieces {
        next.fill(false);
        let mut any = false;
        let mut open = false;
        for at in 0..now.len() {
            let before = at.checked_sub(1).map(|last| text[last]);
            let reached = match (piece, before) {
                (Piece::Rest, _) => {
                    open |= now[at];
                    open
                }
                (Piece::Star, before) => {
                    open = now[at] || (open && before != Some('/'));
                    open
                }
                (Piece::Directories, before) => {
                    let crossed = open && before == Some('/');
                    open |= now[at];
                    now[at] || crossed
                }
                (_, None) => false,
                (Piece::Char(c), Some(before)) => now[at - 1] && before == *c,
                (Piece::Any, Some(before)) => now[at - 1] && before != '/',
                (Piece::Class(negated, ranges), Some(before)) => {
                    let inside = |(low, high): &(char, char)| (*low..=*high).contains(&before);
                    now[at - 1] && ranges.iter().any(inside) != *negated
                }
            };
            next[at] = reached;
            any |= reached;
        }
        if !any {
            return Vec::new();
        }
        std::mem::swap(&mut now, &mut next);
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_matches(pattern: &str, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let reach = reach(&path(pattern).unwrap(), &text);
        (1..reach.len()).any(|end| reach[end] && (end == text.len() || text[end] == '/'))
    }

    #[test]
    fn paths_match_with_dockers_corners() {
        for (pattern, text, expected) in [
            ("a", "a/b/c", true),
            ("a", "ab", false),
            ("*/b", "a/b", true),
            ("*", "a/b", true),
            ("a/*", "a", false),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("**/b", "b", true),
            ("**/b", "a/x/b", true),
            ("**/b", "ab", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a**b", "axb", false),
            ("a**b", "ax/b", true),
            ("foo**", "foobar/x", true),
            ("**foo", "barfoo", true),
            ("**fo?", "barfoo", false),
            ("**", "x", true),
            ("[!a]", "b", false),
            ("[!a]", "!", true),
            ("[^a-c]x", "dx", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a]", "a]", true),
        ] {
            assert_eq!(path_matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn names_match_whole() {
        let matches = |pattern, text| Glob::parse(pattern).unwrap().matches(text);
        assert!(matches("*.t?t", "a.txt") && !matches("*.t?t", "a.txt2"));
        assert!(matches("**", "x") && matches("[a-c][^a]", "bb") && !matches("[a-c][^a]", "ba"));
        assert!(matches("", "") && !matches("", "x"));
        for bad in ["[", "[]", "[]a]", "[a-]", "[b-a]", "a\\", "[-a]"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }
}
