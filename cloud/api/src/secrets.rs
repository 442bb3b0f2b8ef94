//! Passwords, API keys and what is kept of them.
//!
//! Invariant: neither a password nor a key is stored; a password as Argon2id, a key, which is long and
//! random, as its SHA-256.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use minke_common_model::digest::Digest;
use rand::rngs::OsRng;

use crate::error::ApiError;

/// Shortest password that is accepted for an account, in characters.
pub const MIN_PASSWORD: usize = 8;
/// Longest password that is read, in bytes.
pub const MAX_PASSWORD: usize = 1024;
/// Shortest key that a client may choose, in characters.
pub const MIN_KEY: usize = 16;
/// Longest key that a client may choose, in characters.
pub const MAX_KEY: usize = 255;

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `length` letters and digits that nobody can guess.
pub fn random_text(length: usize) -> String {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        OsRng.unwrap_err_fill(&mut bytes);
        // Bytes from 248 on would make the first letters likelier than the others.
        let letters = bytes.iter().filter(|byte| **byte < 248);
        text.extend(
            letters.take(length - text.len()).map(|b| LETTERS[usize::from(*b) % 62] as char),
        );
    }
    text
}

/// 32 lower-case hexadecimal digits that nobody can guess.
pub fn random_hex() -> String {
    let mut bytes = [0; 16];
    OsRng.unwrap_err_fill(&mut bytes);
    hex::encode(bytes)
}

trait Fill {
    fn unwrap_err_fill(&mut self, bytes: &mut [u8]);
}

impl Fill for OsRng {
    /// Without randomness there is no safe way on; Linux has it from early boot.
    fn unwrap_err_fill(&mut self, bytes: &mut [u8]) {
        use rand::TryRngCore;
        self.try_fill_bytes(bytes).expect("the system's random numbers");
    }
}

/// A new API key.
pub fn new_key() -> String {
    random_text(32)
}

/// What is stored of an API key.
pub fn key_hash(key: &str) -> String {
    Digest::of(key).hex()
}

/// Checks a key that a client chose.
pub fn check_key(key: &str) -> Result<(), ApiError> {
    let length = key.len();
    if !(MIN_KEY..=MAX_KEY).contains(&length) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ApiError::bad(format!(
            "a key must have {MIN_KEY} to {MAX_KEY} printable ASCII characters"
        )));
    }
    Ok(())
}

/// What is stored of a password. Takes tens of milliseconds of CPU and 19 MB: at most a few at once.
pub fn password_hash(password: &str) -> Result<String, ApiError> {
    let length = password.chars().count();
    if length < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        return Err(ApiError::bad(format!(
            "a password must have at least {MIN_PASSWORD} characters and at most {MAX_PASSWORD} bytes"
        )));
    }
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| ApiError::internal("hashing a password", error.to_string()))
}

/// Whether `password` is the one that `hash` was made of; as costly as [`password_hash`].
pub fn is_password(password: &str, hash: &str) -> bool {
    password.len() <= MAX_PASSWORD
        && PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_only() {
        let hash = password_hash("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains("horse"));
        assert!(is_password("correct horse", &hash));
        assert!(!is_password("correct horsf", &hash));
        assert!(!is_password("correct horse", "not a hash"));
        assert!(password_hash("short").is_err());
    }

    #[test]
    fn random_texts_are_as_long_as_asked_and_differ() {
        for length in [0, 1, 32, 200] {
            assert_eq!(random_text(length).len(), length);
        }
        assert_ne!(new_key(), new_key());
    }

    #[test]
    fn a_chosen_key_has_limits() {
        assert!(check_key(&random_hex()).is_ok());
        for bad in ["short", &"a".repeat(256), "with a space in the key"] {
            assert!(check_key(bad).is_err());
        }
    }
}
