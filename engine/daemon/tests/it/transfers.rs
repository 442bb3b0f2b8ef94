//! Images that move as archives: saved together, loaded elsewhere, and imported from an address.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Served, Site, docker28, image_layer, wait_until};

/// The names of an archive's files, and its manifest.
fn contents(archive: &std::path::Path) -> (Vec<String>, Value) {
    let (mut names, mut manifest) = (Vec::new(), Value::Null);
    let mut tar = tar::Archive::new(File::open(archive).unwrap());
    for entry in tar.entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        if name == "manifest.json" {
            manifest = serde_json::from_reader(entry).unwrap();
        }
        names.push(name);
    }
    (names, manifest)
}

fn layers(site: &Site) -> usize {
    std::fs::read_dir(site.data().join("images/layers")).unwrap().count()
}

#[test]
fn images_that_are_saved_together_share_their_layers_there_and_elsewhere() {
    let site = Site::new();
    for name in ["a", "b"] {
        let file = format!("FROM busybox\nRUN echo {name} > /which\n");
        site.command(&docker28(), &["build", "-qt", name, "-"], file.as_bytes()).ok();
    }
    let archive = site.dir.path().join("both.tar");
    let path = archive.to_str().unwrap();
    site.docker(&["save", "-o", path, "a", "b"]).ok();
    let (names, manifest) = contents(&archive);
    let layers_of = |tag: &str| -> Vec<String> {
        let images = manifest.as_array().unwrap();
        let image = images.iter().find(|image| image["RepoTags"][0] == tag).unwrap();
        let layers = image["Layers"].as_array().unwrap().iter();
        layers.map(|layer| layer.as_str().unwrap().to_owned()).collect()
    };
    let (of_a, of_b) = (layers_of("a:latest"), layers_of("b:latest"));
    assert_eq!((of_a.len(), of_b.len(), &of_a[0]), (2, 2, &of_b[0]), "{manifest}");
    for layer in of_a.iter().chain(&of_b[1..]) {
        assert_eq!(names.iter().filter(|name| *name == layer).count(), 1, "{layer}: {names:?}");
    }
    let other = Site::empty(&[]);
    let said = other.docker(&["load", "-i", path]).ok();
    for name in ["a", "b"] {
        assert!(said.contains(&format!("Loaded image: {name}:latest")), "{said}");
        let which = other.docker(&["run", "--rm", name, "cat", "/which"]).ok();
        assert_eq!(which, format!("{name}\n"));
        let id = |site: &Site| site.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
        assert_eq!(id(&other), id(&site));
    }
    assert_eq!(layers(&other), 3);
}

#[test]
fn an_image_is_imported_from_an_address() {
    let site = Site::empty(&[]);
    let root = site.dir.path().join("served");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("layer.tar"), image_layer()).unwrap();
    let served = Served::new(&root);
    let import = |file: &str, name: &str| {
        site.docker(&["import", &format!("{}/{file}", served.url()), name])
    };
    import("layer.tar", "taken:1").ok();
    assert_eq!(site.docker(&["run", "--rm", "taken:1", "/bin/echo", "here"]).ok(), "here\n");
    let comment = site.docker(&["inspect", "-f", "{{.Comment}}", "taken:1"]).ok();
    assert!(comment.contains(&served.url()), "{comment}");
    let missing = import("nothing.tar", "taken:2");
    assert!(missing.code != 0 && missing.stderr.contains("404"), "{missing:?}");
    assert_eq!(site.docker(&["images", "-q"]).ok().lines().count(), 1);
}

/// Serves the beginning of an archive, and the rest of it so slowly that it never ends, to one client; its
/// address, and what tells that the client has gone.
fn dripping() -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let layer = image_layer();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len());
        let (first, rest) = layer.split_at(20_000);
        stream.write_all(&[head.as_bytes(), first].concat()).unwrap();
        for byte in rest {
            std::thread::sleep(Duration::from_millis(20));
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let _ = sender.send(());
    });
    (format!("http://{address}/layer.tar"), receiver)
}

#[test]
fn an_import_ends_with_whoever_asked_for_it_however_slowly_the_address_goes_on() {
    let site = Site::empty(&[]);
    let (address, gone) = dripping();
    let staging = site.data().join("images/staging");
    let staged = || std::fs::read_dir(&staging).unwrap().count();
    let mut client = UnixStream::connect(site.socket()).unwrap();
    let head = format!(
        "POST /images/create?fromSrc={address}&repo=slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    wait_until("the beginning of the import", || (staged() > 0).then_some(()));
    assert!(gone.try_recv().is_err(), "it has ended already");
    drop(client);
    wait_until("the end of the import", || (staged() == 0).then_some(()));
    wait_until("the end of the download", || gone.try_recv().ok());
    assert_eq!(site.docker(&["images", "-q"]).ok(), "");
    assert_eq!(layers(&site), 0);
}
