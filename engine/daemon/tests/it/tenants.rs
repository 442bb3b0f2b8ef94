//! Strangers who build on one engine: an image that one of them brought there with credentials is no
//! other's, by whatever name it is asked for.

use serde_json::{Value, json};

use crate::logins::{Registry, header};
use crate::support::{Site, archive_of, ask, ask_with, docker28};

const WORKER: [&str; 3] = ["--build-worker", "--userns-remap", "default"];

/// A tar of one file.
fn tar_of(name: &str, content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

/// What a build said, or why it failed.
fn build(
    site: &Site,
    address: &str,
    password: Option<&str>,
    query: &str,
    file: &str,
) -> Result<String, String> {
    let known = password.map(|password| json!({"username": "me", "password": password}));
    let known = known.map_or_else(|| json!({}), |known| json!({ address: known }));
    let config = header(site, &known.to_string()).replace("X-Registry-Auth", "X-Registry-Config");
    let head = ["Content-Type: application/x-tar", config.as_str()];
    let path = format!("/v1.47/build?{query}");
    let answer = ask_with(site, "POST", &path, &head, &tar_of("Dockerfile", file));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    match lines.iter().find_map(|line| line["error"].as_str()) {
        Some(error) => Err(error.to_owned()),
        None => Ok(lines.iter().filter_map(|line| line["stream"].as_str()).collect()),
    }
}

/// Stores an image with a file `/secret` in the registry, and removes it here; its name.
fn place(site: &Site, registry: &Registry) -> String {
    let name = format!("{}/team/app:v1", registry.address);
    let archive = archive_of(&tar_of("secret", "the secret\n"), &name);
    site.command(&docker28(), &["load"], &archive).ok();
    push(site, registry, "team/app", "v1");
    site.docker(&["rmi", &name]).ok();
    name
}

/// Pushes as `me`; the digest.
fn push(site: &Site, registry: &Registry, repository: &str, tag: &str) -> String {
    let auth = header(site, &json!({"username": "me", "password": "secret"}).to_string());
    let path = format!("/v1.47/images/{}/{repository}/push?tag={tag}", registry.address);
    let text = ask_with(site, "POST", &path, &[&auth], b"").text;
    let (_, digest) = text.split_once("\"Digest\":\"").unwrap_or_else(|| panic!("{text}"));
    digest[..71].to_owned()
}

fn inspected(site: &Site, name: &str) -> Value {
    ask(site, "GET", &format!("/v1.47/images/{name}/json"), None).json()
}

/// Every way to take something from an image.
fn takes(name: &str) -> [String; 3] {
    [
        format!("FROM {name}\nLABEL a=b\n"),
        format!("FROM busybox\nCOPY --from={name} /secret /taken\n"),
        format!("FROM busybox\nRUN --mount=from={name},target=/m cat /m/secret\n"),
    ]
}

#[test]
fn an_image_pulled_with_credentials_is_only_for_whom_its_registry_lets_have_it() {
    let mut site = Site::empty(&WORKER);
    site.load_image();
    let registry = Registry::start(&site);
    let name = place(&site, &registry);
    for file in takes(&name) {
        build(&site, &registry.address, Some("secret"), "nocache=1", &file).unwrap();
    }
    let refused = |site: &Site, password, file: &str| {
        let error = build(site, &registry.address, password, "", file).unwrap_err();
        let says = format!("the image `{name}` is refused by its registry");
        assert!(error.contains(&says), "{file}: {error}");
    };
    for file in takes(&name) {
        refused(&site, None, &file);
        refused(&site, Some("wrong"), &file);
        build(&site, &registry.address, Some("secret"), "", &file).unwrap();
    }
    let query = format!("cachefrom=%5B%22{name}%22%5D");
    let text = build(&site, &registry.address, None, &query, "FROM busybox\nLABEL a=b\n").unwrap();
    assert!(text.contains(&format!("nothing is taken from {name}")), "{text}");

    site.stop_engine();
    site.start_engine();
    refused(&site, None, &takes(&name)[0]);
    let row = inspected(&site, &name);
    assert_eq!(row["Private"], true, "{row}");
    assert!(inspected(&site, "busybox")["Private"].is_null());
}

#[test]
fn an_image_of_another_is_not_found_by_its_id_or_by_what_its_builder_calls_it() {
    let site = Site::empty(&WORKER);
    site.load_image();
    let registry = Registry::start(&site);
    let name = place(&site, &registry);
    let built = format!("{}/v2/0123:latest", registry.address);
    let query = format!("t={built}");
    build(&site, &registry.address, Some("secret"), &query, &takes(&name)[0]).unwrap();
    let digest = push(&site, &registry, "v2/0123", "latest");
    let by_digest = format!("{}/v2/0123@{digest}", registry.address);
    for called in [&built, &by_digest] {
        let row = inspected(&site, called);
        assert_eq!(row["Private"], true, "{row}");
        let error = build(&site, &registry.address, None, "", &takes(called)[1]).unwrap_err();
        assert!(error.contains(called.as_str()) && error.contains("refused"), "{error}");
        build(&site, &registry.address, Some("secret"), "", &takes(called)[1]).unwrap();
    }
    let id = inspected(&site, &name)["Id"].as_str().unwrap().to_owned();
    let short = &id["sha256:".len()..][..12];
    assert_eq!(inspected(&site, short)["Private"], true);
    let error = build(&site, &registry.address, Some("secret"), "", &takes(short)[1]).unwrap_err();
    assert!(error.contains(&format!("the image `{short}` cannot be had")), "{error}");
}

#[test]
fn without_its_registry_a_private_image_is_used_by_nobody_and_a_public_one_as_ever() {
    let site = Site::empty(&WORKER);
    site.load_image();
    let registry = Registry::start(&site);
    let name = place(&site, &registry);
    build(&site, &registry.address, Some("secret"), "", &takes(&name)[0]).unwrap();
    let address = registry.address.clone();
    drop(registry);
    let error = build(&site, &address, Some("secret"), "", &takes(&name)[0]).unwrap_err();
    let says = format!("the image `{name}` cannot be had, as its registry does not answer");
    assert!(error.contains(&says), "{error}");
    build(&site, &address, None, "", "FROM busybox\nLABEL a=b\n").unwrap();
}

#[test]
fn an_engine_that_builds_for_no_strangers_takes_what_is_there() {
    let site = Site::new();
    let registry = Registry::start(&site);
    let name = place(&site, &registry);
    build(&site, &registry.address, Some("secret"), "", &takes(&name)[0]).unwrap();
    let row = inspected(&site, &name);
    assert!(row["Private"].is_null(), "{row}");
    let id = row["Id"].as_str().unwrap().to_owned();
    for called in [name.as_str(), &id["sha256:".len()..][..12]] {
        for file in takes(called) {
            build(&site, &registry.address, None, "nocache=1", &file).unwrap();
        }
    }
}
