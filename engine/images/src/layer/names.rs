//! Paths of archives: bytes, cleaned by their text alone before anything looks at a disk.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::layer::LayerError;
use crate::options::Limits;

/// Removes `/` in front, `.` and doubled slashes, and takes `..` back by text, as Docker does.
///
/// The root itself is the empty path. A name that would climb over the root is an error.
pub(crate) fn clean(name: &[u8], limits: &Limits) -> Result<Vec<u8>, LayerError> {
    if name.len() > limits.path {
        return Err(LayerError::Limit { what: "the length of a path", limit: limits.path as u64 });
    }
    if name.contains(&0) {
        return Err(LayerError::Escape(show(name)));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| LayerError::Escape(show(name)))?;
            }
            part if part.len() > 255 => {
                return Err(LayerError::Limit { what: "the length of a file name", limit: 255 });
            }
            part => parts.push(part),
        }
    }
    if parts.len() > limits.depth {
        return Err(LayerError::Limit { what: "the depth of a path", limit: limits.depth as u64 });
    }
    Ok(parts.join(&b'/'))
}

/// Directory and last name of a cleaned path; the directory of a top-level name is empty.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A name below a directory.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    [dir, b"/", name].concat()
}

/// A path for the system.
pub(crate) fn to_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// A path for people: at most 256 characters, none of them a control character.
pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .chars()
        .take(256)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(name: &str) -> Result<String, LayerError> {
        clean(name.as_bytes(), &Limits::default()).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn cleans_by_text() {
        assert_eq!(cleaned("./").unwrap(), "");
        assert_eq!(cleaned("/etc//./passwd").unwrap(), "etc/passwd");
        assert_eq!(cleaned("a/b/../c/").unwrap(), "a/c");
        assert!(matches!(cleaned("../x"), Err(LayerError::Escape(_))));
        assert!(matches!(cleaned("a/../../x"), Err(LayerError::Escape(_))));
        assert!(matches!(cleaned(&"a/".repeat(300)), Err(LayerError::Limit { .. })));
        assert!(matches!(cleaned(&"a".repeat(300)), Err(LayerError::Limit { .. })));
        assert!(matches!(cleaned(&"a/".repeat(3000)), Err(LayerError::Limit { .. })));
    }
}
