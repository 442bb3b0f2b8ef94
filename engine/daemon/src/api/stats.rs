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
        "blkio_stats": {
            "io_service_bytes_recursive": block_io(&files),
        },
        "storage_stats": {},
        "networks": networks(pid),
    })
}

fn pids(files: &Files) -> Value {
    let mut stats = json!({ "current": files.number(&["pids.current"]).unwrap_or(0) });
    if let Some(limit) = files.number(&["pids.max"]) {
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
    json!({
        "usage": files.number(&["memory.usage_in_bytes", "memory.current"]).unwrap_or(0),
        "max_usage": files.number(&["memory.max_usage_in_bytes", "memory.peak"]).unwrap_or(0),
        "failcnt": files.number(&["memory.failcnt"]).unwrap_or(0),
        "stats": files.table(&["memory.stat"]),
        "limit": limit.min(total),
    })
}

fn block_io(files: &Files) -> Value {
    let text = files.text(&["blkio.throttle.io_service_bytes_recursive"]).unwrap_or_default();
    let rows = text.lines().filter_map(|row| {
        let mut words = row.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = (words.next()?, words.next()?);
        Some(json!({
            "major": major.parse::<u64>().ok()?,
            "minor": minor.parse::<u64>().ok()?,
            "op": op.to_ascii_lowercase(),
            "value": value.parse::<u64>().ok()?,
        }))
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
