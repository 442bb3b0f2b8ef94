//! Names of images as people write them: `[registry[:port]/]repository[:tag][@digest]`.
//!
//! The rules are Docker's, so that the same text means the same image everywhere: a name without a
//! registry is on `docker.io`, a single word there is in `library/`, and what stands before the first
//! slash is a registry only if it has a dot, a colon or an upper-case letter, or is `localhost`.
//!
//! Invariant: an [`ImageReference`] is always normalised and within the limits; two references are equal
//! exactly when they name the same thing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// The registry of a name that gives none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of a name that gives neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// The longest registry + repository accepted, in bytes.
pub const MAX_NAME: usize = 255;
/// The longest tag accepted, in bytes.
pub const MAX_TAG: usize = 128;

/// A checked, normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageReferenceError {
    /// Nothing where the name should be.
    #[error("the image name is empty")]
    Empty,
    /// Over [`MAX_NAME`].
    #[error("the image name is longer than {MAX_NAME} characters")]
    NameTooLong,
    /// The part before the first slash looks like a registry but is none.
    #[error("`{0}` is not a registry host")]
    Registry(String),
    /// A capital letter in the repository.
    #[error("repository `{0}` must be lower case")]
    UpperCase(String),
    /// A repository with characters or separators that are not allowed.
    #[error("`{0}` is not a repository name")]
    Repository(String),
    /// 64 hexadecimal digits would be taken for an image id.
    #[error("`{0}` looks like an image id and cannot be a repository name")]
    LooksLikeId(String),
    /// A tag with characters that are not allowed, or over [`MAX_TAG`].
    #[error("`{0}` is not a tag")]
    Tag(String),
    /// What follows the `@` is not a sha256 digest.
    #[error("`{text}` is not a digest")]
    Digest {
        /// What stood there.
        text: String,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
}

impl ImageReference {
    /// A reference from its parts, checked and normalised as if they had been written together.
    pub fn from_parts(
        registry: &str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, ImageReferenceError> {
        let mut text = format!("{registry}/{repository}");
        if let Some(tag) = tag {
            text = format!("{text}:{tag}");
        }
        let mut reference: Self = text.parse()?;
        reference.digest = digest;
        Ok(reference)
    }

    /// Host and port of the registry; `docker.io` if none was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path inside the registry, `library/` included.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether it says neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The same image name with `latest` where neither tag nor digest was given.
    pub fn with_default_tag(&self) -> Self {
        let mut whole = self.clone();
        if whole.is_name_only() {
            whole.tag = Some(DEFAULT_TAG.to_owned());
        }
        whole
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ImageReferenceError> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Registry and repository in full: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository as people write it: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        let short = match self.repository.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.repository,
        };
        // `docker.io/a.b/c` cannot be shortened: `a.b/c` is repository `c` on the registry `a.b`.
        let reads_back = split_registry(short) == (self.registry.clone(), self.repository.clone());
        if reads_back { short.to_owned() } else { self.name() }
    }

    /// The reference as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        let digest = self.digest.iter().map(|digest| format!("@{digest}"));
        tag.chain(digest).collect()
    }
}

impl fmt::Display for ImageReference {
    /// In full: `docker.io/library/busybox:latest`. Parses back to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for ImageReference {
    type Err = ImageReferenceError;

    fn from_str(text: &str) -> Result<Self, ImageReferenceError> {
        let (text, digest) = match text.split_once('@') {
            Some((before, digest)) => (before, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to a port.
        let name_from = text.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match text[name_from..].split_once(':') {
            Some((_, tag)) => (&text[..text.len() - tag.len() - 1], Some(tag)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(ImageReferenceError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(ImageReferenceError::NameTooLong);
        }
        if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ImageReferenceError::LooksLikeId(name.to_owned()));
        }
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (registry, repository) = split_registry(name);
        check_registry(&registry)?;
        check_repository(&repository)?;
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ImageReferenceError::NameTooLong);
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

fn parse_digest(text: &str) -> Result<Digest, ImageReferenceError> {
    text.parse().map_err(|source| ImageReferenceError::Digest {
        text: text.chars().take(MAX_NAME).collect(),
        source,
    })
}

fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        (registry.to_owned(), format!("library/{repository}"))
    } else {
        (registry.to_owned(), repository.to_owned())
    }
}

fn check_registry(registry: &str) -> Result<(), ImageReferenceError> {
    let wrong = || ImageReferenceError::Registry(registry.to_owned());
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            match rest {
                "" => (None, None),
                _ => (None, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    if let Some(port) = port
        && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return Err(wrong());
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err(wrong());
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), ImageReferenceError> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ImageReferenceError::UpperCase(repository.to_owned()));
    }
    if !repository.split('/').all(is_path_component) {
        return Err(ImageReferenceError::Repository(repository.to_owned()));
    }
    Ok(())
}

