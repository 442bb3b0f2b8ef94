//! What a device may do, and what a key may do with which devices register.

use super::{OF_APPLICATION, Permissions, Verb, along};

const READ: &[Verb] = &[Verb::Read];

/// The row is the calling device.
const SELF: &str = "{}actor eq @__ACTOR_ID";
/// The row is an application that the calling device belongs to.
const FLEET: &str = "{}owns__device/any(d:d/actor eq @__ACTOR_ID)";
/// The row is a release of the system that the calling device is told to run.
const SYSTEM_RELEASE: &str = "{}should_manage__device/any(d:d/actor eq @__ACTOR_ID) or {}should_operate__device/any(d:d/actor eq @__ACTOR_ID)";

/// Rows of the device itself: resource and whether the device may write them.
const OWN: [(&str, &[&str], bool); 6] = [
    ("device_environment_variable", &["device"], true),
    ("device_config_variable", &["device"], true),
    ("device_tag", &["device"], true),
    ("image_install", &["device"], true),
    ("service_install", &["device"], false),
    ("device_service_environment_variable", &["service_install", "device"], true),
];

/// Rows of the device's fleet that say what it runs.
const OF_FLEET: [&str; 13] = [
    "application",
    "application_environment_variable",
    "application_config_variable",
    "application_tag",
    "service",
    "service_label",
    "service_environment_variable",
    "release",
    "release_tag",
    "image",
    "release_image",
    "image_label",
    "image_environment_variable",
];

pub(super) fn device_rules() -> Permissions {
    let mut table = Permissions::default();
    table.allow_catalogue();
    table.allow("device", &[Verb::Read, Verb::Update], &along(&[], SELF));
    for (resource, path, is_writable) in OWN {
        let verbs = if is_writable { &Verb::ALL[..] } else { READ };
        table.allow(resource, verbs, &along(path, SELF));
    }
    for (resource, path) in OF_APPLICATION {
        if OF_FLEET.contains(&resource) {
            table.allow(resource, READ, &along(path, FLEET));
        }
    }
    for (resource, path) in [
        ("application", &["owns__release"][..]),
        ("release", &[]),
        ("release_image", &["is_part_of__release"]),
        ("image", &["release_image", "is_part_of__release"]),
        ("image_label", &["release_image", "is_part_of__release"]),
    ] {
        table.allow(resource, READ, &along(path, SYSTEM_RELEASE));
    }
    table.allow("actor", READ, "id eq @__ACTOR_ID");
    table.allow("api_key", READ, "is_of__actor eq @__ACTOR_ID");
    table
}

pub(super) fn provisioning_rules() -> Permissions {
    let mut table = Permissions::default();
    table.allow_catalogue();
    table.allow("application", READ, &along(&[], SELF));
    let verbs = &[Verb::Read, Verb::Create];
    table.allow("device", verbs, &along(&["belongs_to__application"], SELF));
    table.allow("actor", READ, "id eq @__ACTOR_ID");
    table
}
