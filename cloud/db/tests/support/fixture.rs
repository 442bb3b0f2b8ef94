//! The rows that the captured requests speak of, under the ids that they use.

use minke_cloud_db::Db;
use serde_json::{Value, json};

use super::post;

const COMMIT: &str = "cccccccccccccccccccccccccccccccc";
const TIME: &str = "2026-11-14T01:41:16.638Z";

/// Rows in an order in which each one's links are there already.
fn rows() -> Vec<(&'static str, Value)> {
    vec![
        ("actor", json!({"id": 11})),
        ("actor", json!({"id": 12})),
        ("actor", json!({"id": 13})),
        ("actor", json!({"id": 14})),
        ("user", json!({"id": 1, "actor": 11, "username": "mock", "email": "mock@example.com"})),
        ("organization", json!({"id": 101, "name": "My Org", "handle": "myorg"})),
        (
            "organization_membership",
            json!({"id": 1, "user": 1, "is_member_of__organization": 101,
            "organization_membership_role": 1}),
        ),
        ("organization_membership_role", json!({"id": 9, "name": "ninth"})),
        (
            "application_membership_role",
            json!({"id": 9, "name": "ninth", "description": "a ninth"}),
        ),
        ("cpu_architecture", json!({"id": 61, "slug": "sixty-one"})),
        (
            "device_type",
            json!({"id": 51, "slug": "fifty-one", "name": "Fifty One",
            "is_of__cpu_architecture": 61, "contract": {"slug": "fifty-one", "data": {"arch": "x"}}}),
        ),
        (
            "device_type_alias",
            json!({"id": 52, "device_type": 51, "is_referenced_by__alias": "five"}),
        ),
        (
            "application",
            json!({"id": 201, "actor": 12, "app_name": "myfleet", "organization": 101,
            "is_for__device_type": 51, "uuid": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}),
        ),
        (
            "application",
            json!({"id": 202, "actor": 14, "app_name": "hostapp", "organization": 101,
            "is_for__device_type": 51, "is_host": true, "is_public": true,
                "uuid": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}),
        ),
        ("application_tag", json!({"id": 21, "application": 202, "tag_key": "k", "value": "v"})),
        (
            "application_environment_variable",
            json!({"id": 5, "application": 201, "name": "FIVE",
            "value": "old"}),
        ),
        (
            "application_config_variable",
            json!({"id": 6, "application": 201, "name": "BALENA_X",
            "value": "1"}),
        ),
        ("service", json!({"id": 601, "application": 201, "service_name": "main"})),
        (
            "service_environment_variable",
            json!({"id": 5, "service": 601, "name": "S", "value": "1"}),
        ),
        ("service_label", json!({"id": 7, "service": 601, "label_name": "l", "value": "1"})),
        (
            "release",
            json!({"id": 402, "belongs_to__application": 202, "commit": "host",
            "status": "success", "semver": "6.0.0", "source": "cloud", "start_timestamp": TIME,
            "composition": {}}),
        ),
        ("release_tag", json!({"id": 22, "release": 402, "tag_key": "version", "value": "6.0.0"})),
        (
            "image",
            json!({"id": 501, "is_a_build_of__service": 601, "status": "success",
            "is_stored_at__image_location": "v2/0123456789abcdef0123456789abcdef",
            "image_size": "12345678901234", "build_log": "built", "start_timestamp": TIME}),
        ),
        (
            "release",
            json!({"id": 401, "belongs_to__application": 201, "commit": COMMIT,
            "status": "success", "semver": "1.2.3", "source": "local", "is_created_by__user": 1,
            "composition": {"services": {"main": {"image": "x"}}}, "start_timestamp": TIME}),
        ),
        ("service_instance", json!({"id": 71, "service_type": "vpn", "ip_address": "10.0.0.1"})),
        (
            "device",
            json!({"id": 301, "actor": 13, "uuid": "dddddddddddddddddddddddddddddddd",
            "device_name": "mock-device", "belongs_to__application": 201, "is_of__device_type": 51,
            "is_online": true, "os_version": "balenaOS 6.0.0", "supervisor_version": "17.0.1",
            "is_running__release": 401, "memory_usage": 12, "cpu_temp": -3,
            "last_connectivity_event": TIME, "is_managed_by__service_instance": 71}),
        ),
        ("service_install", json!({"id": 801, "device": 301, "installs__service": 601})),
        ("release_image", json!({"id": 701, "is_part_of__release": 401, "image": 501})),
        ("image_label", json!({"id": 8, "release_image": 701, "label_name": "m", "value": "1"})),
        (
            "release_asset",
            json!({"id": 9, "release": 401, "asset_key": "a", "asset":
            {"filename": "f", "href": "v2/a", "content_type": "text/plain", "size": 1}}),
        ),
        (
            "device_service_environment_variable",
            json!({"id": 5, "service_install": 801, "name": "I", "value": "1"}),
        ),
        ("device_environment_variable", json!({"id": 5, "device": 301, "name": "D", "value": "1"})),
        (
            "device_config_variable",
            json!({"id": 5, "device": 301,
            "name": "RESIN_SUPERVISOR_LOCAL_MODE", "value": "0"}),
        ),
        ("device_tag", json!({"id": 23, "device": 301, "tag_key": "k", "value": "old"})),
        (
            "image_install",
            json!({"id": 901, "device": 301, "installs__image": 501,
            "is_provided_by__release": 401, "status": "Downloading", "download_progress": 50,
            "install_date": TIME}),
        ),
        ("user_public_key", json!({"id": 1, "user": 1, "title": "t", "public_key": "ssh-rsa A"})),
        ("user_public_key", json!({"id": 5, "user": 1, "title": "u", "public_key": "ssh-rsa B"})),
        ("api_key", json!({"id": 1, "is_of__actor": 11, "key": "one", "name": "first"})),
        ("api_key", json!({"id": 5, "is_of__actor": 11, "key": "five", "name": null})),
        ("team", json!({"id": 1, "name": "team", "belongs_to__organization": 101})),
        (
            "device_history",
            json!({"id": 81, "uuid": "dddddddddddddddddddddddddddddddd",
            "belongs_to__application": 201, "tracks__device": 301}),
        ),
    ]
}

/// Makes the rows.
pub async fn fill(db: &Db) {
    for (resource, mut body) in rows() {
        if let Some(body) = body.as_object_mut() {
            body.insert("created_at".to_owned(), json!(TIME));
            body.insert("modified_at".to_owned(), json!(TIME));
        }
        post(db, resource, body.clone())
            .await
            .unwrap_or_else(|error| panic!("{resource} {body}: {}", super::chain(&error)));
    }
}
