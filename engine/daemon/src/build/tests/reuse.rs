//! What is taken from earlier builds, and what is not.

use std::collections::BTreeMap;

use minke_engine_client::BuildImage;

use super::harness::{SHELL, Site};

fn with_arg(value: &str) -> BuildImage {
    let build_args = BTreeMap::from([("V".to_owned(), value.to_owned())]);
    BuildImage { build_args, ..BuildImage::default() }
}

#[tokio::test]
async fn an_unchanged_build_is_taken_whole_also_after_a_restart() {
    let site = Site::new().await;
    let dockerfile = format!("{SHELL}ENV A=1\nWORKDIR /w\nRUN echo $A > /a\nCOPY f /f\nCMD x\n");
    let files = [("Dockerfile", dockerfile.as_str()), ("f", "1")];
    let first = site.build(&files).await;
    assert_eq!(first.cached(), 0, "{}", first.text);
    let second = site.build(&files).await;
    assert_eq!((second.cached(), second.image().id), (7, first.image().id), "{}", second.text);
    let site = site.restarted().await;
    let third = site.build(&files).await;
    assert_eq!((third.cached(), third.image().id), (7, first.image().id), "{}", third.text);
    let report = site.store.verify().await.unwrap();
    let site = site.restarted().await;
    let no_cache = BuildImage { no_cache: true, ..BuildImage::default() };
    let again = site.build_with(&files, no_cache).await;
    assert_eq!(again.cached(), 0);
    drop(report);
}

#[tokio::test]
async fn a_changed_file_runs_what_follows_and_only_that() {
    let site = Site::new().await;
    let dockerfile = format!("{SHELL}RUN echo before > /b\nCOPY f /f\nRUN busybox cat /f > /g\n");
    let one = site.build(&[("Dockerfile", &dockerfile), ("f", "1")]).await;
    let two = site.build(&[("Dockerfile", &dockerfile), ("f", "2")]).await;
    assert_eq!(two.cached(), 3, "{}", two.text);
    assert_eq!(site.tree(two.image())["/g"], "644 0:0 2");
    let mode = site.build(&[("Dockerfile", &dockerfile), ("f*", "2")]).await;
    assert_eq!(mode.cached(), 3, "a mode is content: {}", mode.text);
    let back = site.build(&[("Dockerfile", &dockerfile), ("f", "1"), ("unrelated", "x")]).await;
    assert_eq!((back.cached(), back.image().id), (5, one.image().id));
}

#[tokio::test]
async fn values_that_read_alike_are_different_steps() {
    let site = Site::new().await;
    let file = |pairs: &str| format!("{SHELL}ENV {pairs}\nRUN echo \"$A|$B\" > /seen\n");
    for (pairs, seen) in [("A=\"1 B=2\"", "1 B=2|"), ("A=1 B=2", "1|2")] {
        let outcome = site.build(&[("Dockerfile", &file(pairs))]).await;
        assert_eq!(site.tree(outcome.image())["/seen"], format!("644 0:0 {seen}\n"), "{pairs}");
        assert!(outcome.text.contains("Running in"), "{}", outcome.text);
    }
}

#[tokio::test]
async fn a_file_of_another_name_is_another_step() {
    let site = Site::new().await;
    for name in ["one", "two"] {
        let file = format!("{SHELL}RUN busybox mkdir /there\nCOPY {name} /there\n");
        let outcome = site.build(&[("Dockerfile", &file), (name, "same")]).await;
        let tree = site.tree(outcome.image());
        let copied: Vec<&String> = tree.keys().filter(|p| p.starts_with("/there/")).collect();
        assert_eq!(copied, [&format!("/there/{name}")], "{}", outcome.text);
    }
}

#[tokio::test]
async fn an_argument_counts_from_its_first_use() {
    let site = Site::new().await;
    let dockerfile = format!("{SHELL}RUN echo before > /b\nARG V=0\nENV K=1\nRUN echo $V > /v\n");
    let files = [("Dockerfile", dockerfile.as_str())];
    site.build_with(&files, with_arg("1")).await;
    let second = site.build_with(&files, with_arg("2")).await;
    assert_eq!(second.cached(), 4, "{}", second.text);
    assert_eq!(site.tree(second.image())["/v"], "644 0:0 2\n");
    assert!(second.image().config.config.env.iter().all(|e| !e.starts_with("V=")));
    let third = site.build_with(&files, with_arg("2")).await;
    assert_eq!(third.cached(), 5);
}

#[tokio::test]
async fn a_stage_that_made_the_same_again_changes_nothing_after_it() {
    let site = Site::new().await;
    let file = |comment: &str| {
        format!(
            "{SHELL}FROM shell AS make\nRUN echo same > /out # {comment}\nFROM shell\nCOPY --from=make /out /out\nRUN busybox cat /out\n"
        )
    };
    site.build(&[("Dockerfile", &file("one"))]).await;
    let second = site.build(&[("Dockerfile", &file("two"))]).await;
    assert!(second.text.contains("Running in"), "{}", second.text);
    assert_eq!(second.cached(), 4, "{}", second.text);
}

#[tokio::test]
async fn a_pruned_cache_is_a_miss_and_named_images_stay() {
    let site = Site::new().await;
    let dockerfile = format!("{SHELL}RUN echo x > /x\n");
    let files = [("Dockerfile", dockerfile.as_str())];
    let request = BuildImage { tags: vec!["kept".into()], ..BuildImage::default() };
    let first = site.build_with(&files, request).await;
    let image = first.image().id;
    let site = {
        std::fs::remove_file(site.dir.path().join("build/cache.json")).unwrap();
        site.restarted().await
    };
    assert_eq!(site.store.image("kept").unwrap().id, image);
    let second = site.build(&files).await;
    assert_eq!(second.cached(), 0);
}
