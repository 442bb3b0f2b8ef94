//! `/containers/{id}/top`: the processes of a container.
//!
//! What `ps -ef` shows is read from `/proc`. For other arguments the host's `ps` is asked and its rows
//! are kept that are of the container, which is how Docker does it.

use std::path::PathBuf;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use minke_engine_shim::cgroup;
use serde_json::json;
use tokio::process::Command;

use super::params::Params;
use super::reply::json as reply;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Longest arguments, bytes.
const LONGEST: usize = 1024;

pub(super) async fn top(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let arguments = params.text("ps_args").unwrap_or_default();
    let container = daemon.containers.find(&id)?;
    if !container.status().has_process() {
        return Err(container.not_running());
    }
    let mut pids: Vec<i32> =
        cgroup::listed(&container.shim_dir()).iter().flat_map(|dir| cgroup::pids(dir)).collect();
    pids.sort_unstable();
    pids.dedup();
    let (titles, processes) = match arguments {
        "" | "-ef" => {
            (TITLES.map(str::to_owned).to_vec(), pids.into_iter().filter_map(process).collect())
        }
        given => ask_ps(given, &pids).await?,
    };
    daemon.events.publish("container", "top", &container.id, container.attributes());
    Ok(reply(&json!({ "Titles": titles, "Processes": processes })))
}

/// What `ps -ef` calls its columns.
const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

type Table = (Vec<String>, Vec<Vec<String>>);

/// What the host's `ps` says about these processes.
async fn ask_ps(arguments: &str, pids: &[i32]) -> Result<Table> {
    if arguments.len() > LONGEST || arguments.contains('\0') {
        return Err(Error::Invalid(format!("ps_args are longer than {LONGEST} bytes")));
    }
    let output = Command::new("ps").args(arguments.split_whitespace()).output().await;
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Invalid(format!(
            "ps_args {arguments:?}: this host has no ps, so only what -ef shows is known"
        )),
        _ => Error::system("running ps")(error),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned();
        return Err(Error::Invalid(format!("ps {arguments}: {line}")));
    }
    read_table(&String::from_utf8_lossy(&output.stdout), pids).ok_or_else(|| {
        Error::Invalid(format!(
            "Couldn't find PID field in ps output of the arguments {arguments:?}"
        ))
    })
}

/// The rows of a table that are about `pids`; the last column may hold spaces.
fn read_table(text: &str, pids: &[i32]) -> Option<Table> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next()?.split_whitespace().map(str::to_owned).collect();
    let at = titles.iter().position(|title| title == "PID")?;
    let rows = lines.filter_map(|line| {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        let pid = fields.get(at)?.parse::<i32>().ok()?;
        if !pids.contains(&pid) {
            return None;
        }
        let last = fields.split_off(titles.len().saturating_sub(1).min(fields.len())).join(" ");
        let mut row: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        row.push(last);
        Some(row)
    });
    Some((titles.clone(), rows.collect()))
}

fn process(pid: i32) -> Option<Vec<String>> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| std::fs::read(directory.join(name)).ok();
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    let (name, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let ticks = (number(11) + number(12)) / 100;
    let command = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ").trim().to_owned();
    let command = match command.as_str() {
        "" => format!("[{}]", name.split_once('(').map_or("", |(_, name)| name)),
        _ => command,
    };
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&directory).ok()?);
    Some(vec![
        user(uid),
        pid.to_string(),
        number(1).to_string(),
        "0".to_owned(),
        started(&fields),
        terminal(number(4)),
        format!("{:02}:{:02}:{:02}", ticks / 3600, ticks / 60 % 60, ticks % 60),
        command,
    ])
}

fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = uid.to_string();
    let name = passwd.lines().find_map(|row| {
        let mut fields = row.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.unwrap_or(id)
}

/// Hours and minutes of a process's start.
fn started(fields: &[&str]) -> String {
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot: i64 = boot
        .lines()
        .find_map(|row| row.strip_prefix("btime "))
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let ticks: i64 = fields.get(19).and_then(|field| field.parse().ok()).unwrap_or(0);
    let seconds = boot + ticks / 100;
    format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

fn terminal(device: u64) -> String {
    match (device >> 8, device & 0xff) {
        (0, _) => "?".to_owned(),
        (136..=143, minor) => format!("pts/{minor}"),
        (major, minor) => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_others_are_left_out_and_commands_keep_their_spaces() {
        let text = "  PID USER  COMMAND\n    7 root  sleep 10\n    8 root  other\n";
        let (titles, rows) = read_table(text, &[7]).unwrap();
        assert_eq!(titles, ["PID", "USER", "COMMAND"]);
        assert_eq!(rows, [["7", "root", "sleep 10"]]);
        assert!(read_table("USER\nroot\n", &[7]).is_none());
    }
}
