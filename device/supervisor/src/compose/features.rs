//! The parts of the host that a service's labels ask for, and the directory of its locks.

use std::path::Path;

use minke_common_model::ids::{AppId, ServiceName};
use minke_common_model::labels::Features;

use super::target::Facts;
use crate::locks::service_dir;

/// The binds that labels and locks need.
pub(super) fn binds(
    facts: &Facts,
    app: AppId,
    service: &ServiceName,
    features: Features,
) -> Vec<String> {
    let locks = service_dir(&facts.lock_root, app, service);
    let locks = locks.display();
    let mut binds = vec![format!("{locks}:/tmp/resin"), format!("{locks}:/tmp/balena")];
    let mut bind = |wanted: bool, from: &str, to: &str, options: &str| {
        // What the host does not have cannot be shown; making an empty directory would be a lie.
        if wanted && facts.host_paths.contains(Path::new(from)) {
            binds.push(format!("{from}:{to}{options}"));
        }
    };
    bind(features.dbus, "/run/dbus", "/host/run/dbus", "");
    bind(features.kernel_modules, "/lib/modules", "/lib/modules", "");
    bind(features.firmware, "/lib/firmware", "/lib/firmware", "");
    bind(features.sysfs, "/sys", "/sys", "");
    bind(features.procfs, "/proc", "/proc", "");
    bind(features.journal_logs, "/var/log/journal", "/var/log/journal", ":ro");
    bind(features.journal_logs, "/run/log/journal", "/run/log/journal", ":ro");
    bind(features.journal_logs, "/etc/machine-id", "/etc/machine-id", ":ro");
    if features.balena_socket {
        let socket = facts.engine_socket.display();
        binds.push(format!("{socket}:/host/run/balena-engine.sock"));
        binds.push(format!("{socket}:/var/run/balena.sock"));
    }
    binds
}

/// The paths of the host that features may show, of which [`Facts::host_paths`] has those that exist.
pub(crate) const HOST_PATHS: [&str; 8] = [
    "/run/dbus",
    "/lib/modules",
    "/lib/firmware",
    "/sys",
    "/proc",
    "/var/log/journal",
    "/run/log/journal",
    "/etc/machine-id",
];
