//! A type of its own for each thing that is named or numbered, so that one cannot be passed for
//! another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name, in characters, of anything that a target state names.
pub const MAX_NAME: usize = 255;

/// Why a text is not a name, an id or a uuid.
#[expect(missing_docs, reason = "each variant's message says what it is")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {length} characters; the limit is {MAX_NAME}")]
    TooLong { what: &'static str, length: usize },
    #[error("{what} {text:?} may hold only {allowed}")]
    Character { what: &'static str, text: String, allowed: &'static str },
    #[error("{what} {text:?} is not a whole number of zero or more")]
    NotANumber { what: &'static str, text: String },
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number that is known to be one of these ids.
            pub const fn new(id: u64) -> Self {
                Self(id)
            }

            /// The number itself, as the API writes it.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self).map_err(|_| IdError::NotANumber {
                    what: $what,
                    text: text.chars().take(MAX_NAME).collect(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            /// Takes a number or a text of digits: both are on the wire.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::lenient::whole_number(deserializer).map(Self)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text, as it is on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                let is_allowed: fn(&str) -> bool = $ok;
                check($what, $allowed, &text, is_allowed)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::try_from(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn check(
    what: &'static str,
    allowed: &'static str,
    text: &str,
    is_allowed: fn(&str) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    let length = text.chars().count();
    if length > MAX_NAME {
        return Err(IdError::TooLong { what, length });
    }
    if !is_allowed(text) {
        return Err(IdError::Character { what, text: text.to_owned(), allowed });
    }
    Ok(())
}

fn is_docker_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_alphanumeric(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric())
}

number_id!(
    /// A fleet, an app or a block, as the server numbers it.
    AppId, "app id"
);
number_id!(
    /// A service of an app, the same over all its releases.
    ServiceId, "service id"
);
number_id!(
    /// An image row of the server: one build of one service.
    ImageId, "image id"
);
number_id!(
    /// A release row of the server.
    ReleaseId, "release id"
);
number_id!(
    /// A device row of the server.
    DeviceId, "device id"
);

text_id!(
    /// The id of a device that it keeps for life: 32 or 62 hexadecimal digits.
    DeviceUuid, "device uuid", "ASCII letters and digits", is_alphanumeric
);
text_id!(
    /// The id of an app that is the same on every server.
    AppUuid, "app uuid", "ASCII letters and digits", is_alphanumeric
);
text_id!(
    /// The commit of a release: a hash, the same on every server.
    Commit, "release commit", "ASCII letters, digits, '_', '.' and '-'", is_docker_name
);
text_id!(
    /// A service's key in the compose file.
    ServiceName, "service name", "ASCII letters, digits, '_', '.' and '-', starting with a letter or digit", is_docker_name
);
text_id!(
    /// A volume's key in the compose file.
    VolumeName, "volume name", "ASCII letters, digits, '_', '.' and '-', starting with a letter or digit", is_docker_name
);
text_id!(
    /// A network's key in the compose file.
    NetworkName, "network name", "ASCII letters, digits, '_', '.' and '-', starting with a letter or digit", is_docker_name
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_come_as_text() {
        assert_eq!(serde_json::from_str::<AppId>("\"12\"").unwrap(), AppId::new(12));
        assert_eq!(serde_json::from_str::<AppId>("12").unwrap(), AppId::new(12));
        assert!(serde_json::from_str::<AppId>("-1").is_err());
        assert!(serde_json::from_str::<AppId>("1.5").is_err());
        assert!(serde_json::from_str::<AppId>("\"twelve\"").is_err());
    }

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in ["", "..", "../x", "a/b", ".hidden", "a b", "ä"] {
            assert!(ServiceName::from_str(bad).is_err(), "{bad:?} was taken");
        }
        assert!(ServiceName::from_str("web-1.2_x").is_ok());
    }

    #[test]
    fn a_long_name_is_refused_with_the_limit() {
        let error = ServiceName::try_from("a".repeat(256)).unwrap_err();
        assert!(error.to_string().contains("255"), "{error}");
    }
}