/// Runs of letters and digits, between them one `.`, one `_`, two `_` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(first) || !is_word(last) {
        return false;
    }
    bytes.split(|b| is_word(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn check_tag(tag: &str) -> Result<(), ImageReferenceError> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let good = bytes.len() <= MAX_TAG
        && bytes.first().is_some_and(|b| is_word(*b))
        && bytes.iter().all(|b| is_word(*b) || matches!(b, b'.' | b'-'));
    if good { Ok(()) } else { Err(ImageReferenceError::Tag(tag.chars().take(MAX_NAME).collect())) }
}

impl Serialize for ImageReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> String {
        text.parse::<ImageReference>().unwrap().to_string()
    }

    fn error(text: &str) -> ImageReferenceError {
        text.parse::<ImageReference>().unwrap_err()
    }

    #[test]
    fn normalises_as_docker_does() {
        assert_eq!(full("busybox"), "docker.io/library/busybox");
        assert_eq!(full("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(full("acme/web"), "docker.io/acme/web");
        assert_eq!(full("index.docker.io/busybox"), "docker.io/library/busybox");
        assert_eq!(full("localhost/web"), "localhost/web");
        assert_eq!(full("localhost:5000/web:v1"), "localhost:5000/web:v1");
        assert_eq!(full("10.0.0.1:80/v2/0123abc"), "10.0.0.1:80/v2/0123abc");
        assert_eq!(full("[::1]:5000/a/b"), "[::1]:5000/a/b");
        assert_eq!(full("Upper/web"), "Upper/web");
        assert_eq!(full("x/a__b.c---d/e_f"), "docker.io/x/a__b.c---d/e_f");
    }

    #[test]
    fn prints_familiar_names() {
        let busybox: ImageReference = "docker.io/library/busybox".parse().unwrap();
        assert!(busybox.is_name_only());
        assert_eq!(busybox.with_default_tag().familiar(), "busybox:latest");
        let other: ImageReference = "r.example:5/x/y:z".parse().unwrap();
        assert_eq!(other.familiar(), "r.example:5/x/y:z");
    }

    #[test]
    fn keeps_tag_and_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let both: ImageReference = format!("web:v1@{digest}").parse().unwrap();
        assert_eq!(both.tag(), Some("v1"));
        assert_eq!(both.digest().unwrap().to_string(), digest);
        assert_eq!(both.with_default_tag(), both);
        assert_eq!(both.with_tag("v2").unwrap().familiar(), "web:v2");
    }

    #[test]
    fn refuses_what_docker_refuses() {
        assert_eq!(error(""), ImageReferenceError::Empty);
        assert_eq!(error(":tag"), ImageReferenceError::Empty);
        assert!(matches!(error("BusyBox"), ImageReferenceError::UpperCase(_)));
        assert!(matches!(error("-web"), ImageReferenceError::Repository(_)));
        assert!(matches!(error("a..b/c"), ImageReferenceError::Registry(_)));
        assert!(matches!(error("x/a..b"), ImageReferenceError::Repository(_)));
        assert!(matches!(error("a___b"), ImageReferenceError::Repository(_)));
        assert!(matches!(error("a//b"), ImageReferenceError::Repository(_)));
        assert!(matches!(error("a/../b"), ImageReferenceError::Repository(_)));
        assert!(matches!(error("web:"), ImageReferenceError::Tag(_)));
        assert!(matches!(error("web:-x"), ImageReferenceError::Tag(_)));
        assert!(matches!(error("host:99999/web"), ImageReferenceError::Registry(_)));
        assert!(matches!(error("host:/web"), ImageReferenceError::Registry(_)));
        assert!(matches!(error("web@sha256:12"), ImageReferenceError::Digest { .. }));
        assert!(matches!(error(&"ab".repeat(32)), ImageReferenceError::LooksLikeId(_)));
        assert!(matches!(error(&format!("web:{}", "x".repeat(129))), ImageReferenceError::Tag(_)));
        assert_eq!(error(&"a/".repeat(200)), ImageReferenceError::NameTooLong);
        assert_eq!(error(&"a".repeat(250)), ImageReferenceError::NameTooLong);
    }

    proptest! {
        #[test]
        fn prints_what_parses_back(text in "([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9_./-]{1,20}(:[\\w.-]{1,8})?") {
            if let Ok(reference) = text.parse::<ImageReference>() {
                prop_assert_eq!(&reference.to_string().parse::<ImageReference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<ImageReference>().unwrap(), &reference);
            }
        }

        #[test]
        fn never_panics(text in ".{0,80}") {
            let _ = text.parse::<ImageReference>();
        }
    }
}
