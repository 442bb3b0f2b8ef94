//! What the daemon is asked when it is killed, and how to see that it is at it.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::TryStreamExt;
use minke_engine_client::wire::CreateContainer;
use minke_engine_client::{Client, Error, LogOptions, PullImage, RemoveContainer, WaitFor};

use crate::power_cut::images;
use crate::registry;
use crate::support::Site;

const WORK: &str = r#"{"Image":"busybox","Cmd":["sh","-c","seq 20000; sleep 1000"],
    "Volumes":{"/data":{}},"HostConfig":{"PortBindings":{"81/tcp":[{}]}}}"#;

/// Something that a daemon does. The first of them are the least that any run looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Pull,
    Unpack,
    Build,
    Create,
    Start,
    Exec,
    Connect,
    Logs,
    Stop,
    Remove,
    Commit,
    Load,
    Adopt,
    /// The container's shim is killed at the same time.
    Shim,
    Disconnect,
    RemoveImage,
}

impl Phase {
    pub const ALL: [Phase; 16] = [
        Phase::Pull,
        Phase::Unpack,
        Phase::Build,
        Phase::Create,
        Phase::Start,
        Phase::Exec,
        Phase::Connect,
        Phase::Logs,
        Phase::Stop,
        Phase::Remove,
        Phase::Commit,
        Phase::Load,
        Phase::Adopt,
        Phase::Shim,
        Phase::Disconnect,
        Phase::RemoveImage,
    ];

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Pull => "pull",
            Phase::Unpack => "pull, a layer half unpacked",
            Phase::Build => "build",
            Phase::Create => "create",
            Phase::Start => "start",
            Phase::Exec => "exec",
            Phase::Connect => "connect",
            Phase::Logs => "logs",
            Phase::Stop => "stop",
            Phase::Remove => "remove",
            Phase::Commit => "commit",
            Phase::Load => "load",
            Phase::Adopt => "adopt",
            Phase::Shim => "the end of a shim that was killed, too",
            Phase::Disconnect => "disconnect",
            Phase::RemoveImage => "removal of an image",
        }
    }
}

/// What the phases work on besides the engine.
pub struct Material {
    /// The name of an image of three layers.
    pub image: String,
    archive: String,
    context: String,
}

impl Material {
    /// Starts the registry, and writes an archive and a folder to build.
    pub fn new(site: &Site) -> Material {
        let image = format!("{}/app:1", registry::serve(images::content()));
        let path = |name: &str| site.dir.path().join(name).to_string_lossy().into_owned();
        let (archive, context) = (path("loaded.tar"), path("context"));
        site.docker(&["pull", "-q", &image]).ok();
        site.docker(&["tag", &image, "loaded:1"]).ok();
        site.docker(&["save", "-o", &archive, "loaded:1"]).ok();
        site.docker(&["rmi", "loaded:1", &image]).ok();
        std::fs::create_dir(&context).unwrap();
        std::fs::write(Path::new(&context).join("file"), vec![b'f'; 3_000_000]).unwrap();
        let dockerfile =
            "FROM busybox\nCOPY file /copied\nRUN seq 300000 > /made\nRUN echo made >> /made\n";
        std::fs::write(Path::new(&context).join("Dockerfile"), dockerfile).unwrap();
        Material { image, archive, context }
    }

    /// Makes what the phase needs to be there before.
    pub fn prepare(&self, site: &Site, phase: Phase) {
        let client = site.client();
        let up = |start: bool| {
            site.block_on(async {
                create(&client).await.unwrap();
                if start {
                    client.start("work").await.unwrap();
                }
            });
        };
        match phase {
            Phase::Start => up(false),
            Phase::Exec | Phase::Connect | Phase::Stop | Phase::Remove | Phase::Shim => up(true),
            Phase::Logs => {
                up(true);
                let all = || site.docker(&["logs", "work"]).ok().lines().count() == 20_000;
                crate::support::wait_until("a long log", || all().then_some(()));
            }
            Phase::Disconnect => {
                up(true);
                site.block_on(client.connect("team", "work", None)).unwrap();
            }
            Phase::Commit => {
                up(true);
                let fill =
                    ["exec", "work", "dd", "if=/dev/urandom", "of=/fill", "bs=1M", "count=6"];
                site.docker(&fill).ok();
            }
            Phase::RemoveImage => drop(site.docker(&["pull", "-q", &self.image]).ok()),
            Phase::Pull | Phase::Unpack | Phase::Build | Phase::Create | Phase::Load => {}
            Phase::Adopt => {}
        }
    }

