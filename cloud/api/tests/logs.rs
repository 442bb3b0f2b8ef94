//! Logs in, kept, and out again.

mod world;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use world::{World, send, wait_for};

/// A body that grows while the test runs.
fn growing() -> (mpsc::Sender<Vec<u8>>, Body) {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(8);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(chunk), receiver))
    });
    (sender, Body::wrap_stream(stream))
}

fn messages(entries: &Value) -> Vec<String> {
    let entries = entries.as_array().unwrap().iter();
    entries.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_stream_is_readable_at_once_and_answered_at_its_end() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let (chunks, body) = growing();
    let path = format!("/device/v2/{}/log-stream", device.uuid);
    let request = world
        .request(Method::POST, &path, &device.key)
        .header("content-type", "application/x-ndjson")
        .header("content-encoding", "gzip")
        .body(body);
    let sending = tokio::spawn(send(request));
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    for number in 0..3 {
        let line = json!({"message": format!("line {number}"), "timestamp": 1000 + number,
            "isSystem": number == 0, "isStdErr": number == 1, "serviceId": 7});
        writeln!(packer, "{line}").unwrap();
    }
    packer.flush().unwrap();
    chunks.send(std::mem::take(packer.get_mut())).await.unwrap();
    let read = format!("/device/v2/{}/logs", device.uuid);
    wait_for("the lines of a stream that goes on", async || {
        messages(&world.get(&read, &world.ann.token).await.json()).len() == 3
    })
    .await;
    assert!(!sending.is_finished(), "answered before the end, which devices take for a failure");
    drop(chunks);
    // Ended without the end of the gzip stream, as after a power cut: kept all the same.
    sending.await.unwrap().expect(201);
    let entries = world.get(&read, &world.ann.token).await.expect(200).json();
    assert_eq!(messages(&entries), ["line 0", "line 1", "line 2"]);
    let second = &entries[1];
    assert_eq!((&second["timestamp"], &second["isStdErr"]), (&json!(1001), &json!(true)));
    assert_eq!((&second["isSystem"], &second["serviceId"]), (&json!(false), &json!(7)));
    assert!(second["createdAt"].as_i64().unwrap() > 1_700_000_000_000);
    let last = world.get(&format!("{read}?count=1"), &world.ann.token).await.json();
    assert_eq!(messages(&last), ["line 2"]);
}

#[tokio::test]
async fn a_reader_of_the_stream_gets_history_and_what_comes() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let path = format!("/device/v2/{}/logs", device.uuid);
    let line = |text: &str| json!([{"message": text, "timestamp": 5}]);
    world.post(&path, &device.key, &line("old")).await.expect(201);
    let request = world.request(Method::GET, &format!("{path}?stream=1&count=5"), &world.ann.token);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    for new in ["old", "new", "newer"] {
        if new != "old" {
            world.post(&path, &device.key, &line(new)).await.expect(201);
        }
        while !text.contains(&format!("\"{new}\"")) {
            text.push_str(str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    }
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 3);
}

#[tokio::test]
async fn logs_are_the_devices_to_write_and_its_people_to_read() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let (device, other) = (world.device(fleet).await, world.device(fleet).await);
    let path = format!("/device/v2/{}/logs", device.uuid);
    let stream = format!("/device/v2/{}/log-stream", device.uuid);
    let body = json!([{"message": "x"}]);
    for key in [&other.key, &world.ann.token, &world.bob.token, ""] {
        world.post(&path, key, &body).await.expect(401);
        let request = world.request(Method::POST, &stream, key);
        send(request.header("content-type", "application/x-ndjson").body("{}")).await.expect(401);
    }
    world.get(&path, &world.bob.token).await.expect(401);
    world.get(&path, &other.key).await.expect(401);
    assert_eq!(world.get(&path, &world.ann.token).await.json(), json!([]));
}

#[tokio::test]
async fn what_is_no_log_is_refused_and_what_came_before_it_kept() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let path = format!("/device/v2/{}/logs", device.uuid);
    let stream = format!("/device/v2/{}/log-stream", device.uuid);
    let post = |kind: &'static str, coding: &'static str, body: &'static str| {
        let request = world.request(Method::POST, &stream, &device.key);
        send(request.header("content-type", kind).header("content-encoding", coding).body(body))
    };
    let ndjson = "application/x-ndjson";
    post("application/json", "identity", "{}").await.expect(415);
    post(ndjson, "br", "{}").await.expect(415);
    post(ndjson, "gzip", "this is text, not gzip").await.expect(400);
    post(ndjson, "identity", "{\"message\":\"kept\"}\n{\"no\":1}\n").await.expect(400);
    let entries = world.get(&path, &world.ann.token).await.json();
    assert_eq!(messages(&entries), ["kept"]);

    let eleven: Vec<Value> = (0..11).map(|n| json!({"message": n.to_string()})).collect();
    let answer = world.post(&path, &device.key, &json!(eleven)).await.expect(400);
    assert!(answer.text.contains("10"), "{}", answer.text);
    world.post(&path, &device.key, &json!([{"message": 5}])).await.expect(400);
    for _ in 0..13 {
        world.post(&path, &device.key, &json!([])).await.expect(201);
    }
    world.post(&path, &device.key, &json!([])).await.expect(429);
    world.get(&format!("{path}?count=x"), &world.ann.token).await.expect(400);
}

#[tokio::test]
async fn a_stream_of_more_lines_than_are_written_at_once_is_kept_whole_and_in_order() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    for number in 0..12_000 {
        writeln!(packer, r#"{{"message":"{number}"}}"#).unwrap();
    }
    let path = format!("/device/v2/{}/log-stream", device.uuid);
    let request = world
        .request(Method::POST, &path, &device.key)
        .header("content-type", "application/x-ndjson")
        .header("content-encoding", "gzip")
        .body(packer.finish().unwrap());
    send(request).await.expect(201);
    let read = format!("/device/v2/{}/logs", device.uuid);
    let entries = world.get(&read, &world.ann.token).await.expect(200).json();
    let expected: Vec<String> = (11_000..12_000).map(|number: i32| number.to_string()).collect();
    assert_eq!(messages(&entries), expected);
}

#[tokio::test]
async fn a_reader_that_comes_again_gets_everything_since_the_line_it_saw_last() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let path = format!("/device/v2/{}/logs", device.uuid);
    let write = async |text: &str| {
        world.post(&path, &device.key, &json!([{"message": text}])).await.expect(201);
    };
    write("first").await;
    // The next line is of another millisecond.
    let seen = world.get(&path, &world.ann.token).await.json()[0]["createdAt"].as_i64().unwrap();
    wait_for("the clock", async || jiff::Timestamp::now().as_millisecond() > seen).await;
    for text in ["second", "third"] {
        write(text).await;
    }
    let entries = world.get(&path, &world.ann.token).await.json();
    let start = entries[1]["createdAt"].as_i64().unwrap();
    let query = format!("{path}?stream=1&count=all&start={start}");
    let response = world.request(Method::GET, &query, &world.ann.token).send().await.unwrap();
    write("fourth").await;
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    while !text.contains("\"fourth\"") {
        text.push_str(str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(messages(&json!(lines)), ["second", "third", "fourth"]);
}
