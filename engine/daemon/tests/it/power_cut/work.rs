//! What the engine does while its disk is recorded, and what there must be of it.

use std::collections::BTreeMap;

use super::disk::Recorded;
use crate::support::Site;

/// What kind of work a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Pull,
    Build,
    Create,
    Remove,
}

impl Phase {
    pub const ALL: [Phase; 4] = [Phase::Pull, Phase::Build, Phase::Create, Phase::Remove];
}

/// What people have in an engine: named images by id, containers by image, volumes by what is in them,
/// networks by driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State(pub BTreeMap<String, String>);

/// One command, and when it was given and acknowledged in the disk's log.
pub struct Step {
    pub phase: Phase,
    pub words: Vec<String>,
    pub from: usize,
    pub to: usize,
    pub before: State,
    pub after: State,
}

impl State {
    pub fn read(site: &Site) -> Result<State, String> {
        let ask = |words: &[&str]| {
            let outcome = site.docker(words);
            match outcome.code {
                0 => Ok(outcome.stdout),
                _ => Err(format!("docker {}: {}", words.join(" "), outcome.stderr.trim())),
            }
        };
        let mut found = BTreeMap::new();
        let images =
            ask(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])?;
        for (name, id) in images.lines().filter_map(|line| line.split_once(' ')) {
            if !name.contains("<none>") {
                found.insert(format!("image {name}"), id.to_owned());
            }
        }
        let containers = ask(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"])?;
        for (name, image) in containers.lines().filter_map(|line| line.split_once(' ')) {
            found.insert(format!("container {name}"), image.to_owned());
        }
        for name in ask(&["volume", "ls", "-q"])?.lines() {
            let at = ask(&["volume", "inspect", "-f", "{{.Mountpoint}}", name])?;
            let file = std::path::Path::new(at.trim()).join("file");
            let holds = std::fs::read_to_string(file).unwrap_or_default();
            found.insert(format!("volume {name}"), holds);
        }
        let networks = ask(&[
            "network",
            "ls",
            "--filter",
            "type=custom",
            "--format",
            "{{.Name}} {{.Driver}}",
        ])?;
        for (name, driver) in networks.lines().filter_map(|line| line.split_once(' ')) {
            found.insert(format!("network {name}"), driver.to_owned());
        }
        Ok(State(found))
    }

    /// What must be there of this and is not, where it may also look as in `other`.
    pub fn lost(&self, other: &State, found: &State) -> Vec<String> {
        let good = |key: &String, value: &String| {
            let there = found.0.get(key);
            there == Some(value) || there == other.0.get(key)
        };
        self.0.iter().filter(|(key, value)| !good(key, value)).map(|(key, _)| key.clone()).collect()
    }
}

/// The commands, in order. `REGISTRY` stands for the registry's address, `CONTEXT` for a folder.
const WORK: [(Phase, &str); 23] = [
    (Phase::Pull, "pull REGISTRY/app:1"),
    (Phase::Create, "volume create kept"),
    (
        Phase::Create,
        "run --rm --network none -v kept:/data REGISTRY/app:1 sh -c \
         echo\u{a0}kept\u{a0}>\u{a0}/data/file;\u{a0}busybox\u{a0}sync",
    ),
    (Phase::Build, "build --network none -t built:1 CONTEXT"),
    (Phase::Create, "create --name one --network none -v kept:/data REGISTRY/app:1 sh"),
    (Phase::Pull, "pull REGISTRY/app:2"),
    (Phase::Create, "create --name two --network none built:1 sh"),
    (Phase::Create, "tag REGISTRY/app:2 other:name"),
    (Phase::Create, "network create --internal --subnet 10.99.1.0/24 team"),
    (Phase::Create, "network create --internal --subnet 10.99.2.0/24 kept"),
    (Phase::Remove, "rm two"),
    (Phase::Remove, "rmi built:1"),
    (Phase::Remove, "network rm team"),
    (Phase::Build, "build --network none --no-cache -t built:2 CONTEXT"),
    (Phase::Remove, "rmi REGISTRY/app:2"),
    (Phase::Pull, "pull REGISTRY/app:3"),
    (Phase::Create, "create --name three --network none REGISTRY/app:3 sh"),
    (Phase::Create, "volume create gone"),
    (Phase::Remove, "rm three"),
    (Phase::Remove, "volume rm gone"),
    (Phase::Remove, "rmi other:name"),
    (Phase::Pull, "pull REGISTRY/app:2"),
    (Phase::Remove, "rmi REGISTRY/app:3"),
];

/// Does the work and notes where in the disk's log each command began and was acknowledged.
pub fn record(site: &Site, disk: &mut Recorded, registry: &str) -> Vec<Step> {
    let context = site.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("file"), vec![b'f'; 300_000]).unwrap();
    let dockerfile =
        format!("FROM {registry}/app:1\nCOPY file /copied\nRUN echo made > /made\nENV A=b\n");
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let mut steps = Vec::new();
    let mut before = State::read(site).unwrap();
    for (phase, line) in WORK {
        let line = line.replace("REGISTRY", registry);
        let line = line.replace("CONTEXT", &context.to_string_lossy());
        // A word with spaces has other spaces in the table.
        let words: Vec<String> = line
            .split(' ')
            .filter(|it| !it.is_empty())
            .map(|it| it.replace('\u{a0}', " "))
            .collect();
        let from = disk.position();
        docker(site, &words).unwrap();
        let to = disk.position();
        let after = State::read(site).unwrap();
        assert!(before != after, "{line} changed nothing");
        steps.push(Step { phase, words, from, to, before, after: after.clone() });
        before = after;
    }
    steps
}

/// Gives the docker CLI a command, builds by the engine itself and not by a plugin.
pub fn docker(site: &Site, words: &[String]) -> Result<(), String> {
    let mut all = vec!["DOCKER_BUILDKIT=0", "docker"];
    all.extend(words.iter().map(String::as_str));
    let outcome = site.command_of("env", &all, b"");
    match outcome.code {
        0 => Ok(()),
        _ => Err(format!("docker {}: {}", words.join(" "), outcome.stderr.trim())),
    }
}