    /// The docker command that is the phase, if it is one.
    pub fn command(&self, phase: Phase) -> Option<Vec<&str>> {
        Some(match phase {
            Phase::Unpack => vec!["pull", &self.image],
            Phase::Build => {
                vec!["build", "--network", "none", "--no-cache", "-t", "built:1", &self.context]
            }
            Phase::Commit => vec!["commit", "work", "committed:1"],
            Phase::Load => vec!["load", "-i", &self.archive],
            Phase::RemoveImage => vec!["rmi", &self.image],
            _ => return None,
        })
    }

    /// What the phase leaves when it was done.
    pub fn images(&self, phase: Phase) -> &[&str] {
        match phase {
            Phase::Build => &["built:1"],
            Phase::Commit => &["committed:1"],
            Phase::Load => &["loaded:1"],
            _ => &[],
        }
    }

    /// Takes away what a phase made, done or not.
    pub fn clear(&self, site: &Site, phase: Phase) {
        let rest = site.docker(&["ps", "-aq", "--filter", "name=work"]).ok();
        for id in rest.lines() {
            site.docker(&["rm", "-fv", id]).ok();
        }
        for name in [&[self.image.as_str()], self.images(phase)].concat() {
            site.docker(&["rmi", name]);
        }
        if phase == Phase::Build {
            site.docker(&["builder", "prune", "-af"]).ok();
        }
    }
}

/// Whether a phase that shows on the disk has begun there.
pub fn shows(site: &Site, phase: Phase) -> bool {
    let has = |name: &str| {
        let entries = std::fs::read_dir(site.data().join("images").join(name));
        entries.is_ok_and(|mut entries| entries.next().is_some())
    };
    match phase {
        Phase::Unpack | Phase::Commit | Phase::Load | Phase::Build => has("staging"),
        _ => true,
    }
}

async fn create(client: &Client) -> Result<(), Error> {
    let body: CreateContainer = serde_json::from_str(WORK).unwrap();
    client.create("work", &body).await.map(drop)
}

/// Asks for a phase that is no command, and hears the whole answer.
pub async fn ask(client: &Client, phase: Phase, image: &str) -> Result<(), Error> {
    match phase {
        Phase::Create => create(client).await,
        Phase::Start => client.start("work").await,
        Phase::Exec => client.exec("work", &["true"]).await.map(drop),
        Phase::Connect => client.connect("team", "work", None).await,
        Phase::Disconnect => client.disconnect("team", "work", false).await,
        Phase::Logs => {
            let options = LogOptions { stdout: true, ..LogOptions::default() };
            let mut log = client.read_logs("work", &options).await?;
            while log.try_next().await?.is_some() {}
            Ok(())
        }
        Phase::Stop => client.stop("work", Some(0)).await,
        Phase::Remove => {
            client.remove("work", RemoveContainer { force: true, volumes: true }).await
        }
        Phase::Pull => {
            let pull = PullImage { reference: image.to_owned(), ..PullImage::default() };
            client.pull(&pull, |_| {}).await
        }
        // The first answer of a daemon that has taken everything over.
        Phase::Adopt => client.list_containers(true, &BTreeMap::new()).await.map(drop),
        Phase::Shim => client.wait("work", WaitFor::NotRunning).await.map(drop),
        Phase::Unpack | Phase::Build | Phase::Commit | Phase::Load | Phase::RemoveImage => {
            panic!("{phase:?} is a command")
        }
    }
}
