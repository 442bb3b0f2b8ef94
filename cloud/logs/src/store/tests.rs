use super::*;

fn key() -> DeviceKey {
    DeviceKey { id: 7, uuid: "aabb".to_owned() }
}

fn entries(numbers: std::ops::Range<i64>) -> Vec<Entry> {
    numbers
        .map(|number| Entry {
            message: format!("line {number}"),
            created_at: number,
            timestamp: number,
            is_system: false,
            is_std_err: false,
            service_id: None,
        })
        .collect()
}

fn small(directory: &Path) -> Logs {
    let options = Options { history: 10, follow_buffer: 4, open_devices: 2, ..Options::default() };
    Logs::open(directory, options).unwrap()
}

fn numbers(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.created_at).collect()
}

#[test]
fn the_last_entries_survive_a_restart_and_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    for from in (0..95).step_by(3) {
        let logs = small(directory.path());
        logs.append(&key(), entries(from..from + 3)).unwrap();
        let expected: Vec<i64> = ((from + 3 - 10).max(0)..from + 3).collect();
        assert_eq!(numbers(&logs.history(&key(), 1000, None).unwrap()), expected);
    }
    let logs = small(directory.path());
    assert_eq!(numbers(&logs.history(&key(), 2, None).unwrap()), [94, 95]);
    assert_eq!(numbers(&logs.history(&key(), 10, Some(93)).unwrap()), [93, 94, 95]);
    let bytes: u64 = walk(directory.path());
    assert!(bytes < 20 * 120, "{bytes} bytes kept for 20 short entries");
}

fn walk(path: &Path) -> u64 {
    fs::read_dir(path)
        .unwrap()
        .flatten()
        .map(|entry| match entry.metadata().unwrap() {
            data if data.is_dir() => walk(&entry.path()),
            data => data.len(),
        })
        .sum()
}

#[test]
fn a_batch_larger_than_the_history_keeps_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let logs = small(directory.path());
    logs.append(&key(), entries(0..57)).unwrap();
    assert_eq!(numbers(&logs.history(&key(), 1000, None).unwrap()), (47..57).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_follower_sees_history_then_everything_new_and_is_told_what_it_missed() {
    let directory = tempfile::tempdir().unwrap();
    let logs = small(directory.path());
    logs.append(&key(), entries(0..3)).unwrap();
    let (history, mut follow) = logs.follow(&key(), 2, None).unwrap();
    assert_eq!(numbers(&history), [1, 2]);
    logs.append(&key(), entries(3..5)).unwrap();
    for number in 3..5 {
        let Some(Followed::Entry(entry)) = follow.next().await else { panic!() };
        assert_eq!(entry.created_at, number);
    }
    logs.append(&key(), entries(5..15)).unwrap();
    assert_eq!(follow.next().await, Some(Followed::Missed(6)));
}

#[tokio::test]
async fn a_followed_log_stays_open_when_many_others_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let logs = small(directory.path());
    let (_, mut follow) = logs.follow(&key(), 0, None).unwrap();
    use_many_others(&logs);
    assert!(lock(&logs.shared.devices).len() <= 4);
    logs.append(&key(), entries(0..1)).unwrap();
    assert!(matches!(follow.next().await, Some(Followed::Entry(_))));
}

/// Opens the logs of more devices than may be open.
fn use_many_others(logs: &Logs) {
    for id in 100..120 {
        let other = DeviceKey { id, uuid: "cc".to_owned() };
        logs.append(&other, entries(0..1)).unwrap();
        logs.sync(&other).unwrap();
    }
}

#[test]
fn a_log_stays_open_until_what_was_appended_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let logs = small(directory.path());
    let is_open = |device: &DeviceKey| lock(&logs.shared.devices).contains_key(device);
    let broken_off = DeviceKey { id: 8, uuid: "bb".to_owned() };
    for device in [&key(), &broken_off] {
        logs.append(device, entries(0..3)).unwrap();
    }
    use_many_others(&logs);
    assert!(is_open(&key()) && is_open(&broken_off), "a sync would find nothing to do");
    logs.sync(&key()).unwrap();
    use_many_others(&logs);
    assert!(!is_open(&key()) && is_open(&broken_off));
    // Of a stream that broke off nobody asks again.
    logs.sweep(SystemTime::now()).unwrap();
    use_many_others(&logs);
    assert!(!is_open(&broken_off));
}

#[test]
fn a_device_that_takes_over_a_number_or_a_uuid_sees_nothing_of_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let logs = small(directory.path());
    logs.append(&key(), entries(0..3)).unwrap();
    for other in
        [DeviceKey { id: 7, uuid: "ccdd".to_owned() }, DeviceKey { id: 8, uuid: "aabb".to_owned() }]
    {
        assert!(logs.history(&other, 10, None).unwrap().is_empty());
    }
    let outside = DeviceKey { id: 7, uuid: "../x".to_owned() };
    assert!(matches!(logs.append(&outside, entries(0..1)), Err(LogError::Uuid(_))));
}

#[test]
fn what_nothing_is_added_to_goes_after_the_retention() {
    let directory = tempfile::tempdir().unwrap();
    let logs = small(directory.path());
    logs.append(&key(), entries(0..3)).unwrap();
    assert_eq!(logs.sweep(SystemTime::now()).unwrap(), 0);
    let later = SystemTime::now() + Options::default().retention + Duration::from_secs(60);
    assert_eq!(logs.sweep(later).unwrap(), 1);
    assert!(logs.history(&key(), 10, None).unwrap().is_empty());
    logs.append(&key(), entries(3..4)).unwrap();
    assert_eq!(numbers(&logs.history(&key(), 10, None).unwrap()), [3]);
}
