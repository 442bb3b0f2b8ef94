//! Images that a build takes something from stay while it runs.

use bytes::Bytes;
use futures_util::StreamExt;
use minke_engine_client::BuildImage;
use minke_engine_images::{Error, RemoveOptions};

use super::harness::{SHELL, Site, tar};

/// Builds an image with a file of its name.
async fn lend(site: &Site, name: &str) {
    let tags = vec![name.to_owned()];
    let file = format!("FROM scratch\nCOPY {name} /\n");
    let request = BuildImage { tags, ..BuildImage::default() };
    site.build_with(&[("Dockerfile", &file), (name, name)], request).await.image();
}

#[tokio::test]
async fn images_that_a_build_takes_from_cannot_be_removed_before_its_end() {
    let site = Site::new().await;
    let lent = ["copied", "mounted", "asked"];
    for name in lent {
        lend(&site, name).await;
    }
    let file = format!(
        "{SHELL}FROM shell\nCOPY --from=copied /copied /\n\
         RUN --mount=from=mounted,target=/m echo started && busybox sleep 600\n"
    );
    let (sender, mut started) = tokio::sync::mpsc::channel::<()>(8);
    let (client, body) = (site.client.clone(), tar(&[("Dockerfile", &file)], true));
    let build = tokio::spawn(async move {
        let body = futures_util::stream::iter([Ok(Bytes::from(body))]).boxed();
        let take = |line: &minke_engine_client::wire::ProgressLine| {
            if line.stream.as_deref().is_some_and(|text| text == "started\n") {
                let _ = sender.try_send(());
            }
        };
        let cache_from = vec!["asked".to_owned()];
        let request = BuildImage { cache_from, ..BuildImage::default() };
        client.build(&request, body, take).await
    });
    started.recv().await.unwrap();
    let remove = |name| site.store.remove(name, RemoveOptions::default());
    for name in lent {
        let kept = remove(name).await;
        assert!(matches!(kept, Err(Error::Conflict(_))), "{name}: {kept:?}");
    }
    site.store.prune(false, |_| true).await.unwrap();
    for name in lent {
        site.store.image(name).unwrap();
    }
    build.abort();
    site.emptied().await;
    for name in lent {
        remove(name).await.unwrap();
    }
}
