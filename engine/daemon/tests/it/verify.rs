//! Damage in the image store: found over the socket and in a stopped engine's data, repaired from the
//! registry, also by nothing more than `docker run`.

use std::fs;
use std::path::{Path, PathBuf};

use minke_engine_daemon::{EngineOptions, VerifyTarget, verify};

use crate::registry::{content, serve};
use crate::support::Site;

/// A site with the registry's image, and the image's name.
pub fn pulled() -> (Site, String) {
    let site = Site::empty(&[]);
    let name = format!("{}/team/app:v1", serve(content()));
    site.docker(&["pull", &name]).ok();
    (site, name)
}

/// The directory of the only layer.
pub fn layer(site: &Site) -> PathBuf {
    let mut layers = fs::read_dir(site.data().join("images/layers")).unwrap();
    let layer = layers.next().unwrap().unwrap().path();
    assert!(layers.next().is_none());
    layer
}

pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_is_found_and_fetched_again() {
    let (mut site, name) = pulled();
    let client = site.client();
    let passwd = layer(&site).join("fs/etc/passwd");
    let right = fs::read(&passwd).unwrap();
    let whole = site.block_on(client.verify(false, |_| {})).unwrap();
    assert_eq!((whole.images, whole.layers, whole.is_good()), (1, 1, true));
    flip(&passwd);
    let mut told = 0;
    let report = site.block_on(client.verify(false, |_| told += 1)).unwrap();
    assert!(told >= 1, "no progress");
    assert_eq!(report.damaged.len(), 1);
    let part = &report.damaged[0];
    assert!(part.part.starts_with("layer sha256:") && part.why.contains("etc/passwd"), "{part:?}");
    assert_eq!((part.images.len(), part.repaired), (1, false));
    assert_eq!(site.docker(&["images", "-q"]).ok(), "", "a damaged image is listed");
    let report = site.block_on(client.verify(true, |_| {})).unwrap();
    assert!(report.damaged.len() == 1 && report.is_good(), "{report:?}");
    assert_eq!(fs::read(&passwd).unwrap(), right);
    assert_eq!(site.docker(&["run", "--rm", &name, "echo", "whole"]).ok(), "whole\n");
    // The same without an engine, which must not run meanwhile.
    let stopped = || {
        let data = site.data();
        VerifyTarget::Stopped(Box::new(EngineOptions { data, ..EngineOptions::default() }))
    };
    let error = verify(stopped(), false, |_| {}).unwrap_err();
    assert!(format!("{error:#}").contains("another engine uses"), "{error:#}");
    let target = stopped();
    site.stop_engine();
    assert!(verify(target.clone(), false, |_| {}).unwrap().is_good());
    flip(&layer(&site).join("manifest"));
    let report = verify(target.clone(), true, |_| {}).unwrap();
    assert!(report.damaged[0].part.starts_with("layer") && report.is_good(), "{report:?}");
    assert!(verify(target, false, |_| {}).unwrap().damaged.is_empty());
    site.start_engine();
    assert_eq!(site.docker(&["run", "--rm", &name, "echo", "whole"]).ok(), "whole\n");
}

#[test]
fn docker_run_repairs_what_shows_when_a_container_is_made() {
    let (site, name) = pulled();
    for file in ["manifest", "configuration"] {
        match file {
            "manifest" => flip(&layer(&site).join("manifest")),
            _ => {
                let mut files = fs::read_dir(site.data().join("images/images")).unwrap();
                flip(&files.next().unwrap().unwrap().path());
            }
        }
        let run = site.docker(&["run", "--rm", &name, "echo", "healed"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "healed\n"), "{file}: {run:?}");
        assert!(run.stderr.contains("Unable to find image"), "{file}: {run:?}");
    }
    assert!(site.block_on(site.client().verify(false, |_| {})).unwrap().damaged.is_empty());
}
