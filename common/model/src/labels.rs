//! The labels that tell the supervisor what a service may see of the host.

use std::collections::BTreeMap;

use crate::lenient::is_truthy;

/// Marks a container as made by the supervisor.
pub const SUPERVISED: &str = "io.balena.supervised";
/// The app's number on the server.
pub const APP_ID: &str = "io.balena.app-id";
/// The app's uuid.
pub const APP_UUID: &str = "io.balena.app-uuid";
/// The service's number on the server.
pub const SERVICE_ID: &str = "io.balena.service-id";
/// The service's key in the compose file.
pub const SERVICE_NAME: &str = "io.balena.service-name";

/// Reads the label `io.balena.<key>`, or the older `io.resin.<key>`.
pub fn get<'a>(labels: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    ["io.balena.", "io.resin."]
        .iter()
        .find_map(|prefix| labels.get(&format!("{prefix}{key}")))
        .map(String::as_str)
}

/// Whether the label `io.balena.<key>` is there and says yes.
pub fn is_set(labels: &BTreeMap<String, String>, key: &str) -> bool {
    get(labels, key).is_some_and(is_truthy)
}

/// The parts of the host that a service asks for with `io.balena.features.*`.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    pub dbus: bool,
    pub kernel_modules: bool,
    pub firmware: bool,
    pub sysfs: bool,
    pub procfs: bool,
    pub journal_logs: bool,
    pub balena_socket: bool,
    pub balena_api: bool,
    pub supervisor_api: bool,
    pub gpu: bool,
    pub host_os_board_rev: bool,
    pub extra_firmware: bool,
    pub optional: bool,
}

impl Features {
    /// Reads every feature label; one that is absent or not truthy is off.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Features {
        let feature = |name: &str| is_set(labels, &format!("features.{name}"));
        Features {
            dbus: feature("dbus"),
            kernel_modules: feature("kernel-modules"),
            firmware: feature("firmware"),
            sysfs: feature("sysfs"),
            procfs: feature("procfs"),
            journal_logs: feature("journal-logs"),
            balena_socket: feature("balena-socket"),
            balena_api: feature("balena-api"),
            supervisor_api: feature("supervisor-api"),
            gpu: feature("gpu"),
            host_os_board_rev: feature("host-os.board-rev"),
            extra_firmware: feature("extra-firmware"),
            optional: feature("optional"),
        }
    }
}

/// Whether `key` may be a label's name: printable ASCII without space, quotes or backtick.
pub fn is_label_name(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'`'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_prefix_counts_and_the_newer_wins() {
        let labels = BTreeMap::from([
            ("io.resin.features.dbus".to_owned(), "1".to_owned()),
            ("io.resin.features.sysfs".to_owned(), "1".to_owned()),
            ("io.balena.features.sysfs".to_owned(), "0".to_owned()),
            ("io.balena.features.supervisor-api".to_owned(), "TRUE".to_owned()),
        ]);
        let expected = Features { dbus: true, supervisor_api: true, ..Features::default() };
        assert_eq!(Features::from_labels(&labels), expected);
    }
}
