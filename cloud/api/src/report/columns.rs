//! The columns of a device row that a report sets.

use serde_json::{Map, Value, json};

/// Texts, and the characters that are kept of each.
const TEXTS: [(&str, usize); 9] = [
    ("status", 50),
    ("os_version", 255),
    ("supervisor_version", 255),
    ("provisioning_state", 255),
    ("api_secret", 255),
    ("cpu_id", 255),
    ("storage_block_device", 255),
    ("ip_address", 2000),
    ("mac_address", 900),
];
const NUMBERS: [&str; 9] = [
    "provisioning_progress",
    "download_progress",
    "api_port",
    "memory_usage",
    "memory_total",
    "storage_usage",
    "storage_total",
    "cpu_usage",
    "cpu_temp",
];
/// Written once a minute at most.
const METRICS: [&str; 9] = [
    "memory_usage",
    "memory_total",
    "storage_block_device",
    "storage_usage",
    "storage_total",
    "cpu_usage",
    "cpu_temp",
    "cpu_id",
    "is_undervolted",
];

const STATUS: [&str; 20] = [
    "Stopping",
    "Stopped",
    "Downloading",
    "Downloaded",
    "Installing",
    "Installed",
    "Starting",
    "Running",
    "Idle",
    "Handing over",
    "Awaiting handover",
    "Deleting",
    "deleted",
    "Dead",
    "paused",
    "restarting",
    "removing",
    "exited",
    "configuring",
    "Unknown",
];

/// The word as rows may hold it.
pub(super) fn known_status(word: &str) -> String {
    let known = STATUS.iter().find(|known| known.eq_ignore_ascii_case(word));
    (*known.unwrap_or(&"Unknown")).to_owned()
}

/// Where an update can stand; the first one that a release of the app has is the app's.
const UPDATE_STATUS: [&str; 6] =
    ["rejected", "aborted", "downloading", "downloaded", "applying changes", "done"];

/// Which of two reported words says where the update stands.
pub(super) fn first_update_status<'a>(one: &'a str, other: &'a str) -> &'a str {
    let rank = |word: &str| UPDATE_STATUS.iter().position(|known| *known == word);
    match (rank(one), rank(other)) {
        (Some(a), Some(b)) if b < a => other,
        (None, Some(_)) => other,
        _ => one,
    }
}

/// Whether the report has metrics.
pub(super) fn has_metrics(report: &Map<String, Value>) -> bool {
    METRICS.iter().any(|name| report.contains_key(*name))
}

/// The columns to write. What a report does not have stays; what it says is null becomes null.
pub(super) fn of_report(report: &Map<String, Value>, with_metrics: bool) -> Map<String, Value> {
    let mut row = Map::new();
    for (name, limit) in TEXTS {
        match report.get(name) {
            Some(Value::Null) => row.insert(name.to_owned(), Value::Null),
            Some(Value::String(text)) => {
                row.insert(name.to_owned(), json!(text.chars().take(limit).collect::<String>()))
            }
            _ => None,
        };
    }
    for name in NUMBERS {
        match report.get(name) {
            Some(Value::Null) => row.insert(name.to_owned(), Value::Null),
            Some(Value::Number(number)) => row.insert(name.to_owned(), json!(whole(number))),
            _ => None,
        };
    }
    if let Some(Value::Bool(truth)) = report.get("is_undervolted") {
        row.insert("is_undervolted".to_owned(), json!(truth));
    }
    match report.get("os_variant") {
        Some(Value::String(text)) if ["prod", "dev"].contains(&text.as_str()) => {
            row.insert("os_variant".to_owned(), json!(text));
        }
        Some(_) => {
            row.insert("os_variant".to_owned(), Value::Null);
        }
        None => {}
    }
    if !with_metrics {
        row.retain(|name, _| !METRICS.contains(&name.as_str()));
    }
    row
}

/// As a column holds it: whole and within 32 bits.
fn whole(number: &serde_json::Number) -> i64 {
    let limit = f64::from(i32::MAX);
    number.as_f64().unwrap_or(0.0).round().clamp(-limit, limit) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_wrong_types_left_out() {
        let report = json!({
            "status": "x".repeat(300), "os_version": 5, "cpu_temp": 41.7, "api_port": 1e300,
            "os_variant": "strange", "ip_address": null, "name": "n", "is_undervolted": "yes",
        });
        let row = of_report(report.as_object().unwrap(), true);
        assert_eq!(row["status"].as_str().unwrap().len(), 50);
        assert_eq!(row["cpu_temp"], 42);
        assert_eq!(row["api_port"], i32::MAX);
        assert_eq!(row["os_variant"], Value::Null);
        assert_eq!(row["ip_address"], Value::Null);
        assert_eq!(row.len(), 5);
    }

    #[test]
    fn words_of_engines_are_known_in_any_case() {
        assert_eq!(known_status("running"), "Running");
        assert_eq!(known_status("Exited"), "exited");
        assert_eq!(known_status("gibberish"), "Unknown");
    }

    #[test]
    fn metrics_are_left_out_between_two_writes() {
        let report = json!({"status": "Idle", "cpu_usage": 5});
        let report = report.as_object().unwrap();
        assert!(has_metrics(report));
        assert_eq!(of_report(report, false).keys().collect::<Vec<_>>(), ["status"]);
    }

    #[test]
    fn the_worst_word_stands() {
        assert_eq!(first_update_status("done", "downloading"), "downloading");
        assert_eq!(first_update_status("rejected", "done"), "rejected");
        assert_eq!(first_update_status("", "done"), "done");
        assert_eq!(first_update_status("done", "nonsense"), "done");
    }
}
