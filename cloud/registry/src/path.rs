//! What a path below `/v2/` means. Repository names contain slashes, so a path is read from
//! its end: the words `manifests`, `blobs`, `tags`, `referrers` stand at fixed places there.

use std::fmt;
use std::str::FromStr;

use minke_cloud_blobs::{Digest, DigestError, StageId};

use crate::error::RegistryError;

const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A repository name: lower-case parts joined by `/`, as the specification's grammar says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// A tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// The text cannot name a repository or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error("`{0}` is not a repository name (lower-case words joined by `/`, at most {MAX_NAME})")]
    Repository(String),
    /// Not a tag.
    #[error("`{0}` is not a tag (letters, digits, `._-`, at most {MAX_TAG})")]
    Tag(String),
}

impl Repository {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() <= MAX_NAME && text.split('/').all(is_name_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Repository(text.chars().take(MAX_NAME).collect()))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_name_part(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_in_words = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_in_words
        && separators.filter(|separator| !separator.is_empty()).all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = !text.starts_with(['.', '-']) && !text.is_empty();
        if starts_well && text.len() <= MAX_TAG && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Tag(text.chars().take(MAX_TAG).collect()))
        }
    }
}

/// How a manifest is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(Tag),
    Digest(Digest),
}

/// A path of the distribution API.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog,
    Tags(Repository),
    Referrers(Repository, Digest),
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    Uploads(Repository),
    Upload(Repository, StageId),
}

impl Route {
    pub(crate) fn parse(path: &str) -> Result<Self, RegistryError> {
        let unescaped = path.replace("%3A", ":").replace("%3a", ":");
        let path = unescaped.strip_prefix("/v2").unwrap_or(&unescaped);
        let path = path.strip_prefix('/').unwrap_or(path);
        match path {
            "" => return Ok(Self::Base),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse()?));
        }
        if let Some(name) = path.strip_suffix("/blobs/uploads/") {
            return Ok(Self::Uploads(name.parse()?));
        }
        if let Some(name) = path.strip_suffix("/blobs/uploads") {
            return Ok(Self::Uploads(name.parse()?));
        }
        let (before, last) = path.rsplit_once('/').ok_or_else(RegistryError::no_such_path)?;
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            let id = last.parse().map_err(|_| RegistryError::upload_unknown())?;
            return Ok(Self::Upload(name.parse()?, id));
        }
        if let Some(name) = before.strip_suffix("/blobs") {
            return Ok(Self::Blob(name.parse()?, last.parse()?));
        }
        if let Some(name) = before.strip_suffix("/referrers") {
            return Ok(Self::Referrers(name.parse()?, last.parse()?));
        }
        if let Some(name) = before.strip_suffix("/manifests") {
            return Ok(Self::Manifest(name.parse()?, last.parse()?));
        }
        Err(RegistryError::no_such_path())
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse::<Digest>().map_err(RegistryError::from)?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl From<NameError> for RegistryError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Repository(_) => Self::name_invalid(error.to_string()),
            NameError::Tag(_) => Self::manifest_unknown(&error),
        }
    }
}

impl From<DigestError> for RegistryError {
    fn from(error: DigestError) -> Self {
        Self::digest_invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(name: &str) -> Repository {
        name.parse().unwrap()
    }

    #[test]
    fn a_path_is_read_from_its_end() {
        let digest = Digest::of(b"x");
        let parsed = |path: &str| Route::parse(path).unwrap();
        assert_eq!(parsed("/v2"), Route::Base);
        assert_eq!(parsed("/v2/"), Route::Base);
        assert_eq!(parsed("/v2/_catalog"), Route::Catalog);
        assert_eq!(parsed("/v2/a/tags/list"), Route::Tags(repo("a")));
        assert_eq!(parsed("/v2/a/b/blobs/uploads/"), Route::Uploads(repo("a/b")));
        assert_eq!(
            parsed(&format!("/v2/blobs/blobs/{digest}")),
            Route::Blob(repo("blobs"), digest)
        );
        let escaped = digest.to_string().replace(':', "%3A");
        let by_digest = Route::Manifest(repo("a"), Reference::Digest(digest));
        assert_eq!(parsed(&format!("/v2/a/manifests/{escaped}")), by_digest);
        let tag = Reference::Tag("v1.0_x-2".parse().unwrap());
        assert_eq!(parsed("/v2/v2/00ff/manifests/v1.0_x-2"), Route::Manifest(repo("v2/00ff"), tag));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "A", "a//b", "../a", "a/", "-a", "a-", "a..b", "a___b", "_tags", "a b"] {
            assert!(name.parse::<Repository>().is_err(), "{name:?}");
        }
        for name in ["a", "a/b", "a--b", "a__b", "a.b/c_d", "v2/0123456789abcdef0123456789abcdef"] {
            assert!(name.parse::<Repository>().is_ok(), "{name:?}");
        }
        for tag in ["", ".x", "-x", "a/b", "a b", &"x".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag:?}");
        }
        for path in
            ["/v2/a", "/v2/a/b", "/v2/a/manifests/", "/v2/../manifests/x", "/v2/manifests/x"]
        {
            assert!(Route::parse(path).is_err(), "{path:?}");
        }
    }
}
