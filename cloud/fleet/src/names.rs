//! Names people give, and names made for them: fleets, slugs, variables, devices.

/// Fewest characters of a fleet's name.
pub const MIN_APP_NAME: usize = 4;
/// Most characters of a fleet's name.
pub const MAX_APP_NAME: usize = 100;
/// Most characters of a variable's, label's or tag's name.
pub const MAX_NAME: usize = 255;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("{what} must have {min} to {max} characters; this one has {length}")]
    Length {
        /// What the name is of.
        what: &'static str,
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
        /// Characters it has.
        length: usize,
    },
    /// A character that is not allowed.
    #[error("{what} {name:?} may hold only {allowed}")]
    Character {
        /// What the name is of.
        what: &'static str,
        /// The name.
        name: String,
        /// What it may hold.
        allowed: &'static str,
    },
    /// A name that the supervisor sets itself.
    #[error("the variable name {0:?} is reserved: the device sets it itself")]
    Reserved(String),
    /// A name space that belongs to configuration variables.
    #[error(
        "the variable name {0:?} is in the name space of configuration variables; set it as one"
    )]
    Namespace(String),
    /// A configuration variable outside its name spaces.
    #[error("the configuration variable name {0:?} must begin with BALENA_ or RESIN_")]
    NotConfiguration(String),
}

/// Names of variables that the supervisor sets for every service.
pub const RESERVED_NAMES: [&str; 2] = ["RESIN", "BALENA"];
/// Beginnings of names that only configuration variables may have.
pub const RESERVED_NAMESPACES: [&str; 2] = ["RESIN_", "BALENA_"];
/// Names in the reserved name spaces that a service may have all the same.
pub const WHITELISTED_NAMES: [&str; 6] = [
    "RESIN_APP_RESTART_POLICY",
    "RESIN_APP_RESTART_RETRIES",
    "BALENA_APP_RESTART_POLICY",
    "BALENA_APP_RESTART_RETRIES",
    "BALENA_LOGS_LEVEL",
    "RESIN_LOGS_LEVEL",
];

fn check_length(
    what: &'static str,
    text: &str,
    (min, max): (usize, usize),
) -> Result<(), NameError> {
    let length = text.chars().count();
    if (min..=max).contains(&length) {
        return Ok(());
    }
    Err(NameError::Length { what, min, max, length })
}

/// Checks the name of a fleet, an app or a block.
pub fn check_app_name(name: &str) -> Result<(), NameError> {
    let what = "an application name";
    check_length(what, name, (MIN_APP_NAME, MAX_APP_NAME))?;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        let allowed = "letters, digits, '_' and '-'";
        return Err(NameError::Character { what, name: name.to_owned(), allowed });
    }
    Ok(())
}

/// Checks the handle of an organization, the first half of a slug.
pub fn check_handle(handle: &str) -> Result<(), NameError> {
    let what = "an organization handle";
    check_length(what, handle, (1, 100))?;
    if !handle.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        let allowed = "lower-case letters, digits and '_'";
        return Err(NameError::Character { what, name: handle.to_owned(), allowed });
    }
    Ok(())
}

/// A handle that can be made of an organization's name.
pub fn handle_from(name: &str) -> String {
    let mut handle: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(100)
        .collect();
    if handle.is_empty() {
        handle.push('_');
    }
    handle
}

/// The slug of an application, unique on the server.
pub fn slug(organization_handle: &str, app_name: &str) -> String {
    format!("{organization_handle}/{app_name}").to_lowercase()
}

fn is_variable_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Checks the name of a variable that services get.
pub fn check_environment_name(name: &str) -> Result<(), NameError> {
    let what = "a variable name";
    check_length(what, name, (1, MAX_NAME))?;
    if !is_variable_name(name) {
        let allowed = "letters, digits and '_', and begin with no digit";
        return Err(NameError::Character { what, name: name.to_owned(), allowed });
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(NameError::Reserved(name.to_owned()));
    }
    let is_reserved = RESERVED_NAMESPACES.iter().any(|prefix| name.starts_with(prefix));
    if is_reserved && !WHITELISTED_NAMES.contains(&name) {
        return Err(NameError::Namespace(name.to_owned()));
    }
    Ok(())
}

