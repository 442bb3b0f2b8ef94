use futures_util::TryStreamExt;

use super::*;
use crate::wire::HostConfig;

fn of_image(image: &str) -> CreateContainer {
    let config = ContainerConfig { image: image.to_owned(), ..ContainerConfig::default() };
    CreateContainer { config, ..CreateContainer::default() }
}

async fn engine_with_image() -> FakeEngine {
    let engine = FakeEngine::new();
    engine.offer_image("web:1", ContainerConfig::default(), &[100, 300]);
    let pull = PullImage { reference: "web:1".to_owned(), ..PullImage::default() };
    let mut percents = Vec::new();
    engine.pull_image(&pull, |progress| percents.push(progress.percent())).await.unwrap();
    assert_eq!(percents, [50, 100, 62, 100], "a layer is known when its first line comes");
    engine
}

#[tokio::test]
async fn refuses_what_a_real_engine_refuses() {
    let engine = engine_with_image().await;
    let missing = engine.create_container("a1", &of_image("other:1")).await.unwrap_err();
    assert!(missing.is_not_found());
    let id = engine.create_container("a1", &of_image("web:1")).await.unwrap();
    assert!(engine.create_container("a1", &of_image("web:1")).await.unwrap_err().is_conflict());
    assert!(engine.remove_image("web:1", false).await.unwrap_err().is_conflict());
    engine.start_container(&id).await.unwrap();
    let running = engine.remove_container("a1", RemoveContainer::default()).await.unwrap_err();
    assert!(running.is_conflict());
    engine.stop_container("a1", None).await.unwrap();
    engine.remove_container("a1", RemoveContainer::default()).await.unwrap();
    assert!(engine.container(&id).await.unwrap().is_none());
    engine.remove_image("web:1", false).await.unwrap();
    assert!(engine.images().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_restart_policy_starts_again_and_a_wait_sees_the_end() {
    let engine = engine_with_image().await;
    let policy = RestartPolicy { name: "on-failure".to_owned(), maximum_retry_count: 1 };
    let mut body = of_image("web:1");
    body.host_config = HostConfig { restart_policy: policy, ..HostConfig::default() };
    let id = engine.create_container("web", &body).await.unwrap();
    engine.start_container("web").await.unwrap();
    engine.exit("web", 3);
    let details = engine.container("web").await.unwrap().unwrap();
    assert!(details.state.running && details.restart_count == 1);
    let waiter = tokio::spawn({
        let (engine, id) = (engine.clone(), id.clone());
        async move { engine.wait_container(&id).await.unwrap() }
    });
    tokio::task::yield_now().await;
    engine.exit("web", 4);
    assert_eq!(waiter.await.unwrap(), 4);
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container() {
    let engine = engine_with_image().await;
    let id = engine.create_container("web", &of_image("web:1")).await.unwrap();
    engine.start_container(&id).await.unwrap();
    engine.say("web", LogSource::Stdout, "one");
    let options = LogOptions { follow: true, stdout: true, ..LogOptions::default() };
    let log = engine.logs(&id, &options).await.unwrap();
    engine.say("web", LogSource::Stderr, "not asked for");
    engine.say("web", LogSource::Stdout, "two");
    engine.exit("web", 0);
    let lines: Vec<_> = log.map_ok(|chunk| chunk.bytes).try_collect().await.unwrap();
    assert_eq!(lines, ["one\n", "two\n"]);
}

#[tokio::test]
async fn an_injected_fault_can_lose_the_answer_of_a_call_that_took_effect() {
    let engine = engine_with_image().await;
    engine.inject([None, Some(FakeFault::AnswerLost), Some(FakeFault::Unreachable)]);
    assert!(engine.images().await.is_ok());
    let lost = engine.create_container("web", &of_image("web:1")).await.unwrap_err();
    assert!(lost.is_unreachable());
    assert!(engine.info().await.unwrap_err().is_unreachable());
    assert!(engine.container("web").await.unwrap().is_some());
}

#[tokio::test]
async fn networks_and_volumes_in_use_stay() {
    let engine = engine_with_image().await;
    let network = CreateNetwork { name: "n1".to_owned(), ..CreateNetwork::default() };
    engine.create_network(&network).await.unwrap();
    assert!(engine.create_network(&network).await.unwrap_err().is_conflict());
    let mut body = of_image("web:1");
    body.host_config.network_mode = "n1".to_owned();
    body.host_config.binds = vec!["data:/data".to_owned()];
    engine.create_container("web", &body).await.unwrap();
    engine.start_container("web").await.unwrap();
    assert_eq!(engine.remove_network("n1").await.unwrap_err().status(), Some(403));
    assert!(engine.remove_volume("data", false).await.unwrap_err().is_conflict());
    engine.remove_container("web", RemoveContainer { force: true, volumes: true }).await.unwrap();
    engine.remove_network("n1").await.unwrap();
    assert!(engine.volume("data").await.unwrap().is_some(), "a named volume outlives containers");
    engine.remove_volume("data", false).await.unwrap();
}

#[tokio::test]
async fn a_container_is_in_the_networks_it_names_and_else_in_that_of_its_mode() {
    let engine = engine_with_image().await;
    let network = CreateNetwork { name: "n1".to_owned(), ..CreateNetwork::default() };
    engine.create_network(&network).await.unwrap();
    for (name, mode, named, joined) in [
        ("a1", "", vec!["n1"], vec!["n1"]),
        ("a2", "", vec![], vec!["bridge"]),
        ("a3", "n1", vec![], vec!["n1"]),
        ("a4", "none", vec!["n1"], vec!["none"]),
    ] {
        let mut body = of_image("web:1");
        body.host_config.network_mode = mode.to_owned();
        let endpoints = named.into_iter().map(|network| (network.to_owned(), None));
        body.networking_config.endpoints_config = endpoints.collect();
        engine.create_container(name, &body).await.unwrap();
        let made = engine.container(name).await.unwrap().unwrap();
        let networks: Vec<_> = made.network_settings.networks.into_keys().collect();
        assert_eq!(networks, joined, "{name}");
    }
}
