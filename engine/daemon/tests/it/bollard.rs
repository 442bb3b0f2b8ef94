//! bollard, the Docker client of Rust: its types are strict about the shapes of answers.

use std::collections::HashMap;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerUpdateBody, EndpointSettings, HealthConfig,
    HostConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CommitContainerOptionsBuilder, CreateContainerOptionsBuilder,
    CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptions, ListVolumesOptions, LogsOptionsBuilder,
    PruneContainersOptions, PruneVolumesOptions, RemoveContainerOptionsBuilder, RemoveImageOptions,
    RemoveVolumeOptions, RenameContainerOptionsBuilder, StatsOptionsBuilder,
    TagImageOptionsBuilder, TopOptionsBuilder, UploadToContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use bollard::{ClientVersion, Docker, body_full};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

use crate::support::{Site, image_layer};

fn connect(site: &Site) -> Docker {
    let version = ClientVersion { major_version: 1, minor_version: 47 };
    Docker::connect_with_unix(&site.socket().to_string_lossy(), 60, &version).unwrap()
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

fn body(command: &[&str]) -> ContainerCreateBody {
    let (image, cmd) = (Some("busybox".to_owned()), words(command));
    ContainerCreateBody { image, cmd, ..ContainerCreateBody::default() }
}

async fn create(docker: &Docker, name: &str, body: ContainerCreateBody) -> String {
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    docker.create_container(Some(options), body).await.unwrap().id
}

#[test]
fn containers_go_through_their_life() {
    let site = Site::new();
    let docker = connect(&site);
    site.block_on(async {
        let negotiated = docker.clone().negotiate_version().await.unwrap();
        assert_eq!(negotiated.ping().await.unwrap(), "OK");
        let mut wanted = body(&["sh", "-c", "echo out; echo err >&2; cat; sleep 1000"]);
        wanted.open_stdin = Some(true);
        wanted.labels = Some(HashMap::from([("team".to_owned(), "a".to_owned())]));
        wanted.healthcheck = Some(HealthConfig { test: words(&["NONE"]), ..Default::default() });
        wanted.host_config = Some(HostConfig {
            memory: Some(64 << 20),
            binds: words(&["vol:/data"]),
            ..HostConfig::default()
        });
        let id = create(&docker, "box", wanted).await;
        let attach = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true);
        let attached = docker.attach_container("box", Some(attach.stream(true).build())).await;
        let mut attached = attached.unwrap();
        docker.start_container("box", None).await.unwrap();
        attached.input.write_all(b"typed\n").await.unwrap();
        let mut said = String::new();
        while !(said.contains("typed") && said.contains("err")) {
            said.push_str(&attached.output.next().await.unwrap().unwrap().to_string());
        }
        let shown = docker.inspect_container("box", None).await.unwrap();
        assert_eq!(shown.state.unwrap().running, Some(true));
        assert_eq!(shown.host_config.unwrap().memory, Some(64 << 20));
        let filters = HashMap::from([("label".to_owned(), vec!["team=a".to_owned()])]);
        let list = ListContainersOptionsBuilder::new().filters(&filters).size(true).build();
        let listed = docker.list_containers(Some(list)).await.unwrap();
        assert_eq!(listed.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), [Some(id)]);
        for arguments in ["", "-eo pid,args"] {
            let top = TopOptionsBuilder::new().ps_args(arguments).build();
            let top = docker.top_processes("box", Some(top)).await.unwrap();
            assert!(!top.processes.unwrap().is_empty() && top.titles.unwrap().len() > 1);
        }
        let once = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let stats = docker.stats("box", Some(once)).next().await.unwrap().unwrap();
        assert!(stats.memory_stats.unwrap().usage.unwrap() > 0);
        docker.pause_container("box").await.unwrap();
        docker.unpause_container("box").await.unwrap();
        let rename = RenameContainerOptionsBuilder::new().name("renamed").build();
        docker.rename_container("box", rename).await.unwrap();
        let policy = RestartPolicy {
            name: Some(RestartPolicyNameEnum::ON_FAILURE),
            maximum_retry_count: Some(2),
        };
        let update = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        docker.update_container("renamed", update).await.unwrap();
        let logs = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("1").build();
        let logged: Vec<LogOutput> =
            docker.logs("renamed", Some(logs)).try_collect().await.unwrap();
        assert_eq!(logged.len(), 1, "{logged:?}");
        let wait = WaitContainerOptionsBuilder::new().condition("next-exit").build();
        let mut waited = Box::pin(docker.wait_container("renamed", Some(wait)));
        let (ended, killed) = tokio::join!(waited.next(), docker.kill_container("renamed", None));
        killed.unwrap();
        // bollard takes a code other than 0 for an error of the wait.
        let code = match ended.unwrap() {
            Ok(answer) => answer.status_code,
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => code,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(code, 137);
        let remove = RemoveContainerOptionsBuilder::new().v(true).build();
        docker.remove_container("renamed", Some(remove)).await.unwrap();
        let pruned = docker.prune_containers(None::<PruneContainersOptions>).await.unwrap();
        assert_eq!(pruned.space_reclaimed, Some(0));
    });
}

