//! `/containers/{id}/stats`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::Response;
use minke_engine_shim::cgroup;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::params::Params;
use super::reply::{Pieces, json as reply, line};
use crate::containers::container::Container;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::stamp;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn stats(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let stream = params.text("stream").is_none() || params.flag("stream");
    if stream {
        let pieces = Pieces::of(|sender| watch(container, sender));
        return Ok(pieces.answer("application/json"));
    }
    let mut before = Value::Null;
    if !params.flag("one-shot") && container.status().has_process() {
        before = sample(&container);
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(reply(&with_previous(sample(&container), &before)))
}

async fn watch(container: Arc<Container>, sender: mpsc::Sender<Bytes>) {
    let mut before = Value::Null;
    loop {
        if container.phase.borrow().removed {
            return;
        }
        let now = sample(&container);
        if sender.send(line(&with_previous(now.clone(), &before))).await.is_err() {
            return;
        }
        before = now;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn with_previous(mut now: Value, before: &Value) -> Value {
    now["preread"] = match before["read"].as_str() {
        Some(read) => read.into(),
        None => stamp::NEVER.into(),
    };
    let empty = json!({ "cpu_usage": { "total_usage": 0 }, "throttling_data": {} });
    now["precpu_stats"] = match &before["cpu_stats"] {
        Value::Null => empty,
        stats => stats.clone(),
    };
    now
}

/// The files of a container's cgroups.
struct Files(Vec<PathBuf>);

impl Files {
    fn text(&self, names: &[&str]) -> Option<String> {
        let paths = names.iter().flat_map(|name| self.0.iter().map(move |dir| dir.join(name)));
        paths.into_iter().find_map(|path| std::fs::read_to_string(path).ok())
    }

    fn number(&self, names: &[&str]) -> Option<u64> {
        self.text(names)?.trim().parse().ok()
    }

    fn table(&self, names: &[&str]) -> Map<String, Value> {
        let text = self.text(names).unwrap_or_default();
        let rows = text.lines().filter_map(|row| {
            let (name, value) = row.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse::<u64>().ok()?.into()))
        });
        rows.collect()
    }
}

fn sample(container: &Container) -> Value {
    let (pid, name) = {
        let cell = container.lock();
        (cell.state.pid, format!("/{}", cell.config.name))
    };
    let read = stamp::rfc3339(stamp::now());
    if pid == 0 {
        return json!({
            "read": stamp::NEVER, "name": name, "id": container.id,
            "cpu_stats": { "cpu_usage": { "total_usage": 0 } }, "memory_stats": {}, "pids_stats": {},
        });
    }
    let files = Files(cgroup::listed(&container.shim_dir()));
    json!({
        "read": read,
        "name": name,
        "id": container.id,
        "num_procs": 0,
        "pids_stats": pids(&files),
        "cpu_stats": cpu(&files),
        "memory_stats": memory(&files),
        "blkio_stats": block_io(&files),
        "storage_stats": {},
        "networks": networks(pid),
    })
}

fn pids(files: &Files) -> Value {
    let limit = files.text(&["pids.max"]);
    // Without a limit it is as large as can be, as in Docker.
    let limit = limit.map(|text| text.trim().parse().unwrap_or(u64::MAX));
    let mut stats = json!({ "current": files.number(&["pids.current"]).unwrap_or(0) });
    if let Some(limit) = limit {
        stats["limit"] = limit.into();
    }
    stats
}

fn cpu(files: &Files) -> Value {
    let table = files.table(&["cpu.stat"]);
    let micro = |name: &str| table.get(name).and_then(Value::as_u64).map(|value| value * 1000);
    let total = files.number(&["cpuacct.usage"]).or_else(|| micro("usage_usec")).unwrap_or(0);
    let accounted = files.table(&["cpuacct.stat"]);
    let ticks = |name: &str| accounted.get(name).and_then(Value::as_u64).map(|t| t * 10_000_000);
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let system: u64 = stat
        .lines()
        .next()
        .map(|row| {
            row.split_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum()
        })
        .unwrap_or(0);
    let online = stat
        .lines()
        .filter(|row| {
            row.starts_with("cpu") && row.as_bytes().get(3).is_some_and(u8::is_ascii_digit)
        })
        .count();
    let throttling = |name: &str| table.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mut stats = json!({
        "cpu_usage": {
            "total_usage": total,
            "usage_in_usermode": ticks("user").or_else(|| micro("user_usec")).unwrap_or(0),
            "usage_in_kernelmode": ticks("system").or_else(|| micro("system_usec")).unwrap_or(0),
        },
        // Ticks are hundredths of a second on every Linux of today.
        "system_cpu_usage": system * 10_000_000,
        "online_cpus": online,
        "throttling_data": {
            "periods": throttling("nr_periods"),
            "throttled_periods": throttling("nr_throttled"),
            "throttled_time": throttling("throttled_time").max(throttling("throttled_usec") * 1000),
        },
    });
    // Version 2 of cgroups does not tell.
    if let Some(text) = files.text(&["cpuacct.usage_percpu"]) {
        let each = text.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        stats["cpu_usage"]["percpu_usage"] = each.collect();
    }
    stats
}

fn memory(files: &Files) -> Value {
    let host = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = host
        .lines()
        .find_map(|row| row.strip_prefix("MemTotal:"))
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024;
    let limit = files.number(&["memory.limit_in_bytes", "memory.max"]).unwrap_or(u64::MAX);
    let mut stats = json!({
        "usage": files.number(&["memory.usage_in_bytes", "memory.current"]).unwrap_or(0),
        "stats": files.table(&["memory.stat"]),
        "limit": limit.min(total),
    });
    // Docker tells the highest use on version 1 only, and clients tell the versions apart by that.
    match files.number(&["memory.max_usage_in_bytes"]) {
        Some(most) => {
            stats["max_usage"] = most.into();
            stats["failcnt"] = files.number(&["memory.failcnt"]).unwrap_or(0).into();
        }
        None => {
            let events = files.table(&["memory.events"]);
            stats["failcnt"] = events.get("oom").cloned().unwrap_or(0.into());
        }
    }
    stats
}

/// Bytes and operations by disk. What else Docker has here, kernels of today do not count.
fn block_io(files: &Files) -> Value {
    let (bytes, operations) = match files.text(&["io.stat"]) {
        Some(text) => (
            unified_io(&text, [("rbytes", "read"), ("wbytes", "write")]),
            unified_io(&text, [("rios", "read"), ("wios", "write")]),
        ),
        None => {
            let of = |name: &str| legacy_io(&files.text(&[name]).unwrap_or_default());
            (
                of("blkio.throttle.io_service_bytes_recursive"),
                of("blkio.throttle.io_serviced_recursive"),
            )
        }
    };
    json!({
        "io_service_bytes_recursive": bytes,
        "io_serviced_recursive": operations,
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}

fn io_row(disk: &str, op: &str, value: &str) -> Option<Value> {
    let (major, minor) = disk.split_once(':')?;
    Some(json!({
        "major": major.parse::<u64>().ok()?,
        "minor": minor.parse::<u64>().ok()?,
        "op": op.to_ascii_lowercase(),
        "value": value.parse::<u64>().ok()?,
    }))
}

/// Lines of version 1: `8:0 Read 4096`.
fn legacy_io(text: &str) -> Value {
    let rows = text.lines().filter_map(|row| {
        let mut words = row.split_whitespace();
        io_row(words.next()?, words.next()?, words.next()?)
    });
    rows.collect()
}

/// Lines of version 2: `8:0 rbytes=4096 wbytes=0 …`.
fn unified_io(text: &str, wanted: [(&str, &str); 2]) -> Value {
    let rows = text.lines().flat_map(|row| {
        let (disk, rest) = row.split_once(' ').unwrap_or((row, ""));
        wanted.into_iter().filter_map(move |(key, op)| {
            let mut words = rest.split_whitespace();
            let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
            io_row(disk, op, value)
        })
    });
    rows.collect()
}

fn networks(pid: u32) -> Value {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let rows = text.lines().skip(2).filter_map(|row| {
        let (name, counters) = row.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let at = |index: usize| counters.get(index).copied().unwrap_or(0);
        let stats = json!({
            "rx_bytes": at(0), "rx_packets": at(1), "rx_errors": at(2), "rx_dropped": at(3),
            "tx_bytes": at(8), "tx_packets": at(9), "tx_errors": at(10), "tx_dropped": at(11),
        });
        (name.trim() != "lo").then(|| (name.trim().to_owned(), stats))
    });
    Value::Object(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_of_the_same_transfers() {
        let one = "254:0 Read 4096\n254:0 Write 0\n254:0 Total 4096\nTotal 4096\n";
        let two = "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:0 \n";
        let row = |op: &str, value| json!({"major": 254, "minor": 0, "op": op, "value": value});
        let legacy = legacy_io(one);
        assert_eq!(legacy, json!([row("read", 4096), row("write", 0), row("total", 4096)]));
        let unified = unified_io(two, [("rbytes", "read"), ("wbytes", "write")]);
        assert_eq!(unified, json!([row("read", 4096), row("write", 0)]));
        assert_eq!(unified_io(two, [("rios", "read"), ("wios", "write")])[0], row("read", 1));
    }
}
