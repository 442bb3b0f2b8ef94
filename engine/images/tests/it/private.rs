//! Whose image it is: what came here with credentials is not for everybody.

use minke_common_model::image_reference::ImageReference;
use minke_engine_images::{
    Credentials, ErrorKind, ImageId, PullOptions, PushOptions, RemoveOptions, Store,
};

use crate::pull::{layer, options, store};
use crate::registry::{Auth, Packing, Registry};

fn with_password(password: &str) -> PullOptions {
    let (username, password) = ("me".to_owned(), password.to_owned());
    PullOptions { auth: Some(Credentials::Basic { username, password }), ..options() }
}

/// A registry with an image for `me`, its name there and its name by digest.
async fn registry() -> (Registry, [ImageReference; 2]) {
    let registry = Registry::start().await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 1000), Packing::Gzip)]);
    registry.set_auth(Auth::Basic("me", "secret"));
    let name = registry.reference("app:v1");
    let by_digest = name.with_digest(placed.digest);
    (registry, [name, by_digest])
}

fn public(store: &Store, names: &[ImageReference; 2]) -> [Option<ImageId>; 2] {
    [0, 1].map(|nth| store.public_image(&names[nth]).map(|image| image.id))
}

#[tokio::test]
async fn an_image_pulled_with_credentials_is_private_until_it_is_had_without() {
    let (registry, names) = registry().await;
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path()).await;
    let id = first.pull(&names[0], &with_password("secret"), |_| {}).await.unwrap();
    assert_eq!(first.image(&names[0].to_string()).unwrap().id, id);
    assert_eq!(public(&first, &names), [None, None]);
    drop(first);
    let store = store(dir.path()).await;
    assert_eq!(public(&store, &names), [None, None], "it is forgotten at a restart");
    for asked in [with_password("wrong"), options()] {
        let refused = store.pull(&names[0], &asked, |_| {}).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert_eq!(public(&store, &names), [None, None]);
    }

    registry.set_auth(Auth::Open);
    store.pull(&names[0], &options(), |_| {}).await.unwrap();
    assert_eq!(public(&store, &names), [Some(id), Some(id)]);
    registry.set_auth(Auth::Basic("me", "secret"));
    store.pull(&names[0], &with_password("secret"), |_| {}).await.unwrap();
    assert_eq!(public(&store, &names), [Some(id), Some(id)], "everybody has had it");

    let options = RemoveOptions { force: true, ..RemoveOptions::default() };
    store.remove(&id.to_string(), options).await.unwrap();
    store.pull(&names[0], &with_password("secret"), |_| {}).await.unwrap();
    assert_eq!(public(&store, &names), [None, None], "what is known of it went with its names");
}

#[tokio::test]
async fn a_name_given_here_and_what_it_is_pushed_as_are_private() {
    let (registry, names) = registry().await;
    registry.set_auth(Auth::Open);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let id = store.pull(&names[0], &options(), |_| {}).await.unwrap();
    let given = registry.reference("given:v1");
    store.tag(&id, &given).await.unwrap();
    let patience = options().patience;
    let push = PushOptions { patience, ..PushOptions::default() };
    let pushed = store.push(&given, &push, |_| {}).await.unwrap().reference;
    assert!(pushed.digest().is_some() && store.image(&pushed.to_string()).is_ok());
    assert_eq!(public(&store, &[given, pushed]), [None, None]);
    assert_eq!(public(&store, &names), [Some(id), Some(id)]);
    let shortened: ImageReference = id.hex()[..12].parse().unwrap();
    assert!(store.image(&id.hex()[..12]).is_ok() && store.public_image(&shortened).is_none());
}
