//! The variables every service gets, in balena's names, old and new.

use std::collections::BTreeMap;

use minke_common_model::ids::{AppUuid, ServiceName};
use minke_common_model::labels::Features;
use minke_common_model::target_state::AppTarget;

use super::target::Facts;

/// Builds the environment: what the device says, then what the user says.
pub(super) fn environment(
    facts: &Facts,
    uuid: &AppUuid,
    app: &AppTarget,
    service: &ServiceName,
    features: Features,
    uses_host_network: bool,
    user: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut all = BTreeMap::new();
    let mut both = |name: &str, value: &str| {
        all.insert(format!("BALENA_{name}"), value.to_owned());
        all.insert(format!("RESIN_{name}"), value.to_owned());
    };
    both("APP_ID", &app.id.to_string());
    both("APP_UUID", uuid.as_str());
    both("APP_NAME", &app.name);
    both("APP_LOCK_PATH", "/tmp/balena/updates.lock");
    both("SERVICE_NAME", service.as_str());
    both("DEVICE_UUID", facts.uuid.as_str());
    both("DEVICE_TYPE", &facts.device_type);
    both("DEVICE_ARCH", &facts.arch);
    both("DEVICE_NAME_AT_INIT", &facts.name);
    both("HOST_OS_VERSION", &facts.os_version);
    if features.supervisor_api {
        let host = if uses_host_network { "127.0.0.1" } else { facts.supervisor_gateway };
        let port = facts.listen_port;
        both("SUPERVISOR_HOST", host);
        both("SUPERVISOR_PORT", &port.to_string());
        both("SUPERVISOR_ADDRESS", &format!("http://{host}:{port}"));
        both("SUPERVISOR_API_KEY", &facts.api_keys.for_service(app.id, service));
    }
    if features.balena_api {
        both("API_KEY", facts.device_key.as_deref().unwrap_or_default());
        both("API_URL", facts.api_endpoint.as_deref().unwrap_or_default());
    }
    if features.host_os_board_rev {
        both("HOST_OS_BOARD_REV", "");
    }
    for (name, value) in [
        ("BALENA", "1"),
        ("RESIN", "1"),
        ("USER", "root"),
        ("BALENA_SERVICE_HANDOVER_COMPLETE_PATH", "/tmp/balena/handover-complete"),
        ("RESIN_SERVICE_KILL_ME_PATH", "/tmp/balena/handover-complete"),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    if features.balena_socket {
        all.insert("DOCKER_HOST".to_owned(), "unix:///var/run/balena.sock".to_owned());
    }
    all.extend(user.iter().map(|(name, value)| (name.clone(), value.clone())));
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}