/// Checks the name of a configuration variable.
pub fn check_config_name(name: &str) -> Result<(), NameError> {
    let what = "a configuration variable name";
    check_length(what, name, (1, MAX_NAME))?;
    if !is_variable_name(&name.replace(':', "_")) {
        let allowed = "letters, digits, '_' and ':', and begin with no digit";
        return Err(NameError::Character { what, name: name.to_owned(), allowed });
    }
    if !RESERVED_NAMESPACES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(NameError::NotConfiguration(name.to_owned()));
    }
    Ok(())
}

const FIRST: [&str; 48] = [
    "ancient",
    "autumn",
    "bitter",
    "black",
    "blue",
    "bold",
    "broken",
    "calm",
    "cold",
    "cool",
    "crimson",
    "damp",
    "dark",
    "dawn",
    "divine",
    "dry",
    "empty",
    "falling",
    "fragrant",
    "frosty",
    "green",
    "hidden",
    "icy",
    "late",
    "lively",
    "long",
    "misty",
    "morning",
    "muddy",
    "nameless",
    "old",
    "patient",
    "polished",
    "proud",
    "purple",
    "quiet",
    "rough",
    "shy",
    "silent",
    "small",
    "snowy",
    "solitary",
    "sparkling",
    "spring",
    "still",
    "twilight",
    "weathered",
    "young",
];
const SECOND: [&str; 48] = [
    "bird",
    "breeze",
    "brook",
    "bush",
    "butterfly",
    "cherry",
    "cloud",
    "darkness",
    "dew",
    "dream",
    "dust",
    "feather",
    "field",
    "fire",
    "firefly",
    "flower",
    "fog",
    "forest",
    "frog",
    "frost",
    "glade",
    "glitter",
    "grass",
    "haze",
    "hill",
    "lake",
    "leaf",
    "meadow",
    "moon",
    "mountain",
    "night",
    "paper",
    "pine",
    "pond",
    "rain",
    "resonance",
    "river",
    "sea",
    "shadow",
    "shape",
    "sky",
    "smoke",
    "snow",
    "sound",
    "star",
    "surf",
    "thunder",
    "wave",
];

/// A name for a device that was given none; equal seeds give equal names.
pub fn device_name(seed: u64) -> String {
    let first = FIRST[(seed % FIRST.len() as u64) as usize];
    let second = SECOND[(seed / 64 % SECOND.len() as u64) as usize];
    format!("{first}-{second}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_lower_case() {
        assert_eq!(slug("acme", "Weather-Station"), "acme/weather-station");
    }

    #[test]
    fn names_of_fleets_have_limits() {
        assert!(check_app_name("weather_1-b").is_ok());
        assert!(check_app_name("abc").unwrap_err().to_string().contains("4 to 100"));
        assert!(check_app_name(&"a".repeat(101)).is_err());
        assert!(check_app_name("a/../b").is_err());
    }

    #[test]
    fn variables_keep_to_their_name_spaces() {
        assert!(check_environment_name("PORT").is_ok());
        assert!(check_environment_name("BALENA_LOGS_LEVEL").is_ok());
        assert!(matches!(check_environment_name("BALENA_X"), Err(NameError::Namespace(_))));
        assert!(matches!(check_environment_name("BALENA"), Err(NameError::Reserved(_))));
        assert!(check_environment_name("1X").is_err());
        assert!(check_config_name("BALENA_HOST_CONFIG_dtparam:1").is_ok());
        assert!(matches!(check_config_name("PORT"), Err(NameError::NotConfiguration(_))));
    }

    #[test]
    fn any_seed_makes_a_name() {
        for seed in [0, 1, 63, 64, u64::MAX] {
            assert!(device_name(seed).contains('-'));
        }
        assert_ne!(device_name(1), device_name(2));
    }
}
