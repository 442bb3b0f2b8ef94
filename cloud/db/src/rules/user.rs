//! Accounts: people log in by name or by address, so no name can be the address of another.

use crate::error::{Error, Result};
use crate::write::Changes;

/// Longest user name, in characters.
const MAX_USERNAME: usize = 73;
/// Longest e-mail address, in characters.
const MAX_EMAIL: usize = 254;

pub(super) fn before_update(changes: &mut Changes) -> Result<()> {
    for name in ["username", "email"] {
        if let Some(lower) = changes.text(name).map(str::to_lowercase) {
            changes.set(name, lower.as_str());
        }
    }
    check(changes.text("username"), changes.text("email"))
}

/// Checks what is given of an account, in lower case.
pub(crate) fn check(username: Option<&str>, email: Option<&str>) -> Result<()> {
    if username.is_some_and(|name| !is_username(name)) {
        let rule = format!("a user name must have 1 to {MAX_USERNAME} letters, digits and '_'");
        return Err(Error::invalid(rule));
    }
    match email {
        Some(email) if !is_email(email) => {
            Err(Error::invalid(format!("{email:?} is not an e-mail address")))
        }
        _ => Ok(()),
    }
}

fn is_username(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=MAX_USERNAME).contains(&name.len()) && name.chars().all(is_plain)
}

fn is_email(email: &str) -> bool {
    let has_form = email.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !email.contains(char::is_whitespace)
    });
    has_form && email.chars().count() <= MAX_EMAIL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_a_name_and_an_address() {
        assert!(check(Some("ann"), Some("ann@example.org")).is_ok());
        assert!(check(None, None).is_ok());
        for (name, email) in [
            ("", "a@b"),
            ("an n", "a@b"),
            ("a/b", "a@b"),
            ("a@b", "a@b"),
            ("ann", "nowhere"),
            ("ann", "@b"),
            ("ann", "a b@c"),
        ] {
            assert!(check(Some(name), Some(email)).is_err(), "{name} {email}");
        }
    }
}
