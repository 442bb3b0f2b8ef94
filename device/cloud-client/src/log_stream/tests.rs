use super::*;
use crate::fake_cloud::{FakeCloud, Fault, device};
use crate::provision;

fn line(message: &str) -> LogLine {
    LogLine {
        message: message.into(),
        timestamp: 5,
        is_system: false,
        is_std_err: true,
        service_id: Some(ServiceId::new(9)),
    }
}

async fn ready(dir: &Path) -> (FakeCloud, CloudHttp, DeviceUuid) {
    let cloud = FakeCloud::start().await;
    let http = device(dir, &cloud.url());
    let uuid = provision(&http).await.unwrap().uuid;
    (cloud, http, uuid)
}

fn messages(cloud: &FakeCloud) -> Vec<String> {
    cloud.with(|cloud| {
        cloud.log_lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    })
}

#[tokio::test]
async fn lines_arrive_in_order_and_the_disk_is_empty_after() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, http, uuid) = ready(dir.path()).await;
    let (stream, sink) = LogStream::new(http, uuid, &dir.path().join("spool")).unwrap();
    let task = tokio::spawn(stream.run());
    for number in 0..2000 {
        sink.push([line(&format!("line {number}"))]);
    }
    drop(sink);
    task.await.unwrap();
    let expected: Vec<_> = (0..2000).map(|number| format!("line {number}")).collect();
    assert_eq!(messages(&cloud), expected);
    let first = cloud.with(|cloud| cloud.log_lines[0].clone());
    let wire =
        serde_json::json!({"message": "line 0", "timestamp": 5, "isStdErr": true, "serviceId": 9});
    assert_eq!(first, wire);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("spool")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the position is left: {left:?}");
}

#[tokio::test]
async fn lines_of_the_time_offline_and_of_a_process_before_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, http, uuid) = ready(dir.path()).await;
    let spool = dir.path().join("spool");
    cloud.with(|cloud| cloud.faults.extend([Fault::Status(503); 2]));
    let (stream, sink) = LogStream::new(http.clone(), uuid.clone(), &spool).unwrap();
    let task = tokio::spawn(stream.run());
    sink.push([line("offline 1")]);
    let asked = async {
        while cloud.with(|cloud| cloud.requests.len()) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap();
    task.abort();
    let _ = task.await;

    let (stream, sink) = LogStream::new(http, uuid, &spool).unwrap();
    sink.push([line("online 2")]);
    let task = tokio::spawn(stream.run());
    tokio::time::timeout(Duration::from_secs(60), async {
        while messages(&cloud) != ["offline 1", "online 2"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:?}", messages(&cloud)));
    task.abort();
}

#[tokio::test]
async fn lines_that_the_disk_did_not_take_are_counted_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, http, uuid) = ready(dir.path()).await;
    let spool = dir.path().join("spool");
    let (stream, sink) = LogStream::new(http, uuid, &spool).unwrap();
    std::fs::remove_dir_all(&spool).unwrap();
    sink.push([line("lost 1"), line("lost 2")]);
    std::fs::create_dir(&spool).unwrap();
    sink.push([line("kept")]);
    let task = tokio::spawn(stream.run());
    drop(sink);
    task.await.unwrap();
    let expected = ["Warning: Suppressed 2 message(s) due to high load", "kept"];
    assert_eq!(messages(&cloud), expected);
}

#[test]
fn a_long_message_is_cut_and_says_so() {
    let bytes = encode(line(&"ä".repeat(20_000)));
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let message = value["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), 10_005);
    assert!(message.ends_with("ä[...]"));
}
