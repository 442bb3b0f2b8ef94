//! What the registry has: images of several layers, some of which they share.

use serde_json::json;

use crate::registry::{Content, digest, put_image};
use crate::support::image_layer;

/// A layer with many files, a directory that replaces another's contents, and a link.
fn layer(seed: u8, files: usize, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(number as u64);
        header.set_gid(7);
        header.set_mtime(1_700_000_000 + number as u64);
        let length = size * (number % 5 + 1) / 3;
        header.set_size(length as u64);
        let mut state = u64::from(seed) << 32 | number as u64;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (state >> 33) as u8
            })
            .collect();
        let path = format!("data-{seed}/{}/file-{number}", number % 7);
        tar.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({
        "architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": layers.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes()
}

/// Bytes of the layers of `app` with this tag.
pub fn size_of(tag: &str) -> u64 {
    let content = content();
    let manifest = &content[&format!("app/manifests/{tag}")].1;
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["size"].as_u64().unwrap()).sum()
}

/// `app:1` to `app:3`: one layer of all, one of two, one of each.
pub fn content() -> Content {
    let base = image_layer();
    let shared = layer(1, 60, 9_000);
    let mut content = Content::new();
    for number in 1..=3u8 {
        let own = layer(10 + number, 40, 40_000);
        let layers = match number {
            3 => vec![base.clone(), own],
            _ => vec![base.clone(), shared.clone(), own],
        };
        put_image(&mut content, "app", &number.to_string(), &config(&layers), &layers);
    }
    content
}
