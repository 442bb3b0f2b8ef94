//! Health checks: the daemon runs them as execs and keeps what they find in the state document.

use std::sync::Arc;
use std::time::{Duration, Instant};

use minke_engine_client::wire::{CreateExec, Health, HealthConfig, HealthResult};

use super::container::Container;
use super::document::Status;
use super::exec;
use crate::daemon::Daemon;
use crate::stamp;

const SECOND: i64 = 1_000_000_000;
/// Most bytes of output that a result keeps.
const OUTPUT: usize = 4096;
/// Results that are kept.
const KEPT: usize = 5;
/// The exit code that stands for "did not end in time".
const TIMED_OUT: i64 = -1;

/// A check with its defaults filled in.
struct Check {
    command: Vec<String>,
    interval: Duration,
    start_interval: Duration,
    timeout: Duration,
    start_period: Duration,
    retries: i64,
}

impl Check {
    fn of(config: &HealthConfig, shell: Option<&[String]>) -> Option<Check> {
        let (kind, rest) = config.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let default = ["/bin/sh".to_owned(), "-c".to_owned()];
                let mut command = shell.unwrap_or(&default).to_vec();
                command.extend_from_slice(rest);
                command
            }
            _ => return None,
        };
        let or = |value: i64, default: i64| {
            Duration::from_nanos(if value > 0 { value } else { default }.unsigned_abs())
        };
        Some(Check {
            command,
            interval: or(config.interval, 30 * SECOND),
            start_interval: or(config.start_interval, 5 * SECOND),
            timeout: or(config.timeout, 30 * SECOND),
            start_period: Duration::from_nanos(config.start_period.max(0).unsigned_abs()),
            retries: if config.retries > 0 { config.retries } else { 3 },
        })
    }

    /// Whether a container that runs since then is in its start period.
    fn is_start(&self, since: Option<Instant>, now: Instant) -> bool {
        since.is_some_and(|since| now.saturating_duration_since(since) < self.start_period)
    }
}

/// Begins the checks of a container that has just started, or that a new daemon has found running.
pub(crate) fn begin(daemon: &Daemon, container: &Arc<Container>) {
    let check = {
        let mut cell = container.lock();
        let config = &cell.config.config;
        let check = config
            .healthcheck
            .as_ref()
            .and_then(|health| Check::of(health, config.shell.as_deref()));
        if check.is_some() && cell.state.health.is_none() {
            let status = "starting".to_owned();
            cell.state.health = Some(Health { status, ..Health::default() });
        }
        check
    };
    let Some(check) = check else { return };
    let (daemon, owner) = (daemon.clone(), container.clone());
    let task = tokio::spawn(async move { run(&daemon, &owner, &check).await });
    container.lock().tasks.health = Some(task.abort_handle());
}

async fn run(daemon: &Daemon, container: &Arc<Container>, check: &Check) {
    loop {
        let starting = {
            let cell = container.lock();
            let still = cell.state.health.as_ref().is_some_and(|h| h.status == "starting");
            still && check.is_start(cell.running_since, Instant::now())
        };
        let pause =
            if starting { check.start_interval.min(check.interval) } else { check.interval };
        tokio::time::sleep(pause).await;
        match container.status() {
            Status::Running => {}
            // What stands still cannot answer, and is not ill for that.
            Status::Paused => continue,
            _ => return,
        }
        let still = container.lock().still;
        if still.now {
            continue;
        }
        let begun = Instant::now();
        let result = probe(daemon, container, check).await;
        // What stood still in between may be late for that alone.
        let went_on = container.lock().still == still;
        if went_on && container.status() == Status::Running {
            take_in(daemon, container, check, begun, result);
        }
    }
}

async fn probe(daemon: &Daemon, container: &Arc<Container>, check: &Check) -> HealthResult {
    let start = stamp::now();
    let body = CreateExec {
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(check.command.clone()),
        ..CreateExec::default()
    };
    let run = exec::run_to_end(daemon, container, body, OUTPUT);
    let (exit_code, output) = match tokio::time::timeout(check.timeout, run).await {
        Ok(Ok((code, output))) => (code, String::from_utf8_lossy(&output).into_owned()),
        Ok(Err(error)) => (TIMED_OUT, error.message()),
        Err(_) => (TIMED_OUT, format!("Health check exceeded timeout ({:?})", check.timeout)),
    };
    HealthResult {
        start: stamp::rfc3339(start),
        end: stamp::rfc3339(stamp::now()),
        exit_code,
        output,
    }
}

/// Works the result of a check that began then into the state; a change of status is published.
fn take_in(
    daemon: &Daemon,
    container: &Arc<Container>,
    check: &Check,
    begun: Instant,
    result: HealthResult,
) {
    let (before, health) = {
        let cell = container.lock();
        let health = cell.state.health.clone().unwrap_or_default();
        let forgiving = check.is_start(cell.running_since, begun);
        (health.status.clone(), judge(health, result, check.retries, forgiving))
    };
    let changed = before != health.status;
    if !changed {
        // Results come for ever: only what a new daemon must know costs a write.
        container.lock().state.health = Some(health);
        return;
    }
    let status = health.status.clone();
    container.record_state(|state| state.health = Some(health.clone()));
    let action = format!("health_status: {status}");
    daemon.events.publish("container", &action, &container.id, container.attributes());
}

/// The health after one more result.
fn judge(mut health: Health, result: HealthResult, retries: i64, forgiving: bool) -> Health {
    let good = result.exit_code == 0;
    if health.log.len() == KEPT {
        health.log.remove(0);
    }
    health.log.push(result);
    if good {
        health.failing_streak = 0;
        health.status = "healthy".to_owned();
    } else if !(forgiving && health.status == "starting") {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = "unhealthy".to_owned();
        }
    }
    health
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i64) -> HealthResult {
        HealthResult { exit_code, ..HealthResult::default() }
    }

    #[test]
    fn failures_count_after_the_start_period_and_one_success_heals() {
        let mut health = Health { status: "starting".to_owned(), ..Health::default() };
        health = judge(health, result(1), 2, true);
        assert_eq!((health.status.as_str(), health.failing_streak), ("starting", 0));
        health = judge(health, result(1), 2, false);
        assert_eq!((health.status.as_str(), health.failing_streak), ("starting", 1));
        health = judge(health, result(1), 2, false);
        assert_eq!(health.status, "unhealthy");
        health = judge(health, result(0), 2, false);
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
        for _ in 0..7 {
            health = judge(health, result(0), 2, false);
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn the_start_period_is_over_when_it_has_passed() {
        let config = HealthConfig {
            test: ["CMD", "true"].map(str::to_owned).to_vec(),
            start_period: 60 * SECOND,
            ..HealthConfig::default()
        };
        let check = Check::of(&config, None).unwrap();
        let start = Instant::now();
        let after = |seconds| check.is_start(Some(start), start + Duration::from_secs(seconds));
        assert!(after(0) && after(59) && !after(60));
        assert!(!check.is_start(None, start), "it does not run");
    }

    #[test]
    fn a_check_is_a_command_or_a_line_for_a_shell() {
        let check = |test: &[&str]| {
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            Check::of(&HealthConfig { test, ..HealthConfig::default() }, None)
        };
        assert!(check(&["NONE"]).is_none() && check(&[]).is_none());
        assert_eq!(check(&["CMD", "a", "b"]).unwrap().command, ["a", "b"]);
        let shell = check(&["CMD-SHELL", "a | b"]).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "a | b"]);
        assert_eq!((shell.interval.as_secs(), shell.retries), (30, 3));
    }
}
