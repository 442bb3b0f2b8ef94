//! Names of images as the docker CLI reads them: the same texts are names, and mean the same image.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use minke_common_model::image_reference::ImageReference;

/// Notes which image the CLI asks for, and has none.
fn listen(socket: &Path) -> Arc<Mutex<Option<String>>> {
    let asked = Arc::new(Mutex::new(None));
    let listener = UnixListener::bind(socket).unwrap();
    let note = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &note);
        }
    });
    asked
}

fn answer(mut stream: UnixStream, asked: &Mutex<Option<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let body = "{\"message\":\"none here\"}";
    let (status, body) = match request.contains("/images/create?") {
        true => {
            *asked.lock().unwrap() = Some(request);
            ("404 Not Found", body)
        }
        false => ("200 OK", "{}"),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn parameter(request: &str, name: &str) -> String {
    let query = request.split(['?', ' ']).nth(2).unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    let value = value.unwrap_or_default();
    value.replace("%2F", "/").replace("%3A", ":").replace("%5B", "[").replace("%5D", "]")
}

/// The name that the docker CLI makes of a text, if it is one for it.
fn docker(socket: &Path, asked: &Mutex<Option<String>>, text: &str) -> Option<String> {
    *asked.lock().unwrap() = None;
    let output = Command::new("docker")
        .args(["-H", &format!("unix://{}", socket.display()), "pull", "--quiet", "--", text])
        .env("DOCKER_CONFIG", socket.parent().unwrap())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let request = asked.lock().unwrap().take()?;
    let (name, tag) = (parameter(&request, "fromImage"), parameter(&request, "tag"));
    let between = if tag.contains(':') { '@' } else { ':' };
    Some(format!("{name}{between}{tag}"))
}

fn ours(text: &str) -> Option<String> {
    let reference = text.parse::<ImageReference>().ok()?.with_default_tag();
    Some(match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    })
}

#[test]
fn the_same_texts_are_names_and_mean_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let asked = listen(&socket);
    let digest = format!("sha256:{}", "ab".repeat(32));
    let hosts = [
        "",
        "localhost/",
        "localhost:5000/",
        "r.example/",
        "[::1]:80/",
        "UPPER/",
        "a_b/",
        "host-/",
    ];
    let paths = [
        "a",
        "a/b",
        "a/b/c",
        "a..b",
        "a__b",
        "a___b",
        "a--b",
        "a.-b",
        "a_-b",
        "-a",
        "a-",
        "A",
        "a/B",
        "",
        "library/a",
        "0",
    ];
    let tails =
        ["", ":1", ":A_b.c-d", ":.x", ":", ":-x", "@DIGEST", ":1@DIGEST", "@sha256:12", "@"];
    let mut texts: Vec<String> = Vec::new();
    // Each host, path and tail with something ordinary, and some of every combination.
    for (number, host) in hosts.iter().enumerate() {
        for (other, path) in paths.iter().enumerate() {
            for (third, tail) in tails.iter().enumerate() {
                let plain = [number == 0, other == 0, third == 0];
                let ordinary = plain.iter().filter(|is| **is).count() >= 2;
                if ordinary || (number * 7 + other * 5 + third * 3) % 41 == 0 {
                    texts.push(format!("{host}{path}{tail}").replace("DIGEST", &digest));
                }
            }
        }
    }
    let long = [
        "a".repeat(255),
        "a".repeat(256),
        format!("a:{}", "t".repeat(128)),
        format!("a:{}", "t".repeat(129)),
        "ab".repeat(32),
        format!("x/{}", "ab".repeat(32)),
        "docker.io/a".to_owned(),
        "index.docker.io/a".to_owned(),
        "docker.io/library/a:b".to_owned(),
        "a b".to_owned(),
        "a\u{e4}".to_owned(),
        "http://a/b".to_owned(),
        "/a".to_owned(),
        "a//b".to_owned(),
    ];
    texts.extend(long);
    for text in texts {
        assert_eq!(ours(&text), docker(&socket, &asked, &text), "{text:?}");
    }
}
