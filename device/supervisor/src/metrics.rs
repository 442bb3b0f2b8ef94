//! What the device measures of itself, and when a change is worth a report.

use std::path::Path;

use serde_json::{Map, Value, json};

/// Reads the numbers; keeps those that have not changed enough.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    reported: Map<String, Value>,
    busy_and_all: (u64, u64),
}

/// A change smaller than this is none: percent, degrees, MB, MB.
const BUCKETS: [(&str, f64); 4] =
    [("cpu_usage", 20.0), ("cpu_temp", 5.0), ("memory_usage", 10.0), ("storage_usage", 10.0)];

impl Metrics {
    /// The numbers to report now.
    pub fn sample(&mut self, data: &Path) -> Map<String, Value> {
        let fresh = self.read(data);
        for (key, value) in fresh {
            if !self.reported.get(&key).is_some_and(|last| is_small(&key, last, &value)) {
                self.reported.insert(key, value);
            }
        }
        self.reported.clone()
    }

    fn read(&mut self, data: &Path) -> Map<String, Value> {
        let mut numbers = Map::new();
        if let Some((used, total)) = memory(&read("/proc/meminfo")) {
            numbers.insert("memory_usage".into(), json!(used));
            numbers.insert("memory_total".into(), json!(total));
        }
        if let Ok(disk) = rustix::fs::statvfs(data) {
            let megabytes = |blocks: u64| blocks * disk.f_frsize / 1_000_000;
            numbers.insert("storage_usage".into(), json!(megabytes(disk.f_blocks - disk.f_bfree)));
            numbers.insert("storage_total".into(), json!(megabytes(disk.f_blocks)));
        }
        if let Some(now) = processor(&read("/proc/stat")) {
            let (busy, all) =
                (now.0 - self.busy_and_all.0.min(now.0), now.1 - self.busy_and_all.1.min(now.1));
            self.busy_and_all = now;
            numbers.insert("cpu_usage".into(), json!((100 * busy).checked_div(all).unwrap_or(0)));
        }
        let degrees = read("/sys/class/thermal/thermal_zone0/temp").trim().parse::<i64>();
        if let Ok(millidegrees) = degrees {
            numbers.insert("cpu_temp".into(), json!(millidegrees / 1000));
        }
        numbers
    }
}

/// Whether two values of a number are the same for a report.
fn is_small(key: &str, last: &Value, now: &Value) -> bool {
    let bucket = |value: &Value, size: f64| value.as_f64().map(|number| (number / size).floor());
    match BUCKETS.iter().find(|(name, _)| *name == key) {
        Some((_, size)) => bucket(last, *size) == bucket(now, *size),
        None => last == now,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Used and total memory in MB; what can be given back does not count as used.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let (total, available) = (kilobytes("MemTotal:")?, kilobytes("MemAvailable:")?);
    Some((total.saturating_sub(available) / 1024, total / 1024))
}

/// Busy and all ticks of all processors since boot.
fn processor(stat: &str) -> Option<(u64, u64)> {
    let ticks: Vec<u64> = stat
        .lines()
        .next()?
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|tick| tick.parse().ok())
        .collect();
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let meminfo = "MemTotal:       2048000 kB\nMemFree: 1 kB\nMemAvailable:    1024000 kB\n";
        assert_eq!(memory(meminfo), Some((1000, 2000)));
        assert_eq!(processor("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1"), Some((20, 100)));
    }

    #[test]
    fn a_small_change_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::default();
        let first = metrics.sample(dir.path());
        assert!(first["memory_total"].as_u64().unwrap() > 0);
        assert!(is_small("cpu_temp", &json!(41), &json!(44)));
        assert!(!is_small("cpu_temp", &json!(44), &json!(45)));
        assert!(!is_small("memory_total", &json!(44), &json!(45)));
    }
}
