//! Semantic versions, as people write them in `balena.yml` and as releases keep them.

use std::fmt;

/// Longest version text, in characters.
pub const MAX_VERSION: usize = 255;

/// A semantic version in its five parts, as release rows keep them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Semver {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
    /// After `-`; empty if there is none.
    pub prerelease: String,
    /// After `+`; empty if there is none.
    pub build: String,
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Over [`MAX_VERSION`].
    #[error("the version has {0} characters; the limit is {MAX_VERSION}")]
    TooLong(usize),
    /// Not `major.minor.patch[-prerelease][+build]`.
    #[error("{0:?} is not a version such as 1.2.3, 1.2.3-rc.1 or 1.2.3+build")]
    Malformed(String),
}

impl Semver {
    /// Reads `major.minor.patch[-prerelease][+build]`.
    pub fn parse(text: &str) -> Result<Semver, VersionError> {
        let length = text.chars().count();
        if length > MAX_VERSION {
            return Err(VersionError::TooLong(length));
        }
        Self::read(text).ok_or_else(|| VersionError::Malformed(text.to_owned()))
    }

    fn read(text: &str) -> Option<Semver> {
        let (rest, build) = match text.split_once('+') {
            Some((rest, build)) => (rest, identifiers(build)?),
            None => (text, ""),
        };
        let (numbers, prerelease) = match rest.split_once('-') {
            Some((numbers, prerelease)) => (numbers, identifiers(prerelease)?),
            None => (rest, ""),
        };
        let mut parts = numbers.split('.').map(number);
        let version = Semver {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
            prerelease: prerelease.to_owned(),
            build: build.to_owned(),
        };
        parts.next().is_none().then_some(version)
    }
}

/// A number without leading zeros that fits the column (a signed 32-bit integer).
fn number(text: &str) -> Option<u32> {
    let is_plain =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|n| is_plain && *n <= i32::MAX as u32)
}

fn identifiers(text: &str) -> Option<&str> {
    text.split('.')
        .all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
        .then_some(text)
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.prerelease.is_empty() {
            write!(f, "-{}", self.prerelease)?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_versions_are_refused() {
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-a..b",
            "-1.2.3",
            "1.2.99999999999",
        ] {
            assert!(Semver::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(matches!(Semver::parse(&"1".repeat(300)), Err(VersionError::TooLong(300))));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(
            major in 0u32..=i32::MAX as u32, minor in 0u32..100, patch in 0u32..100,
            prerelease in "([a-z0-9-]{1,5}(\\.[a-z0-9-]{1,5}){0,2})?",
            build in "([a-z0-9-]{1,5}(\\.[a-z0-9-]{1,5}){0,2})?",
        ) {
            let version = Semver { major, minor, patch, prerelease, build };
            prop_assert_eq!(Semver::parse(&version.to_string()).unwrap(), version);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Semver::parse(&text);
        }
    }
}
