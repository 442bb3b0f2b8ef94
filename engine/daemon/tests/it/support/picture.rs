//! An image as a text that two engines must agree on: its configuration, and what its layers add to the
//! test image, read from what `docker save` writes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;

use minke_common_model::digest::Digest;
use serde_json::Value;

/// What of a configuration is compared; the rest is times and names of the program that wrote it.
const KEYS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
];
/// Longest content that is shown whole, in bytes.
const SHOWN: usize = 300;

/// What is at a path.
type Tree = BTreeMap<String, String>;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub config: String,
    pub tree: String,
    /// Layers above those of the test image.
    pub layers: usize,
}

impl Picture {
    /// Reads an archive of one image. `base` is the layer of the test image.
    pub fn read(archive: &[u8], base: &[u8]) -> Picture {
        let files = members(archive);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let of = |name: &Value| &files[name.as_str().unwrap()];
        let config: Value = serde_json::from_slice(of(&manifest[0]["Config"])).unwrap();
        let base_id = Digest::of(base).to_string();
        let layers = manifest[0]["Layers"].as_array().unwrap();
        let own = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(layers.len(), own.len());
        let mut below = Tree::new();
        let from = usize::from(own.first().is_some_and(|id| *id == base_id));
        if from == 1 {
            lay(&mut below, base);
        }
        let mut tree = below.clone();
        for layer in &layers[from..] {
            lay(&mut tree, of(layer));
        }
        Picture {
            config: describe(&config),
            tree: differences(&below, &tree),
            layers: layers.len() - from,
        }
    }
}

/// Every file of an archive; links to other members are followed.
fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut links) = (BTreeMap::new(), Vec::new());
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        if let Some(target) = entry.link_name().unwrap() {
            let target = target.to_str().unwrap().trim_start_matches("../").to_owned();
            links.push((path, target));
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(path, bytes);
    }
    for (path, target) in links {
        let bytes = files[&target].clone();
        files.insert(path, bytes);
    }
    files
}

/// What of an image's document is compared.
pub fn describe(config: &Value) -> String {
    let mut text = String::new();
    for key in KEYS {
        let value = &config["config"][key];
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !empty {
            writeln!(text, "{key}: {value}").unwrap();
        }
    }
    if let Some(author) = config["author"].as_str().filter(|author| !author.is_empty()) {
        writeln!(text, "author: {author}").unwrap();
    }
    text
}

/// Lays a layer on a tree.
fn lay(tree: &mut Tree, layer: &[u8]) {
    let mut archive = tar::Archive::new(layer);
    let mut whole: BTreeMap<String, String> = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = format!("/{}", path.trim_start_matches("./").trim_matches('/'));
        let (parent, name) = path.rsplit_once('/').unwrap();
        if name == ".wh..wh..opq" {
            remove_below(tree, parent);
            continue;
        }
        if let Some(gone) = name.strip_prefix(".wh.") {
            remove(tree, &format!("{parent}/{gone}"));
            continue;
        }
        whole.insert(path.clone(), what(&mut entry));
    }
    for (path, what) in whole {
        if path == "/" {
            continue;
        }
        // A directory goes on being what it was; anything else takes its place.
        if !what.starts_with('d') {
            remove_below(tree, &path);
        }
        tree.insert(path, what);
    }
    // A file with several names is the same under each.
    let links: Vec<(String, String)> = tree
        .iter()
        .filter_map(|(path, what)| Some((path.clone(), what.strip_prefix("= ")?.to_owned())))
        .collect();
    for (path, target) in links {
        let what = tree[&target].clone();
        tree.insert(path, what);
    }
}

fn remove_below(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|other, _| !other.starts_with(&below));
}

fn remove(tree: &mut Tree, path: &str) {
    remove_below(tree, path);
    tree.remove(path);
}

/// Kind, mode, owner and content of a member.
fn what(entry: &mut tar::Entry<'_, &[u8]>) -> String {
    let header = entry.header().clone();
    let link = |entry: &tar::Entry<'_, &[u8]>| {
        String::from_utf8(entry.link_name_bytes().unwrap().into_owned()).unwrap()
    };
    let mode = header.mode().unwrap() & 0o7777;
    let owner = format!("{}:{}", header.uid().unwrap(), header.gid().unwrap());
    match header.entry_type() {
        tar::EntryType::Directory => format!("d {mode:04o} {owner}"),
        tar::EntryType::Symlink => format!("l {owner} -> {}", link(entry)),
        tar::EntryType::Link => {
            format!("= /{}", link(entry).trim_start_matches("./").trim_start_matches('/'))
        }
        tar::EntryType::Fifo => format!("p {mode:04o} {owner}"),
        tar::EntryType::Char | tar::EntryType::Block => format!("device {mode:04o} {owner}"),
        _ => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            format!("f {mode:04o} {owner} {}", content(&bytes))
        }
    }
}

fn content(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= SHOWN => format!("{text:?}"),
        _ => format!("{} bytes, {}", bytes.len(), &Digest::of(bytes).hex()[..16]),
    }
}

/// What is new or changed, and what is gone.
fn differences(below: &Tree, tree: &Tree) -> String {
    let mut text = String::new();
    for (path, what) in tree {
        if below.get(path) != Some(what) {
            writeln!(text, "{path} {what}").unwrap();
        }
    }
    for path in below.keys().filter(|path| !tree.contains_key(*path)) {
        writeln!(text, "{path} gone").unwrap();
    }
    text
}
