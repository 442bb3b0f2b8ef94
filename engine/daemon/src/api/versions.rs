//! Versions of the API: the `/v1.41` that may stand before a path.

use crate::error::{Error, Result};

/// Major and minor.
pub(crate) type Version = (u16, u16);

/// The version that a request's path says; it travels in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spoken(pub(crate) Option<Version>);

const NEWEST: Version = (1, 47);
const OLDEST: Version = (1, 24);

/// What older clients may ask for too, as it never changed since: copying images out and in is done with
/// 1.22 by programs (skopeo, for one) that speak no newer version.
const OF_OLD: Version = (1, 22);
const UNCHANGED: [&str; 3] = ["/_ping", "/images/get", "/images/load"];

/// Takes the version off a path.
pub(crate) fn split(path: &str) -> (Option<Version>, &str) {
    let versioned = || {
        let rest = path.strip_prefix("/v")?;
        let end = rest.find('/')?;
        let (major, minor) = rest[..end].split_once('.')?;
        Some(((major.parse().ok()?, minor.parse().ok()?), &rest[end..]))
    };
    match versioned() {
        Some((version, path)) => (Some(version), path),
        None => (None, path),
    }
}

/// Refuses versions that are not spoken at this path.
pub(crate) fn check(version: Option<Version>, path: &str) -> Result<()> {
    let Some((major, minor)) = version else { return Ok(()) };
    if (major, minor) >= OF_OLD && (major, minor) < OLDEST && UNCHANGED.contains(&path) {
        return Ok(());
    }
    if (major, minor) > NEWEST {
        return Err(Error::Invalid(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is {}",
            crate::API_VERSION
        )));
    }
    if (major, minor) < OLDEST {
        return Err(Error::Invalid(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            crate::OLDEST_API_VERSION
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_off_and_are_checked() {
        assert_eq!(split("/v1.41/info"), (Some((1, 41)), "/info"));
        assert_eq!(split("/volumes/v1.41"), (None, "/volumes/v1.41"));
        assert_eq!(split("/version"), (None, "/version"));
        check(None, "/info").unwrap();
        check(Some((1, 24)), "/info").unwrap();
        check(Some((1, 23)), "/info").unwrap_err();
        check(Some((1, 48)), "/info").unwrap_err();
        check(Some((1, 22)), "/images/load").unwrap();
        check(Some((1, 21)), "/images/load").unwrap_err();
        assert_eq!(format!("{}.{}", NEWEST.0, NEWEST.1), crate::API_VERSION);
        assert_eq!(format!("{}.{}", OLDEST.0, OLDEST.1), crate::OLDEST_API_VERSION);
    }
}
