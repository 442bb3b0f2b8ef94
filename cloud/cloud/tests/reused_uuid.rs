//! A device whose row is gone is nobody's, also where somebody else has its uuid now.

mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use server::{Client, PASSWORD, Server, program};

fn connect(client: &Client) -> TcpStream {
    let stream = TcpStream::connect(client.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends the head of a request; gives the status of the answer.
fn status(stream: &mut TcpStream, head: &str) -> u16 {
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A device dials in and then says nothing.
fn dial(uuid: &str, device: &Client) -> TcpStream {
    let mut stream = connect(device);
    let head = format!(
        "GET /tunnel?uuid={uuid}&v=1 HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         authorization: Bearer {}\r\n\r\n",
        device.token
    );
    assert_eq!(status(&mut stream, &head), 101);
    stream
}

/// Somebody wants to reach a port of the device; gives the status.
fn reach(uuid: &str, who: &Client) -> u16 {
    let basic = who.request(Method::GET, "/").basic_auth("me", Some(&who.token)).build().unwrap();
    let basic = basic.headers().get_all("authorization").iter().next_back().unwrap();
    let target = format!("{uuid}.balena:22222");
    let head = format!(
        "CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nproxy-authorization: {}\r\n\r\n",
        basic.to_str().unwrap()
    );
    status(&mut connect(who), &head)
}

/// Waits until the row of the device says that it is connected.
async fn connected(uuid: &str, owner: &Client) {
    let path = format!("/v7/device(uuid='{uuid}')?$select=is_connected_to_vpn");
    let begun = Instant::now();
    while owner.get(&path).await.expect(200).json()["d"][0]["is_connected_to_vpn"] != json!(true) {
        assert!(begun.elapsed().as_secs() < 60, "it is not connected");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tunnel_of_a_deleted_device_does_not_lead_its_next_owner_to_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let ann = Client::log_in(&server.url, PASSWORD).await;
    let mut command = program();
    command.args(["admin", "--data"]).arg(data.path());
    command.args(["create-user", "--email", "bob@example.org"]).env("MINKE_PASSWORD", PASSWORD);
    assert!(command.output().unwrap().status.success());
    let login = json!({"username": "bob", "password": PASSWORD});
    let token = Client::with_token(&server.url, "").post("/login_", &login).await.expect(200).text;
    let bob = Client::with_token(&server.url, &token);

    let fleet = ann.fleet("weather").await;
    let (uuid, device) = ann.device(fleet).await;
    let tunnel = dial(&uuid, &device);
    connected(&uuid, &ann).await;
    let path = format!("/v7/device(uuid='{uuid}')");
    Client::send(ann.request(Method::DELETE, &path)).await.expect(200);
    let theirs = bob.fleet("garden").await;
    let row = json!({"application": theirs, "device_type": "qemux86-64", "uuid": uuid});
    let key = bob.post("/device/register", &row).await.expect(201).json()["api_key"].clone();
    assert_eq!(reach(&uuid, &bob), 403);
    let call = json!({"uuid": uuid, "method": "GET"});
    bob.post("/supervisor/ping", &call).await.expect(404);
    drop(tunnel);

    // Bob's own machine is asked, and his row says that it is there. That it goes away then is another
    // answer.
    let own = dial(&uuid, &Client::with_token(&server.url, key.as_str().unwrap()));
    connected(&uuid, &bob).await;
    let asking = std::thread::spawn(move || reach(&uuid, &bob));
    (&own).read_exact(&mut [0; 1]).unwrap();
    drop(own);
    assert!([502, 503, 504].contains(&asking.join().unwrap()));
}
