//! The device configuration that a server sets by variables `BALENA_*` (or the older `RESIN_*`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lenient::{is_falsy, is_truthy};

/// What the host's firewall lets in.
#[expect(missing_docs, reason = "each variant is the word on the wire")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirewallMode {
    #[default]
    Off,
    On,
    Auto,
}

/// Every variable that the supervisor itself acts on, with balena's defaults.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Between two looks for a new target, without the jitter.
    pub poll_interval: Duration,
    /// Whether the server may ask for a look at once.
    pub instant_updates: bool,
    pub local_mode: bool,
    pub connectivity_check: bool,
    /// Whether services' logs go to the server.
    pub log_control: bool,
    pub api_request_timeout: Duration,
    pub delta: bool,
    /// Whether the services' update locks are ignored.
    pub override_lock: bool,
    pub persistent_logging: bool,
    pub firewall_mode: FirewallMode,
    pub host_discoverability: bool,
    pub hardware_metrics: bool,
    pub vpn_control: bool,
}

impl Default for DeviceConfig {
    fn default() -> DeviceConfig {
        DeviceConfig {
            poll_interval: Duration::from_millis(900_000),
            instant_updates: true,
            local_mode: false,
            connectivity_check: true,
            log_control: true,
            api_request_timeout: Duration::from_millis(59_000),
            delta: false,
            override_lock: false,
            persistent_logging: false,
            firewall_mode: FirewallMode::Off,
            host_discoverability: true,
            hardware_metrics: true,
            vpn_control: true,
        }
    }
}

/// A variable whose value says nothing; its default holds.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration variable {name} is {value:?}, which is not {expected}")]
pub struct BadValue {
    pub name: &'static str,
    pub value: String,
    pub expected: &'static str,
}

/// Shortest poll interval that is obeyed.
pub const MIN_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Longest poll interval that is obeyed: a typing error must not silence a device for a year.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest request timeout that is obeyed: under one that no answer can meet, a device would never
/// hear that it was changed.
pub const MIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request timeout that is obeyed: a server that hangs must not hold a device up for days.
pub const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(10 * 60);

impl DeviceConfig {
    /// Reads the variables of a target; what cannot be read keeps its default and is told.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> (DeviceConfig, Vec<BadValue>) {
        let mut reader = Reader { variables, bad: Vec::new() };
        let defaults = DeviceConfig::default();
        let config = DeviceConfig {
            poll_interval: reader
                .milliseconds("SUPERVISOR_POLL_INTERVAL", defaults.poll_interval)
                .clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL),
            instant_updates: reader
                .truth("SUPERVISOR_INSTANT_UPDATE_TRIGGER", defaults.instant_updates),
            local_mode: reader.truth("SUPERVISOR_LOCAL_MODE", defaults.local_mode),
            connectivity_check: reader
                .truth("SUPERVISOR_CONNECTIVITY_CHECK", defaults.connectivity_check),
            log_control: reader.truth("SUPERVISOR_LOG_CONTROL", defaults.log_control),
            api_request_timeout: reader
                .milliseconds("SUPERVISOR_API_REQUEST_TIMEOUT", defaults.api_request_timeout)
                .clamp(MIN_REQUEST_TIMEOUT, MAX_REQUEST_TIMEOUT),
            delta: reader.truth("SUPERVISOR_DELTA", defaults.delta),
            override_lock: reader.truth("SUPERVISOR_OVERRIDE_LOCK", false)
                || reader.truth("OVERRIDE_LOCK", false),
            persistent_logging: reader
                .truth("SUPERVISOR_PERSISTENT_LOGGING", defaults.persistent_logging),
            firewall_mode: reader.firewall("HOST_FIREWALL_MODE"),
            host_discoverability: reader
                .truth("HOST_DISCOVERABILITY", defaults.host_discoverability),
            hardware_metrics: reader
                .truth("SUPERVISOR_HARDWARE_METRICS", defaults.hardware_metrics),
            vpn_control: reader.truth("SUPERVISOR_VPN_CONTROL", defaults.vpn_control),
        };
        (config, reader.bad)
    }
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    bad: Vec<BadValue>,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        [format!("BALENA_{name}"), format!("RESIN_{name}"), name.to_owned()]
            .iter()
            .find_map(|full| self.variables.get(full))
            .map(String::as_str)
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(value) = self.value(name) else { return default };
        if value.is_empty() {
            return default;
        }
        match parse(value) {
            Some(parsed) => parsed,
            None => {
                let value = value.to_owned();
                self.bad.push(BadValue { name, value, expected });
                default
            }
        }
    }

    fn truth(&mut self, name: &'static str, default: bool) -> bool {
        self.read(name, "a Boolean", default, |value| {
            is_truthy(value).then_some(true).or_else(|| is_falsy(value).then_some(false))
        })
    }

    fn milliseconds(&mut self, name: &'static str, default: Duration) -> Duration {
        self.read(name, "a number of milliseconds", default, |value| {
            value.trim().parse().ok().map(Duration::from_millis)
        })
    }

    fn firewall(&mut self, name: &'static str) -> FirewallMode {
        self.read(name, "off, on or auto", FirewallMode::Off, |value| match value {
            "off" => Some(FirewallMode::Off),
            "on" => Some(FirewallMode::On),
            "auto" => Some(FirewallMode::Auto),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_prefix_wins_and_a_bad_value_keeps_the_default() {
        let variables = [
            ("RESIN_SUPERVISOR_POLL_INTERVAL", "600000"),
            ("BALENA_SUPERVISOR_POLL_INTERVAL", "120000"),
            ("RESIN_OVERRIDE_LOCK", "on"),
            ("BALENA_SUPERVISOR_LOG_CONTROL", "perhaps"),
            ("BALENA_HOST_FIREWALL_MODE", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (config, bad) = DeviceConfig::from_variables(&BTreeMap::from(variables));
        let expected = DeviceConfig {
            poll_interval: Duration::from_secs(120),
            override_lock: true,
            ..DeviceConfig::default()
        };
        assert_eq!(config, expected);
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].name, "SUPERVISOR_LOG_CONTROL");
    }

    #[test]
    fn no_variable_can_keep_a_device_from_hearing_its_server() {
        let of = |interval: &str, timeout: &str| {
            let variables = [
                ("BALENA_SUPERVISOR_POLL_INTERVAL", interval),
                ("BALENA_SUPERVISOR_API_REQUEST_TIMEOUT", timeout),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
            let (config, _) = DeviceConfig::from_variables(&BTreeMap::from(variables));
            (config.poll_interval, config.api_request_timeout)
        };
        assert_eq!(of("0", "0"), (MIN_POLL_INTERVAL, MIN_REQUEST_TIMEOUT));
        assert_eq!(of("60000", "59"), (Duration::from_secs(60), MIN_REQUEST_TIMEOUT));
        assert_eq!(of("60000", "20000"), (Duration::from_secs(60), Duration::from_secs(20)));
        let most = u64::MAX.to_string();
        assert_eq!(of(&most, &most), (MAX_POLL_INTERVAL, MAX_REQUEST_TIMEOUT));
    }
}
