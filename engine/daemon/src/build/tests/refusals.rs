//! What fails, how it is said, and that nothing stays of it.

use bytes::Bytes;
use futures_util::StreamExt;
use minke_engine_client::BuildImage;

use super::harness::{SHELL, Site, tar, until};

async fn error(files: &[(&str, &str)]) -> String {
    let site = Site::new().await;
    let outcome = site.build(files).await;
    site.emptied().await;
    outcome.error.unwrap_or_else(|| panic!("it was built:\n{}", outcome.text))
}

#[tokio::test]
async fn a_failing_command_says_its_line_and_code() {
    let file = format!("{SHELL}ENV A=1\n\nRUN echo about to fail && \\\n  exit 3\n");
    let text = error(&[("Dockerfile", &file)]).await;
    assert!(text.contains("returned a non-zero code: 3"), "{text}");
    assert!(text.ends_with("(Dockerfile line 6)"), "{text}");
}

#[tokio::test]
async fn wrong_dockerfiles_are_refused_with_their_place() {
    for (file, says) in [
        ("FROM scratch\nCOPPY a b\n", "line 2, column 1: unknown instruction `COPPY`"),
        ("FROM scratch\nCOPY a b\n", "COPY failed: file not found in build context"),
        ("FROM scratch\nCOPY a* b?/c d/\n", "COPY failed: no source files were specified"),
        ("FROM scratch\nCOPY busybox nothing d/\n", "stat nothing: file does not exist"),
        ("FROM scratch\nCOPY ../a b\n", "outside the build context: ../a (Dockerfile line 2)"),
        ("FROM scratch\nCOPY Dockerfile busybox /x\n", "must be a directory and end with a /"),
        ("FROM scratch\nCOPY --from=127.0.0.1:1/x /a /b\n", "Dockerfile line 2"),
        ("FROM scratch\nCOPY --chown=joe busybox /b\n", "unable to find user joe"),
        ("FROM scratch\nCOPY --chmod=99 busybox /b\n", "octal mode"),
        ("FROM scratch\nEXPOSE http\n", "invalid port `http`"),
        ("FROM scratch\n", "No image was generated"),
        ("FROM scratch\nENV A=${B:?missing}\n", "B: missing (Dockerfile line 2)"),
        ("FROM scratch\nRUN --mount=type=secret,id=t,required=true x\n", "secret `t` is required"),
        ("FROM scratch\nRUN --security=insecure x\n", "not supported"),
        ("", "cannot be empty"),
    ] {
        let text = error(&[("Dockerfile", file)]).await;
        assert!(text.contains(says), "{file:?}: {text}");
    }
    assert!(
        error(&[("Other", "FROM scratch")]).await.contains("Cannot locate specified Dockerfile")
    );
    let ignored =
        [("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "x"), (".dockerignore", "a\n")];
    assert!(error(&ignored).await.contains("excluded by .dockerignore"));
}

#[tokio::test]
async fn a_link_of_the_context_reads_nothing_of_the_host() {
    let site = Site::new().await;
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY passwd /p\n"),
        ("passwd", "→/etc/passwd"),
        ("etc/passwd", "of the context"),
    ];
    let outcome = site.build(&files).await;
    assert_eq!(site.tree(outcome.image())["/p"], "644 0:0 of the context");
    let text =
        error(&[("Dockerfile", "FROM scratch\nCOPY p /p\n"), ("p", "→../../../etc/passwd")]).await;
    assert!(text.contains("file does not exist"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_build() {
    let site = Site::new().await;
    let seconds = (600_000 + std::process::id()).to_string();
    let file = format!("{SHELL}RUN echo started && busybox sleep {seconds}\n");
    let body = tar(&[("Dockerfile", &file)], true);
    let (sender, mut started) = tokio::sync::mpsc::channel::<()>(8);
    let client = site.client.clone();
    let build = tokio::spawn(async move {
        let body = futures_util::stream::iter([Ok(Bytes::from(body))]).boxed();
        let take = |line: &minke_engine_client::wire::ProgressLine| {
            if line.stream.as_deref().is_some_and(|s| s.contains("started\n")) {
                let _ = sender.try_send(());
            }
        };
        client.build(&BuildImage::default(), body, take).await
    });
    started.recv().await.unwrap();
    until("the step does not sleep", || sleeping(&seconds)).await;
    build.abort();
    until("the build goes on", || !sleeping(&seconds)).await;
    site.emptied().await;
}

/// Whether a process sleeps for so long.
fn sleeping(seconds: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let end = format!("sleep\0{seconds}\0");
    processes
        .filter_map(|p| std::fs::read(p.path().join("cmdline")).ok())
        .any(|line| line.ends_with(end.as_bytes()))
}
