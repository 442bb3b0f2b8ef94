//! What a prune of images takes away, and what it says of it.

use serde_json::{Value, json};

use crate::corners::query;
use crate::support::{Site, ask, docker28, image_config, now};

/// Bytes of the one file of an image here.
const FILE: usize = 100_000;

/// A layer with a file that no other has.
fn layer(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(FILE as u64);
    tar.append_data(&mut header, name, &vec![b'x'; FILE][..]).unwrap();
    tar.into_inner().unwrap()
}

/// Loads an image of 2024 without a name; its id.
fn load_old(site: &Site) -> String {
    let layer = layer("old");
    let config = image_config(&layer);
    let manifest = br#"[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]"#;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in
        [("config.json", &config[..]), ("layer.tar", &layer), ("manifest.json", manifest)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).unwrap();
    }
    site.command(&docker28(), &["load"], &tar.into_inner().unwrap()).ok();
    crate::registry::digest(&config)
}

fn import(site: &Site, options: &[&str], file: &str, name: &[&str]) -> String {
    let words = [&["import"], options, &["-"], name].concat();
    site.command(&docker28(), &words, &layer(file)).ok().trim().to_owned()
}

fn prune(site: &Site, filters: &Value) -> Value {
    let answer = ask(site, "POST", &format!("/images/prune?filters={}", query(filters)), None);
    assert_eq!(answer.status, 200, "{filters}: {}", answer.text);
    answer.json()
}

/// Images that a prune says to have deleted; layers are not among the images that were there.
fn deleted(site: &Site, filters: &Value) -> Vec<String> {
    let before = images(site);
    let said = prune(site, filters);
    let rows = said["ImagesDeleted"].as_array().unwrap().clone();
    let ids = rows.iter().filter_map(|row| row["Deleted"].as_str()).map(str::to_owned);
    let ids: Vec<String> = ids.filter(|id| before.contains(id)).collect();
    let after = images(site);
    let gone: Vec<&String> = before.iter().filter(|id| !after.contains(id)).collect();
    assert_eq!(gone, ids.iter().collect::<Vec<_>>(), "{filters}: {said}");
    let reclaimed = said["SpaceReclaimed"].as_u64().unwrap() as usize;
    assert_eq!(reclaimed, ids.len() * FILE, "{filters}: {said}");
    ids
}

fn images(site: &Site) -> Vec<String> {
    let ids = site.docker(&["images", "-aq", "--no-trunc"]).ok();
    ids.lines().map(str::to_owned).collect()
}

#[test]
fn a_prune_of_images_takes_what_its_filters_say_and_tells_what_went() {
    let site = Site::new();
    site.docker(&["create", "--name", "box", "busybox"]).ok();
    let old = load_old(&site);
    let kept = import(&site, &["--change", "LABEL keep=1"], "kept", &[]);
    let fresh = import(&site, &[], "fresh", &[]);
    let named = import(&site, &[], "named", &["named:1"]);
    let begun = now();
    // 2025 begins.
    assert_eq!(deleted(&site, &json!({ "until": ["1735689600"] })), [old.as_str()]);
    assert_eq!(deleted(&site, &json!({ "label!": ["keep"] })), [fresh.as_str()]);
    assert_eq!(deleted(&site, &json!({ "label": ["keep=2"] })), Vec::<String>::new());
    assert_eq!(deleted(&site, &json!({ "label": ["keep=1"] })), [kept.as_str()]);
    assert_eq!(deleted(&site, &json!({ "dangling": ["true"] })), Vec::<String>::new());
    assert_eq!(deleted(&site, &json!({ "dangling": ["false"] })), [named.as_str()]);
    let form = "{{.Action}} {{.Actor.ID}}";
    let words = ["events", "--since", &begun, "--until", &now(), "--filter", "type=image"];
    let told = site.docker(&[&words[..], &["--format", form]].concat()).ok();
    let told: Vec<&str> = told.lines().collect();
    let wanted = [
        format!("delete {old}"),
        format!("delete {fresh}"),
        format!("delete {kept}"),
        format!("untag {named}"),
        format!("delete {named}"),
    ];
    assert_eq!(told, wanted);
    // What a container is of stays, with its name.
    assert_eq!(site.docker(&["images", "--format", "{{.Repository}}"]).ok(), "busybox\n");
}
