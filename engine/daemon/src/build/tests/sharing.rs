//! Stages side by side, and what one build leaves to another: linked layers, images to take steps from,
//! squashed layers.

use std::time::{Duration, Instant};

use minke_engine_client::BuildImage;

use super::harness::{SHELL, Site};

/// A step that is done only when the other one runs at the same time.
fn meeting(me: &str, other: &str) -> String {
    format!(
        "FROM shell AS {me}\n\
         RUN --mount=type=cache,id=meeting,target=/m busybox touch /m/{me}; n=0; \
         until [ -e /m/{other} ] || [ $n = 400 ]; do busybox sleep 0.05; n=$((n+1)); done; \
         echo {me} speaks; [ -e /m/{other} ] && echo {me} > /{me}\n"
    )
}

#[tokio::test]
async fn stages_run_at_the_same_time_and_read_one_after_the_other() {
    let site = Site::new().await;
    let file = format!(
        "{SHELL}{}{}FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
        meeting("one", "two"),
        meeting("two", "one"),
    );
    let outcome = site.build(&[("Dockerfile", &file)]).await;
    let tree = site.tree(outcome.image());
    assert_eq!((tree["/one"].as_str(), tree["/two"].as_str()), ("644 0:0 one\n", "644 0:0 two\n"));
    let places: Vec<usize> =
        ["Step 4/10", "one speaks", "Step 6/10", "two speaks", "Step 8/10", "Successfully built"]
            .iter()
            .map(|text| outcome.text.find(text).unwrap_or_else(|| panic!("{text}: {outcome:?}")))
            .collect();
    assert!(places.is_sorted(), "{}", outcome.text);
}

#[tokio::test]
async fn a_stage_that_fails_ends_the_others_and_is_heard() {
    let site = Site::new().await;
    let file = format!(
        "{SHELL}FROM shell AS slow\nRUN busybox sleep 600 && busybox touch /slow\n\
         FROM shell AS broken\nRUN echo last words && exit 7\n\
         FROM scratch\nCOPY --from=slow /slow /\nCOPY --from=broken /x /\n"
    );
    let begun = Instant::now();
    let outcome = site.build(&[("Dockerfile", &file)]).await;
    let error = outcome.error.clone().unwrap();
    assert!(error.contains("returned a non-zero code: 7") && error.contains("line 7"), "{error}");
    assert!(outcome.text.contains("last words"), "{}", outcome.text);
    assert!(begun.elapsed() < Duration::from_secs(60));
    site.emptied().await;
}

#[tokio::test]
async fn a_linked_layer_is_taken_on_another_base_too() {
    let site = Site::new().await;
    let file = |base: &str| {
        format!("{SHELL}FROM shell\nRUN echo {base} > /base\nCOPY --link f /dir/f\nUSER 1\n")
    };
    let one = site.build(&[("Dockerfile", &file("one")), ("f", "same")]).await;
    let two = site.build(&[("Dockerfile", &file("two")), ("f", "same")]).await;
    let last = |outcome: &super::harness::Outcome| *outcome.image().layers().last().unwrap();
    assert_eq!(last(&one), last(&two));
    // The shell's two steps, and the linked one.
    assert_eq!(two.cached(), 3, "{}", two.text);
    assert_eq!(site.tree(two.image())["/dir/f"], "644 0:0 same");
    assert_eq!(site.tree(two.image())["/base"], "644 0:0 two\n");
    let again = site.build(&[("Dockerfile", &file("two")), ("f", "same")]).await;
    assert_eq!(again.image().id, two.image().id);
    let changed = site.build(&[("Dockerfile", &file("two")), ("f", "other")]).await;
    assert_ne!(last(&changed), last(&two));
}

#[tokio::test]
async fn steps_are_taken_from_an_image_that_is_named() {
    let site = Site::new().await;
    let file = format!("{SHELL}ARG V=1\nENV A=$V\nRUN echo $A > /a\nCMD x\n");
    let files = [("Dockerfile", file.as_str())];
    let tags = vec!["kept".to_owned()];
    let first = site.build_with(&files, BuildImage { tags, ..BuildImage::default() }).await;
    // As on another machine, where only the image is known.
    std::fs::remove_file(site.dir.path().join("build/cache.json")).unwrap();
    let site = site.restarted().await;
    let cache_from = vec!["kept".to_owned(), "127.0.0.1:1/nobody/has:it".to_owned()];
    let named = BuildImage { cache_from, ..BuildImage::default() };
    let second = site.build_with(&files, named.clone()).await;
    assert_eq!((second.cached(), second.image().id), (5, first.image().id), "{}", second.text);
    assert!(second.text.contains("[Warning] nothing is taken from 127.0.0.1:1/"));
    let third = site.build(&files).await;
    assert_eq!(third.cached(), 0, "what was lent is not kept: {}", third.text);
    let changed = format!("{file}RUN echo more > /more\n");
    let fourth = site.build_with(&[("Dockerfile", &changed)], named).await;
    assert!(site.tree(fourth.image()).contains_key("/more"));
}

#[tokio::test]
async fn a_base_alone_is_itself_and_labels_are_a_step() {
    let site = Site::new().await;
    let tags = vec!["base".to_owned()];
    let request = BuildImage { tags, ..BuildImage::default() };
    let base = site.build_with(&[("Dockerfile", SHELL)], request).await;
    let same = site.build(&[("Dockerfile", "FROM base\n")]).await;
    assert_eq!(same.image().id, base.image().id);
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let request = BuildImage { labels, ..BuildImage::default() };
    let labelled = site.build_with(&[("Dockerfile", "FROM base\n")], request.clone()).await;
    assert!(labelled.text.contains("Step 2/2 : LABEL \"a\"=\"b\""), "{}", labelled.text);
    let again = site.build_with(&[("Dockerfile", "FROM base\n")], request).await;
    assert_eq!(again.image().id, labelled.image().id);
}

#[tokio::test]
async fn the_hash_after_the_last_step_is_the_images() {
    let site = Site::new().await;
    for end in ["RUN echo x > /x\n", "ENV A=1\n", "ARG A\n", "WORKDIR /w\n"] {
        let outcome = site.build(&[("Dockerfile", &format!("{SHELL}{end}"))]).await;
        let hashes: Vec<&str> =
            outcome.text.lines().filter_map(|line| line.strip_prefix(" ---> ")).collect();
        let id = outcome.image().id.hex();
        assert_eq!(*hashes.last().unwrap(), &id[..12], "{}", outcome.text);
    }
}
