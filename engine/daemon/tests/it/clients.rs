//! Programs that speak the API: docker-compose 1.29 and skopeo.

use std::path::{Path, PathBuf};

use crate::support::{IMAGE, Site, wait_until};

const PROJECT: &str = r#"version: "3.7"
services:
  db:
    image: busybox
    command: sh -c "echo kept > /data/x; while true; do echo from-db | nc -l -p 5432; done"
    volumes: ["data:/data"]
    networks: {back: {aliases: [database]}}
    healthcheck: {test: ["CMD", "test", "-f", "/data/x"], interval: 100ms}
    stop_grace_period: 0s
  cache:
    image: busybox
    command: sleep 1000
    networks: [back]
    stop_grace_period: 0s
  api:
    build: ./api
    depends_on: [db, cache]
    env_file: api.env
    networks: {back: {}, front: {aliases: [backend]}}
    stop_grace_period: 0s
  web:
    image: busybox
    command: sh -c "while true; do nc backend 8080 </dev/null | nc -l -p 80; done"
    depends_on: [api]
    ports: ["18088:80"]
    networks: [front]
    stop_grace_period: 0s
  worker:
    image: busybox
    command: sh -c "echo at work; sleep 1000"
    networks: [back]
    stop_grace_period: 0s
volumes: {data: {}}
networks: {front: {}, back: {}}
"#;

struct Project<'a> {
    site: &'a Site,
    folder: PathBuf,
}

impl Project<'_> {
    fn compose(&self, words: &[&str]) -> String {
        let file = self.folder.join("docker-compose.yml");
        let mut all = vec!["--no-ansi", "-f", file.to_str().unwrap(), "-p", "five"];
        all.extend(words);
        self.site.command(Path::new("docker-compose"), &all, b"").ok()
    }

    /// Ids of a service's containers.
    fn ids(&self, service: &str) -> Vec<String> {
        self.compose(&["ps", "-q", service]).split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
fn compose_brings_up_scales_updates_and_takes_down_five_services() {
    let site = Site::new();
    let folder = site.dir.path().join("project");
    std::fs::create_dir_all(folder.join("api")).unwrap();
    std::fs::write(folder.join("docker-compose.yml"), PROJECT).unwrap();
    std::fs::write(folder.join("api.env"), "GREETING=one\n").unwrap();
    let serve = "FROM busybox\nENV PORT=8080\n\
                 CMD while true; do echo $GREETING $(nc database 5432 </dev/null) | nc -l -p $PORT; done\n";
    std::fs::write(folder.join("api/Dockerfile"), serve).unwrap();
    let project = Project { site: &site, folder: folder.clone() };
    project.compose(&["up", "-d"]);
    let services = ["db", "cache", "api", "web", "worker"];
    let before: Vec<_> = services.iter().map(|service| project.ids(service)).collect();
    assert!(before.iter().all(|ids| ids.len() == 1), "{before:?}");
    wait_until("the page over three services", || {
        site.say_of_port("127.0.0.1", 18088).filter(|line| line == "one from-db")
    });
    wait_until("the health check", || {
        let state = site.docker(&["inspect", "-f", "{{.State.Health.Status}}", &before[0][0]]);
        state.stdout.contains("healthy").then_some(())
    });
    assert_eq!(project.compose(&["exec", "-T", "db", "cat", "/data/x"]), "kept\n");
    assert!(project.compose(&["logs", "worker"]).contains("at work"));
    assert!(project.compose(&["top", "cache"]).contains("sleep 1000"));
    assert!(project.compose(&["port", "web", "80"]).contains("18088"));
    project.compose(&["pause", "cache"]);
    assert!(project.compose(&["ps", "cache"]).contains("Paused"));
    project.compose(&["unpause", "cache"]);
    project.compose(&["restart", "worker"]);
    project.compose(&["up", "-d", "--scale", "worker=3"]);
    assert_eq!(project.ids("worker").len(), 3);
    // Another environment for one service makes that one anew and leaves the others.
    std::fs::write(folder.join("api.env"), "GREETING=two\n").unwrap();
    project.compose(&["up", "-d", "--scale", "worker=3", "--no-deps", "api", "db", "cache"]);
    for (service, old) in services.iter().zip(&before).take(4) {
        let now = project.ids(service);
        assert_eq!(now == *old, *service != "api", "{service}: {old:?} {now:?}");
    }
    wait_until("the new greeting", || {
        site.say_of_port("127.0.0.1", 18088).filter(|line| line == "two from-db")
    });
    project.compose(&["down", "-v", "--rmi", "local"]);
    assert_eq!(site.docker(&["ps", "-aq"]).ok(), "");
    assert_eq!(site.docker(&["volume", "ls", "-q"]).ok(), "");
    assert_eq!(site.docker(&["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
    assert_eq!(site.docker(&["images", "-q", "five_api"]).ok(), "");
    assert_eq!(site.remains(), Vec::<String>::new());
}

#[test]
fn skopeo_copies_out_of_the_engine_and_into_it() {
    let site = Site::new();
    let there = site.dir.path().join("copied");
    let host = format!("unix://{}", site.socket().display());
    let skopeo = |words: &[&str]| {
        let policy = ["--insecure-policy"];
        site.command(Path::new("skopeo"), &[&policy[..], words].concat(), b"").ok()
    };
    let from = format!("docker-daemon:{IMAGE}");
    let folder = format!("dir:{}", there.display());
    skopeo(&["copy", "--src-daemon-host", &host, &from, &folder]);
    assert!(there.join("manifest.json").is_file());
    skopeo(&["copy", "--dest-daemon-host", &host, &folder, "docker-daemon:back:v1"]);
    let layers = |name: &str| site.docker(&["inspect", "-f", "{{.RootFS.Layers}}", name]).ok();
    assert_eq!(layers("back:v1"), layers(IMAGE));
    let shown = skopeo(&["inspect", "--daemon-host", &host, "docker-daemon:back:v1"]);
    assert!(shown.contains("\"Layers\""), "{shown}");
    assert_eq!(site.docker(&["run", "--rm", "back:v1", "echo", "copied"]).ok(), "copied\n");
}
