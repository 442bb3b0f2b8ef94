//! What containers and volumes may be called.

use crate::error::{Error, Result};

/// Longest name of a container, volume or network.
const LONGEST: usize = 255;

/// Checks the name of a container, without its leading slash.
pub(crate) fn check_container(name: &str) -> Result<()> {
    check("container", name)
}

/// Checks the name of a volume.
pub(crate) fn check_volume(name: &str) -> Result<()> {
    check("volume", name)
}

/// Checks the name of a network: as in Docker it may hold nearly everything.
pub(crate) fn check_network(name: &str) -> Result<()> {
    let bad = |c: char| c.is_control() || c == '/';
    if !name.trim().is_empty() && name.len() <= LONGEST && !name.contains(bad) {
        return Ok(());
    }
    let shown: String = name.chars().take(LONGEST).collect();
    Err(Error::Invalid(format!(
        "invalid network name {shown:?}: want 1 to {LONGEST} bytes with something to see and no slash"
    )))
}

fn check(kind: &str, name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if good && name.len() <= LONGEST {
        return Ok(());
    }
    let shown: String = name.chars().take(LONGEST).collect();
    Err(Error::Invalid(format!(
        "Invalid {kind} name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to {LONGEST} characters"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_bounded() {
        for good in ["ab", "a.b-c_d", "1a"] {
            check_container(good).unwrap();
        }
        for good in ["a", "test 01", "_x", "ä"] {
            check_network(good).unwrap();
        }
        for bad in ["", " ", "a/b", "a\nb", &"a".repeat(256)] {
            check_network(bad).unwrap_err();
        }
        for bad in ["", "a", "-a", "a/b", "a b", "ä1", &"a".repeat(256)] {
            check_container(bad).unwrap_err();
        }
    }
}
