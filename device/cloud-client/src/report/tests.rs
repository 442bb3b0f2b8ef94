use serde_json::json;

use super::*;
use crate::fake_cloud::{FakeCloud, Fault, device};
use crate::provision;

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn only_what_changed_is_said_and_what_is_gone_is_null() {
    let before = map(json!({"status": "Idle", "cpu_temp": 40, "apps": {"a": 1}}));
    let now = map(json!({"status": "Idle", "apps": {"a": 2}}));
    assert_eq!(difference(&before, &now), map(json!({"apps": {"a": 2}, "cpu_temp": null})));
    let acknowledged = map(json!({"status": "Idle", "apps": {"a": 2}}));
    assert!(difference(&acknowledged, &now).is_empty());
}

#[test]
fn progress_alone_weighs_less_than_a_change_of_status() {
    let apps = |status: &str, progress: u32| {
        map(
            json!({"apps": {"a": {"releases": {"c": {"services": {"web": {"status": status, "download_progress": progress}}}}}}}),
        )
    };
    let of = |before: &Map<_, _>, now: &Map<_, _>| weight(before, &difference(before, now));
    assert_eq!(of(&apps("Downloading", 1), &apps("Downloading", 50)), Weight::Progress);
    assert_eq!(of(&apps("Downloading", 99), &apps("Running", 100)), Weight::Change);
    let warm = map(json!({"cpu_temp": 40}));
    assert_eq!(of(&warm, &map(json!({"cpu_temp": 60}))), Weight::Metrics);
}

#[tokio::test(start_paused = true)]
async fn changes_go_soon_and_the_average_stays_at_ten_seconds() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    let mut now = start;
    let mut sent = Vec::new();
    for _ in 0..20 {
        now = pace.allowed_at(Weight::Change, now, None).due;
        pace.sent(now);
        sent.push((now - start).as_secs());
    }
    assert_eq!(sent[..6], [0, 1, 2, 3, 10, 20]);
    assert!(sent[19] >= 160, "{sent:?}");
    let metrics = |pace: &mut Pace, tunnel| pace.allowed_at(Weight::Metrics, now, tunnel);
    assert_eq!(metrics(&mut pace, None).due, now + METRICS.alone);
    let until = now + Duration::from_secs(600);
    let with_a_tunnel = Next { due: now + METRICS.connected, think: until };
    assert_eq!(metrics(&mut pace, Some(until)), with_a_tunnel);
}

#[tokio::test]
async fn what_happened_while_the_server_was_away_is_said_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    let http = device(dir.path(), &cloud.url());
    let uuid = provision(&http).await.unwrap().uuid;
    cloud.with(|cloud| cloud.faults.extend([Fault::Status(503), Fault::After]));
    let (sender, receiver) = watch::channel(DeviceReport {
        status: Some("Updating".into()),
        os_version: Some("Test 1".into()),
        ..DeviceReport::default()
    });
    let task =
        tokio::spawn(Reporter::new(http, uuid.clone()).run(receiver, TunnelLease::default()));
    wait_until(|| cloud.with(|cloud| cloud.reports.len() == 1)).await;
    sender.send_modify(|report| report.status = Some("Idle".into()));
    wait_until(|| cloud.with(|cloud| cloud.reports.len() == 2)).await;
    // The answer to the first was lost, so the second says all of it again.
    let last = cloud.with(|cloud| cloud.reports[1][uuid.as_str()].clone());
    assert_eq!(last, json!({"status": "Idle", "os_version": "Test 1"}));
    drop(sender);
    task.await.unwrap();
}

#[tokio::test]
async fn a_page_that_a_redirect_names_acknowledges_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = FakeCloud::start().await;
    let http = device(dir.path(), &cloud.url());
    let uuid = provision(&http).await.unwrap().uuid;
    // This one makes a GET of every request.
    cloud.with(|cloud| cloud.faults.push_back(Fault::Redirect(303)));
    let report = DeviceReport { status: Some("Idle".into()), ..DeviceReport::default() };
    let (sender, receiver) = watch::channel(report);
    let reporter = Reporter::new(http, uuid.clone());
    let task = tokio::spawn(reporter.run(receiver, TunnelLease::default()));
    wait_until(|| cloud.with(|cloud| cloud.reports.len() == 1)).await;
    let said = cloud.with(|cloud| cloud.reports[0][uuid.as_str()].clone());
    assert_eq!(said, json!({"status": "Idle"}));
    drop(sender);
    task.await.unwrap();
}

async fn wait_until(is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("it never came true");
}
