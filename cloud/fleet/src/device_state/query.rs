//! The queries whose answers this module reads.

const RELEASE: &str = "$select=id,commit,composition;$expand=release_image($select=id;$orderby=id asc;$expand=image($select=id,is_stored_at__image_location,content_hash,contract;$expand=is_a_build_of__service($select=id,service_name;$expand=service_label($select=label_name,value),service_environment_variable($select=name,value))),image_label($select=label_name,value),image_environment_variable($select=name,value))";
const APPLICATION: &str = "$select=id,uuid,app_name,is_of__class,is_host;$expand=application_environment_variable($select=name,value),application_config_variable($select=name,value)";

/// What a query for a device's row expands to hold a [`super::PollingRow`] too.
pub const POLLING: &str = "$expand=device_config_variable($select=name,value;$filter=name in ('BALENA_SUPERVISOR_POLL_INTERVAL','RESIN_SUPERVISOR_POLL_INTERVAL')),belongs_to__application($select=id;$expand=application_config_variable($select=name,value;$filter=name in ('BALENA_SUPERVISOR_POLL_INTERVAL','RESIN_SUPERVISOR_POLL_INTERVAL')))";

fn with_application(release: &str) -> String {
    format!("{release},belongs_to__application({APPLICATION})")
}

/// The query for one device by uuid; `None` if the uuid is not letters and digits only.
pub fn device_query(uuid: &str) -> Option<String> {
    is_plain(uuid).then(|| {
        let system = with_application(RELEASE);
        format!(
            "device(uuid='{uuid}')?$select=id,uuid,device_name&$expand=device_config_variable($select=name,value),device_environment_variable($select=name,value),service_install($select=id,installs__service;$expand=device_service_environment_variable($select=name,value)),belongs_to__application({APPLICATION}),should_be_running__release({RELEASE}),should_be_managed_by__release({system}),should_be_operated_by__release({system})"
        )
    })
}

/// The query for one application by uuid, with its target release or, if `commit` is given, that
/// successful release; `None` if one of them is not letters and digits only.
pub fn fleet_query(uuid: &str, commit: Option<&str>) -> Option<String> {
    let release = match commit {
        Some(commit) if !is_plain(commit) => return None,
        Some(commit) => format!(
            "owns__release($filter=commit eq '{commit}' and status eq 'success';$top=1;$orderby=id desc;{RELEASE})"
        ),
        None => format!("should_be_running__release({RELEASE})"),
    };
    let application = APPLICATION.replace("$expand=", &format!("$expand={release},"));
    is_plain(uuid).then(|| {
        format!("application(uuid='{uuid}')?{}", application.replacen(";$expand", "&$expand", 1))
    })
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
