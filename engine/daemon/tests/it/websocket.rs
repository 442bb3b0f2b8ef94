//! Attaching over a WebSocket.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::support::Site;

fn attach(site: &Site, container: &str, query: &str) -> WebSocket<UnixStream> {
    let stream = UnixStream::connect(site.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let address = format!("ws://engine/v1.47/containers/{container}/attach/ws?{query}");
    tungstenite::client(address, stream).unwrap().0
}

/// What comes until the engine closes.
fn read_all(socket: &mut WebSocket<UnixStream>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => all.extend_from_slice(&bytes),
            Ok(Message::Close(_)) | Err(_) => return all,
            Ok(_) => {}
        }
    }
}

#[test]
fn both_directions_flow_at_once_and_nothing_is_lost() {
    const ALL: usize = 8 << 20;
    let site = Site::new();
    let echo = format!("head -c {ALL}");
    site.docker(&["create", "-i", "--name", "box", "busybox", "sh", "-c", &echo]).ok();
    let mut reader = attach(&site, "box", "stream=1&stdin=1&stdout=1");
    site.docker(&["start", "box"]).ok();
    let writing = reader.get_ref().try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let mut writer = WebSocket::from_raw_socket(writing, Role::Client, None);
        for number in 0..ALL / 65536 {
            writer.send(Message::Binary(vec![number as u8; 65536].into())).unwrap();
        }
    });
    let back = read_all(&mut reader);
    writer.join().unwrap();
    assert_eq!(back.len(), ALL);
    assert!(back.chunks(65536).enumerate().all(|(number, it)| it[0] == number as u8));
}

#[test]
fn what_was_said_before_is_replayed_and_keys_detach() {
    let site = Site::new();
    site.docker(&["run", "-dit", "--name", "term", "busybox", "sh", "-c", "echo early; cat"]).ok();
    crate::support::wait_until("the log", || {
        site.docker(&["logs", "term"]).stdout.contains("early").then_some(())
    });
    let query = "logs=1&stream=1&stdin=1&stdout=1&detachKeys=ctrl-x";
    let mut socket = attach(&site, "term", query);
    socket.send(Message::Binary(b"typed\r".to_vec().into())).unwrap();
    let mut seen = String::new();
    while seen.matches("typed").count() < 2 {
        seen.push_str(&socket.read().unwrap().into_text().unwrap());
    }
    assert!(seen.starts_with("early\r\n"), "{seen:?}");
    socket.send(Message::Binary(vec![0x18].into())).unwrap();
    read_all(&mut socket);
    let running = ["inspect", "-f", "{{.State.Running}}", "term"];
    assert_eq!(site.docker(&running).ok(), "true\n");
    site.docker(&["rm", "-f", "term"]).ok();
}
