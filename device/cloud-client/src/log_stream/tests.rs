use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

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

async fn arrived(cloud: &FakeCloud, expected: &[&str]) {
    let waited = async {
        while messages(cloud) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
    assert!(waited.is_ok(), "{:?}", messages(cloud));
}

#[tokio::test]
async fn lines_arrive_in_order_and_the_disk_is_empty_after() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, http, uuid) = ready(dir.path()).await;
    let (stream, sink) = LogStream::new(http, uuid, &dir.path().join("spool"));
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
    let (stream, sink) = LogStream::new(http.clone(), uuid.clone(), &spool);
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

    let (stream, sink) = LogStream::new(http, uuid, &spool);
    sink.push([line("online 2")]);
    let task = tokio::spawn(stream.run());
    arrived(&cloud, &["offline 1", "online 2"]).await;
    task.abort();
}

#[tokio::test]
async fn lines_that_the_disk_did_not_take_are_counted_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, http, uuid) = ready(dir.path()).await;
    let spool = dir.path().join("spool");
    let (stream, sink) = LogStream::new(http, uuid, &spool);
    std::fs::remove_dir_all(&spool).unwrap();
    std::fs::write(&spool, "in the way").unwrap();
    sink.push([line("lost 1"), line("lost 2")]);
    std::fs::remove_file(&spool).unwrap();
    sink.push([line("kept")]);
    // A request that fails has said nothing; the page that a redirect names has heard nothing.
    cloud.with(|cloud| cloud.faults.extend([Fault::Status(500), Fault::Redirect(302)]));
    let task = tokio::spawn(stream.run());
    arrived(&cloud, &["Warning: Suppressed 2 message(s) due to high load", "kept"]).await;
    drop(sink);
    task.await.unwrap();
}

/// A server that takes connections and never answers; gives its address, and tells how many of them
/// were opened and how many have ended.
async fn silent() -> (String, watch::Receiver<(u32, u32)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (counts, seen) = watch::channel((0, 0));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counts = counts.clone();
            tokio::spawn(async move {
                let mut chunk = [0; 4096];
                // Not counted before something came: the request is on its way then.
                let mut count = socket.read(&mut chunk).await;
                counts.send_modify(|(opened, _)| *opened += 1);
                while count.is_ok_and(|count| count > 0) {
                    count = socket.read(&mut chunk).await;
                }
                counts.send_modify(|(_, ended)| *ended += 1);
            });
        }
    });
    (format!("http://{address}"), seen)
}

fn device_uuid() -> DeviceUuid {
    "aabb".parse().unwrap()
}

#[tokio::test]
async fn a_server_that_never_answers_keeps_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (url, mut seen) = silent().await;
    let http = device(dir.path(), &url);
    let mut reached = async |wanted: (u32, u32)| {
        let reached = seen.wait_for(|seen| *seen == wanted);
        let limit = Duration::from_secs(60);
        let reached = tokio::time::timeout(limit, reached).await.map(|seen| seen.is_ok());
        assert!(reached.is_ok(), "{wanted:?} is never reached, only {:?}", *seen.borrow());
    };
    for number in 0..3 {
        let mut request = Request::open(&http, &device_uuid()).unwrap();
        request.write(&[b"{}".to_vec()]).await;
        reached((number + 1, number)).await;
        // Only the clock ends this one.
        tokio::time::pause();
        request.finish().await.unwrap_err();
        tokio::time::resume();
        reached((number + 1, number + 1)).await;
    }
    // As when the whole stream ends.
    let mut request = Request::open(&http, &device_uuid()).unwrap();
    request.write(&[b"{}".to_vec()]).await;
    reached((4, 3)).await;
    drop(request);
    reached((4, 4)).await;
}

#[tokio::test]
async fn a_server_that_never_reads_holds_the_end_of_a_request_up_for_a_while_only() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = device(dir.path(), &format!("http://{}", listener.local_addr().unwrap()));
    let request = Request::open(&http, &device_uuid()).unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    // Until the buffers of both ends are full, and the queue before them.
    let chunk = Bytes::from(vec![0; 1 << 20]);
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_secs(2), request.chunks.send(Ok(chunk.clone()))).await
    {
        sent.unwrap();
    }
    tokio::time::pause();
    let ended = tokio::time::timeout(ANSWER * 10, request.finish()).await;
    ended.expect("it ends").unwrap_err();
    tokio::time::resume();
    // The connection has ended with it: what was in the buffers, and then no more.
    let mut taken = vec![0; 1 << 20];
    while socket.read(&mut taken).await.is_ok_and(|count| count > 0) {}
}

#[test]
fn a_long_message_is_cut_and_says_so() {
    let bytes = encode(line(&"ä".repeat(20_000)));
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let message = value["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), 10_005);
    assert!(message.ends_with("ä[...]"));
}
