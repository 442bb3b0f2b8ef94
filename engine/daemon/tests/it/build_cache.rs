//! What builds leave behind for the next ones: shown, counted, and removed as asked.

use serde_json::Value;

use crate::support::{Site, ask};

/// What the first stage makes is in no image, but in the cache.
const DOCKERFILE: &str = "FROM busybox AS made\n\
    RUN head -c 3000000 /dev/zero > /big\n\
    FROM busybox\n\
    RUN --mount=type=bind,from=made,target=/made wc -c /made/big > /size\n\
    RUN --mount=type=cache,target=/cache head -c 2000000 /dev/zero > /cache/kept\n";

/// The records of the cache, by their kind.
fn records(site: &Site, kind: &str) -> Vec<Value> {
    let answer = ask(site, "GET", "/system/df?type=build-cache", None);
    let all = answer.json()["BuildCache"].as_array().unwrap().clone();
    all.into_iter().filter(|record| record["Type"] == kind).collect()
}

fn bytes(records: &[Value]) -> u64 {
    records.iter().map(|record| record["Size"].as_u64().unwrap()).sum()
}

/// A project of this Dockerfile.
fn project(site: &Site, dockerfile: &str) -> String {
    let context = site.dir.path().join("project");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context.to_str().unwrap().to_owned()
}

#[test]
fn an_image_with_a_name_outlives_the_cache_it_was_made_from() {
    let site = Site::new();
    let context = project(&site, "FROM busybox\nRUN echo kept > /kept\nENV A=1\n");
    site.docker(&["build", "-t", "mine", &context]).ok();
    site.docker(&["builder", "prune", "--all", "--force"]).ok();
    assert!(records(&site, "regular").is_empty());
    assert_eq!(site.docker(&["run", "--rm", "mine", "cat", "/kept"]).ok(), "kept\n");
    assert_eq!(site.docker(&["run", "--rm", "busybox", "echo", "here"]).ok(), "here\n");
}

#[test]
fn what_builds_without_the_cache_make_anew_takes_the_place_of_the_old() {
    let site = Site::new();
    let context = project(&site, "FROM busybox\nRUN date > /one\nRUN date > /two\n");
    for _ in 0..3 {
        site.docker(&["build", "--no-cache", "-t", "mine", &context]).ok();
        site.docker(&["image", "prune", "--force"]).ok();
    }
    site.docker(&["builder", "prune", "--all", "--force"]).ok();
    site.docker(&["rmi", "mine"]).ok();
    let left = site.docker(&["images", "--all", "--format", "{{.Repository}}"]).ok();
    assert_eq!(left, "busybox\n");
}

#[test]
fn the_cache_is_shown_with_what_it_takes_and_goes_as_asked() {
    let site = Site::new();
    let context = project(&site, DOCKERFILE);
    let build = || site.docker(&["build", &context]).ok();
    assert!(records(&site, "regular").is_empty());
    build();
    let (steps, mounts) = (records(&site, "regular"), records(&site, "exec.cachemount"));
    assert!(bytes(&steps) >= 3_000_000 && bytes(&steps) < 4_000_000, "{steps:?}");
    assert!(bytes(&mounts) >= 2_000_000 && mounts.len() == 1, "{mounts:?}");
    let made_big = |step: &&Value| step["Description"].as_str().unwrap().contains("/big");
    assert_eq!(steps.iter().find(made_big).unwrap()["UsageCount"], 0);
    assert!(build().contains("Using cache"));
    let steps = records(&site, "regular");
    assert_eq!(steps.iter().find(made_big).unwrap()["UsageCount"], 1, "{steps:?}");
    // Shown by the command line, too.
    let shown = site.docker(&["system", "df"]).ok();
    let line = shown.lines().find(|line| line.starts_with("Build Cache")).unwrap();
    assert!(line.contains("MB"), "{shown}");
    // Nothing is that old, all of it is small enough, and only the mount's kind is named.
    for (filter, kind) in [
        ("filters=%7B%22until%22%3A%5B%221h%22%5D%7D", None),
        ("keep-storage=100000000", None),
        ("filters=%7B%22type%22%3A%5B%22exec.cachemount%22%5D%7D", Some(mounts)),
    ] {
        let pruned = ask(&site, "POST", &format!("/build/prune?{filter}"), None).json();
        let gone: Vec<Value> = kind.iter().flatten().map(|record| record["ID"].clone()).collect();
        assert_eq!(pruned["CachesDeleted"], Value::from(gone), "{filter}");
        assert_eq!(pruned["SpaceReclaimed"].as_u64() > Some(0), kind.is_some(), "{filter}");
    }
    for bad in ["keep-storage=x", "filters=%7B%22colour%22%3A%5B%22x%22%5D%7D"] {
        assert_eq!(ask(&site, "POST", &format!("/build/prune?{bad}"), None).status, 400, "{bad}");
    }
    let said = site.docker(&["builder", "prune", "--all", "--force"]).ok();
    assert!(said.contains("3MB") || said.contains("3.0"), "{said}");
    assert!(records(&site, "regular").is_empty() && records(&site, "exec.cachemount").is_empty());
    assert!(!build().contains("Using cache"));
}
