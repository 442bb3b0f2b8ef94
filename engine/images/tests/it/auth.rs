//! Who asks, and where that may be said.

use minke_engine_images::{Credentials, Error, ErrorKind, PullOptions, PushOptions, Pushed, chain};

use crate::pull::{layer, options, soon_bored, store};
use crate::registry::{Auth, Fault, Packing, Registry};

fn password(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Basic { username: username.into(), password: password.into() })
}

#[tokio::test]
async fn every_kind_of_authentication_is_answered() {
    let registry = Registry::start().await;
    registry.put_image("app", "v1", "amd64", &[(layer("x", 1000), Packing::Gzip)]);
    let reference = registry.reference("app:v1");
    let cases = [
        (Auth::Basic("me", "secret"), password("me", "secret"), true),
        (Auth::Basic("me", "secret"), password("me", "wrong"), false),
        (Auth::Basic("me", "secret"), None, false),
        (Auth::Bearer("me", "secret"), password("me", "secret"), true),
        (Auth::Bearer("me", "secret"), password("me", "wrong"), false),
        (Auth::Bearer("me", "secret"), None, false),
        (Auth::Bearer("me", "x"), Some(Credentials::RegistryToken("token-0".into())), true),
        (Auth::Bearer("me", "x"), Some(Credentials::RegistryToken("other".into())), false),
        (Auth::Refresh("again"), Some(Credentials::IdentityToken("again".into())), true),
        (Auth::Refresh("again"), Some(Credentials::IdentityToken("other".into())), false),
    ];
    for (auth, credentials, good) in cases {
        registry.set_auth(auth.clone());
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let options = PullOptions { auth: credentials.clone(), ..options() };
        match store.pull(&reference, &options, |_| {}).await {
            Ok(_) => assert!(good, "{auth:?} {credentials:?}"),
            Err(error) => {
                assert!(!good, "{auth:?} {credentials:?}: {}", chain(&error));
                assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
                assert!(!chain(&error).contains("secret"));
            }
        }
    }
}

#[tokio::test]
async fn redirects_that_lead_nowhere_end() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 1000), Packing::Gzip)]);
    let here = format!("/v2/app/blobs/{}", placed.blobs[0]);
    let round = vec![("location", format!("http://{}{here}", registry.address))];
    registry.fault(&here, 1000, Fault::Status(307, round));
    let error = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap_err();
    assert!(chain(&error).contains("more than 10 redirects"), "{}", chain(&error));
    assert!(registry.seen(&here).len() < 20, "a redirect that leads nowhere is asked again");
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_as_long_as_the_registry_says() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    registry.put_image("app", "v1", "amd64", &[(layer("x", 1000), Packing::Gzip)]);
    registry.fault("/manifests/v1", 1, Fault::Status(429, vec![("retry-after", "1".to_owned())]));
    let mut options = options();
    options.patience.longest_wait = std::time::Duration::from_secs(20);
    let begun = std::time::Instant::now();
    store.pull(&registry.reference("app:v1"), &options, |_| {}).await.unwrap();
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_token_that_runs_out_is_replaced() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 400_000), Packing::Gzip)]);
    registry.set_auth(Auth::Bearer("me", "secret"));
    let path = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
    registry.fault(&path, 1, Fault::Stall(100_000));
    let options = PullOptions { auth: password("me", "secret"), ..soon_bored() };
    let (reference, pulled) = (registry.reference("app:v1"), store.clone());
    let pull = tokio::spawn(async move { pulled.pull(&reference, &options, |_| {}).await });
    registry.sent_at_least(100_000).await;
    registry.expire_tokens();
    pull.await.unwrap().unwrap();
    assert_eq!(registry.seen("GET /token").len(), 2);
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let registry = Registry::start().await;
    let elsewhere = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let tar = layer("x", 50_000);
    let placed = registry.put_image("app", "v1", "amd64", &[(tar.clone(), Packing::Gzip)]);
    elsewhere.put_blob("app", crate::tars::gzip(&tar));
    registry.set_auth(Auth::Basic("me", "secret"));
    let to = format!("http://{}/elsewhere/{}", elsewhere.address, placed.blobs[0]);
    let path = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
    registry.fault(&path, 1, Fault::Status(307, vec![("location", to)]));
    let options = PullOptions { auth: password("me", "secret"), ..options() };
    store.pull(&registry.reference("app:v1"), &options, |_| {}).await.unwrap();
    let seen = elsewhere.seen("GET /elsewhere/");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
}

#[tokio::test]
async fn mirrors_are_asked_in_order_without_credentials() {
    let (empty, full) = (Registry::start().await, Registry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    full.put_image("library/app", "latest", "amd64", &[(layer("x", 1000), Packing::Gzip)]);
    let mirrors = ["127.0.0.1:1", &empty.address, &full.address];
    let mirrors = mirrors.iter().map(|address| format!("http://{address}")).collect();
    let options = PullOptions { mirrors, auth: password("me", "secret"), ..options() };
    let id = store.pull(&"app".parse().unwrap(), &options, |_| {}).await.unwrap();
    assert_eq!(store.image("app").unwrap().id, id);
    assert_eq!(store.image("app:latest").unwrap().tags[0].familiar(), "app:latest");
    assert_eq!(empty.seen("/manifests/latest").len(), 1);
    assert!(full.seen("").iter().all(|seen| seen.authorization.is_none()));
}

/// Pushes to a registry whose uploads go to another one.
async fn push_elsewhere(registry: &Registry, elsewhere: &Registry) -> Result<Pushed, Error> {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    registry.put_image("from", "v1", "amd64", &[(layer("x", 1000), Packing::Gzip)]);
    let id = store.pull(&registry.reference("from:v1"), &options(), |_| {}).await.unwrap();
    let name = registry.reference("app:v1");
    store.tag(&id, &name).await.unwrap();
    let uploads = format!("http://{}/v2/app/blobs/uploads/", elsewhere.address);
    reqwest::Client::new().post(&uploads).send().await.unwrap().error_for_status().unwrap();
    let to = vec![("location", format!("{uploads}1"))];
    // The layer's; the first is the wish to take it from the other repository.
    registry.fault("POST /v2/app/blobs/uploads/", 1, Fault::Status(403, Vec::new()));
    registry.fault("POST /v2/app/blobs/uploads/", 1, Fault::Status(202, to));
    registry.set_auth(Auth::Basic("me", "secret"));
    let auth = password("me", "secret");
    let options = PushOptions { auth, patience: options().patience, ..PushOptions::default() };
    store.push(&name, &options, |_| {}).await
}

#[tokio::test]
async fn credentials_do_not_follow_an_upload_to_another_port() {
    let (registry, elsewhere) = (Registry::start().await, Registry::start().await);
    push_elsewhere(&registry, &elsewhere).await.unwrap();
    let sent = elsewhere.seen("/v2/app/blobs/uploads/1");
    assert!(sent.len() >= 2, "{sent:?}");
    assert!(sent.iter().all(|seen| seen.authorization.is_none()), "{sent:?}");
    assert!(registry.seen("PUT /v2/app/manifests/").iter().all(|s| s.authorization.is_some()));
}

#[tokio::test]
async fn another_port_that_asks_for_credentials_gets_none() {
    let (registry, elsewhere) = (Registry::start().await, Registry::start().await);
    let refused = vec![("www-authenticate", "Basic realm=\"theirs\"".to_owned())];
    elsewhere.fault("PATCH ", 10, Fault::Status(401, refused));
    let error = push_elsewhere(&registry, &elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
    assert!(elsewhere.seen("").iter().all(|seen| seen.authorization.is_none()));
}
