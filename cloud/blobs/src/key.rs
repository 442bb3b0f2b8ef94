//! The name of an object: a relative path that cannot lead outside the store.

use std::fmt;

const MAX_KEY: usize = 1024;
const MAX_PART: usize = 255;

/// A checked key: parts of `[A-Za-z0-9._-]`, joined by `/`, none beginning with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The whole is too long.
    #[error("a key has at most {MAX_KEY} characters")]
    TooLong,
    /// A part is empty, too long, begins with a dot or has other characters.
    #[error("`{0}` cannot be a part of a key")]
    Part(String),
}

impl Key {
    /// Checks `text`.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if text.len() > MAX_KEY {
            return Err(KeyError::TooLong);
        }
        match text.split('/').find(|part| !is_part(part)) {
            Some(bad) => Err(KeyError::Part(bad.chars().take(MAX_PART).collect())),
            None => Ok(Self(text)),
        }
    }

    /// The key `self/part`.
    pub fn join(&self, part: &str) -> Result<Self, KeyError> {
        Self::new(format!("{}/{part}", self.0))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_part(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !part.is_empty() && part.len() <= MAX_PART && !part.starts_with('.') && part.bytes().all(plain)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_could_lead_outside() {
        for text in ["", "/", "a//b", "../a", "a/..", ".", "a/.b", "a\0b", "a b", "/a", "a/"] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
        assert_eq!(Key::new("a/".repeat(600) + "a"), Err(KeyError::TooLong));
        assert_eq!(Key::new("registry/_tags/v1.0-rc").unwrap().as_str(), "registry/_tags/v1.0-rc");
    }

    proptest! {
        #[test]
        fn an_accepted_key_stays_below_the_root(text in "[a./_\\-\u{e9}]{0,12}") {
            if let Ok(key) = Key::new(text) {
                let path = std::path::Path::new(key.as_str());
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().all(plain));
            }
        }
    }
}