#[test]
fn files_execs_and_commits() {
    let site = Site::new();
    let docker = connect(&site);
    site.block_on(async {
        create(&docker, "box", body(&["sleep", "1000"])).await;
        docker.start_container("box", None).await.unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, "given", &b"text"[..]).unwrap();
        let upload = UploadToContainerOptionsBuilder::new().path("/tmp").build();
        let tar = tar.into_inner().unwrap();
        docker.upload_to_container("box", Some(upload), body_full(tar.into())).await.unwrap();
        let options = CreateExecOptions {
            cmd: Some(vec!["sh", "-c", "cat /tmp/given; exit 3"]),
            attach_stdout: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = docker.create_exec("box", options).await.unwrap().id;
        match docker.start_exec(&exec, None).await.unwrap() {
            StartExecResults::Attached { output, .. } => {
                let said: Vec<LogOutput> = output.try_collect().await.unwrap();
                assert_eq!(said[0].to_string(), "text");
            }
            StartExecResults::Detached => panic!("it was to be attached"),
        }
        assert_eq!(docker.inspect_exec(&exec).await.unwrap().exit_code, Some(3));
        let changes = docker.container_changes("box").await.unwrap().unwrap();
        let changed: Vec<(&str, i64)> =
            changes.iter().map(|change| (change.path.as_str(), change.kind as i64)).collect();
        assert_eq!(changed, [("/tmp", 0), ("/tmp/given", 1)]);
        let download = DownloadFromContainerOptionsBuilder::new().path("/tmp/given").build();
        let pieces: Vec<_> =
            docker.download_from_container("box", Some(download)).try_collect().await.unwrap();
        assert!(pieces.concat().windows(4).any(|window| window == b"text"));
        let exported: Vec<_> = docker.export_container("box").try_collect().await.unwrap();
        let exported = exported.concat();
        let mut archive = tar::Archive::new(&exported[..]);
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        for name in ["bin/busybox", "tmp/given", "etc/passwd"] {
            assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
        }
        let commit = CommitContainerOptionsBuilder::new().container("box").repo("made").tag("v1");
        let commit = commit.comment("why").author("me").changes("CMD [\"cat\", \"/tmp/given\"]");
        let made = docker.commit_container(commit.build(), ContainerConfig::default()).await;
        let image = docker.inspect_image("made:v1").await.unwrap();
        assert_eq!(image.id, Some(made.unwrap().id));
        assert_eq!(image.author.as_deref(), Some("me"));
        let history = docker.image_history("made:v1").await.unwrap();
        assert_eq!((history.len(), history[0].comment.as_str()), (2, "why"));
        let remove = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container("box", Some(remove)).await.unwrap();
    });
    assert_eq!(site.docker(&["run", "--rm", "made:v1"]).ok(), "text");
    // The mount points of the committed container are no part of it.
    let found = site.docker(&["run", "--rm", "--network", "none", "made:v1", "ls", "/etc"]).ok();
    assert_eq!(found, "group\nhostname\nhosts\npasswd\nresolv.conf\n");
}

#[test]
fn images_volumes_networks_and_the_system() {
    let site = Site::new();
    let docker = connect(&site);
    site.block_on(async {
        let info = docker.info().await.unwrap();
        assert_eq!(info.images, Some(1));
        assert!(docker.version().await.unwrap().api_version.is_some());
        let import = CreateImageOptionsBuilder::new().from_src("-").repo("imported").tag("v1");
        let import = import.changes(vec!["ENV A=1".to_owned()]).build();
        let layer = body_full(image_layer().into());
        docker.create_image(Some(import), Some(layer), None).try_collect::<Vec<_>>().await.unwrap();
        let image = docker.inspect_image("imported:v1").await.unwrap();
        assert!(image.config.unwrap().env.unwrap().contains(&"A=1".to_owned()));
        let tag = TagImageOptionsBuilder::new().repo("other").tag("v2").build();
        docker.tag_image("imported:v1", Some(tag)).await.unwrap();
        let saved: Vec<_> = docker.export_image("other:v2").try_collect().await.unwrap();
        assert!(saved.concat().len() > image_layer().len());
        let listed = docker.list_images(None::<ListImagesOptions>).await.unwrap();
        assert_eq!(listed.len(), 2);
        for name in ["other:v2", "imported:v1"] {
            docker.remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
        }
        let name = Some("vol".to_owned());
        let volume = VolumeCreateRequest { name, ..VolumeCreateRequest::default() };
        docker.create_volume(volume).await.unwrap();
        assert_eq!(docker.inspect_volume("vol").await.unwrap().driver, "local");
        let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.unwrap();
        assert_eq!(volumes.volumes.unwrap().len(), 1);
        docker.remove_volume("vol", None::<RemoveVolumeOptions>).await.unwrap();
        docker.prune_volumes(None::<PruneVolumesOptions>).await.unwrap();
        let request = NetworkCreateRequest { name: "net".to_owned(), ..Default::default() };
        let network = docker.create_network(request).await.unwrap().id;
        create(&docker, "box", body(&["sleep", "1000"])).await;
        docker.start_container("box", None).await.unwrap();
        let endpoint = EndpointSettings { aliases: words(&["also"]), ..Default::default() };
        let container = "box".to_owned();
        let connect = NetworkConnectRequest { container, endpoint_config: Some(endpoint) };
        docker.connect_network(&network, connect).await.unwrap();
        let shown = docker.inspect_network("net", None).await.unwrap();
        assert_eq!(shown.containers.unwrap().len(), 1);
        let container = "box".to_owned();
        let disconnect = NetworkDisconnectRequest { container, force: Some(false) };
        docker.disconnect_network("net", disconnect).await.unwrap();
        docker.remove_network("net").await.unwrap();
        assert_eq!(docker.list_networks(None).await.unwrap().len(), 3);
        let used = docker.df(None).await.unwrap();
        assert!(serde_json::to_value(used).unwrap().is_object());
        let filters = HashMap::from([("container".to_owned(), vec!["box".to_owned()])]);
        let events = EventsOptionsBuilder::new().since("0.1").until("0s").filters(&filters).build();
        let told: Vec<_> = docker.events(Some(events)).try_collect().await.unwrap();
        let actions: Vec<String> = told.into_iter().filter_map(|event| event.action).collect();
        assert!(actions.starts_with(&["create".to_owned(), "start".to_owned()]), "{actions:?}");
    });
}
