//! Every instruction, by what it leaves in the image.

use std::collections::BTreeMap;

use minke_engine_client::BuildImage;

use super::harness::{SHELL, Site};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[tokio::test]
async fn stages_run_and_hand_files_over() {
    let site = Site::new().await;
    let dockerfile = format!(
        "{SHELL}\
         FROM shell AS make\n\
         ARG WHO=nobody\n\
         ENV GREETING=hello\n\
         WORKDIR /srv/dir\n\
         RUN echo \"$GREETING $WHO\" > out && busybox chown 7:8 out && busybox chmod 640 out\n\
         FROM scratch\n\
         LABEL from=file\n\
         COPY --from=make /srv/dir/out /got/\n\
         COPY --from=make --chown=1:2 --chmod=444 /srv/dir /all\n\
         USER 5\n\
         EXPOSE 80\n\
         VOLUME /data\n\
         ENTRYPOINT [\"/bin/sh\"]\n\
         CMD [\"-c\", \"true\"]\n"
    );
    let request = BuildImage {
        tags: vec!["demo:1".into(), "demo:2".into()],
        build_args: map(&[("WHO", "world"), ("NEVER", "used")]),
        labels: map(&[("asked", "yes")]),
        ..BuildImage::default()
    };
    let outcome = site.build_with(&[("Dockerfile", &dockerfile)], request).await;
    let image = outcome.image();
    let tree = site.tree(image);
    let shown: Vec<(&str, &str)> = tree.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("/all", "755 1:2 /"),
            ("/all/out", "444 1:2 hello world\n"),
            ("/got", "755 0:0 /"),
            ("/got/out", "640 7:8 hello world\n"),
        ]
    );
    let config = &image.config.config;
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("5", ""));
    assert_eq!(config.labels, map(&[("asked", "yes"), ("from", "file")]));
    assert_eq!(config.entrypoint.as_deref(), Some(&["/bin/sh".to_owned()][..]));
    assert_eq!(config.cmd.as_deref(), Some(&["-c".to_owned(), "true".to_owned()][..]));
    assert!(config.exposed_ports.contains_key("80/tcp") && config.volumes.contains_key("/data"));
    assert_eq!(image.tags.len(), 2);
    let history = &image.config.history;
    let layers = history.iter().filter(|h| !h.empty_layer).count();
    assert_eq!((history.len(), layers), (9, image.layers().len()));
    assert!(outcome.text.contains("[NEVER] were not consumed"), "{}", outcome.text);
    assert!(outcome.text.contains("Successfully tagged demo:2"));
    site.emptied().await;
}

#[tokio::test]
async fn context_files_keep_modes_and_links_and_lose_owners() {
    let site = Site::new().await;
    let files = [
        (
            "Dockerfile",
            "FROM scratch\nCOPY . /app\nCOPY s/*.txt one.md /flat/\nCOPY --parents s/a.txt /kept/\nCOPY --exclude=*.md s /less\n",
        ),
        (".dockerignore", "busybox\n.dockerignore\n**/*.tmp\nhidden\n"),
        ("s/a.txt", "a"),
        ("s/b.txt", "b"),
        ("s/c.md", "c"),
        ("s/x.tmp", "gone"),
        ("hidden/x", "gone"),
        ("one.md", "1"),
        ("run*", "#!/bin/sh"),
        ("link", "→/etc/passwd"),
    ];
    let outcome = site.build(&files).await;
    let tree = site.tree(outcome.image());
    let mut shown: Vec<String> = tree.iter().map(|(k, v)| format!("{k} {v}")).collect();
    shown.retain(|l| !l.ends_with(" /") && !l.contains("Dockerfile"));
    assert_eq!(
        shown,
        [
            "/app/link 777 0:0 →/etc/passwd",
            "/app/one.md 644 0:0 1",
            "/app/run 755 0:0 #!/bin/sh",
            "/app/s/a.txt 644 0:0 a",
            "/app/s/b.txt 644 0:0 b",
            "/app/s/c.md 644 0:0 c",
            "/flat/a.txt 644 0:0 a",
            "/flat/b.txt 644 0:0 b",
            "/flat/one.md 644 0:0 1",
            "/kept/s/a.txt 644 0:0 a",
            "/less/a.txt 644 0:0 a",
            "/less/b.txt 644 0:0 b",
        ]
    );
}

#[tokio::test]
async fn a_pattern_may_find_nothing_beside_what_is_there() {
    let site = Site::new().await;
    let file = "FROM scratch\nWORKDIR /app\nCOPY package.json yarn.lock* ./\n";
    let outcome = site.build(&[("Dockerfile", file), ("package.json", "{}")]).await;
    let tree = site.tree(outcome.image());
    assert_eq!(tree["/app/package.json"], "644 0:0 {}");
    assert_eq!(tree.len(), 2, "{tree:?}");
}

#[tokio::test]
async fn arguments_of_a_stage_hold_in_those_that_begin_with_it() {
    let site = Site::new().await;
    let dockerfile = format!(
        "{SHELL}FROM shell AS first\nARG V=one\nARG W=one\n\
         FROM first AS second\nARG W=two\nRUN echo $V $W > /seen\n\
         FROM shell\nRUN echo \"[$V]\" > /other\nCOPY --from=second /seen /seen\n"
    );
    let outcome = site.build(&[("Dockerfile", &dockerfile)]).await;
    let tree = site.tree(outcome.image());
    assert_eq!(tree["/seen"], "644 0:0 one two\n");
    assert_eq!(tree["/other"], "644 0:0 []\n", "another stage has none of them");
}

#[tokio::test]
async fn heredocs_scripts_and_shells() {
    let site = Site::new().await;
    let dockerfile = format!(
        "{SHELL}\
         ENV NAME=minke\n\
         COPY <<EOF <<'RAW' /conf/\nhello $NAME\nEOF\n$NAME\nRAW\n\
         RUN <<EOF\necho one > /one\necho two >> /one\nEOF\n\
         RUN <<'EOF'\n#!/bin/busybox sh\necho \"script $0\" > /script\nEOF\n\
         RUN busybox cat <<A > /cat\nfrom heredoc\nA\n\
         SHELL [\"/bin/busybox\", \"sh\", \"-ec\"]\n\
         RUN echo shell > /shell\n\
         RUN [\"/bin/busybox\", \"touch\", \"/exec form\"]\n"
    );
    let outcome = site.build(&[("Dockerfile", &dockerfile)]).await;
    let tree = site.tree(outcome.image());
    for (path, content) in [
        ("/conf/EOF", "644 0:0 hello minke\n"),
        ("/conf/RAW", "644 0:0 $NAME\n"),
        ("/one", "644 0:0 one\ntwo\n"),
        ("/script", "644 0:0 script /dev/minke-run-script\n"),
        ("/cat", "644 0:0 from heredoc\n"),
        ("/shell", "644 0:0 shell\n"),
        ("/exec form", "644 0:0 "),
    ] {
        assert_eq!(tree.get(path).map(String::as_str), Some(content), "{path}\n{}", outcome.text);
    }
    assert!(!tree.contains_key("/dev"), "mount points are no part of the image");
}

#[tokio::test]
async fn add_unpacks_archives_and_fetches_urls() {
    use std::io::Write;
    let archive = super::harness::tar(&[("in/f", "packed"), ("in/l", "→f")], false);
    let served = archive.clone();
    let served = axum::Router::new()
        .route("/files/tool.txt", axum::routing::get(|| async { "downloaded" }))
        .route("/a.tar", axum::routing::get(|| async { served }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, served).await });
    let site = Site::new().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let gzip = gzip.finish().unwrap();
    // The harness takes texts; a packed archive is bytes, so it is made in a step.
    let octal: String = gzip.iter().map(|b| format!("\\{b:03o}")).collect();
    let sum = "sha256:9a5a2f4a5e6b";
    let dockerfile = format!(
        "{SHELL}RUN printf '{octal}' > /a.tgz\n\
         FROM scratch\nCOPY --from=shell /a.tgz /plain/\nADD http://{host}/files/tool.txt /dl/\n\
         ADD --chmod=755 http://{host}/files/tool.txt /dl/named\n"
    );
    let outcome = site.build(&[("Dockerfile", &dockerfile)]).await;
    let tree = site.tree(outcome.image());
    assert_eq!(tree["/dl/tool.txt"], "600 0:0 downloaded");
    assert_eq!(tree["/dl/named"], "755 0:0 downloaded");
    assert!(tree.contains_key("/plain/a.tgz"), "COPY does not unpack");
    let plain = String::from_utf8(archive).unwrap();
    let outcome = site
        .build(&[
            ("Dockerfile", "FROM scratch\nADD --chown=3:3 a.tar /to/\nADD a.tar /own/"),
            ("a.tar", &plain),
        ])
        .await;
    let tree = site.tree(outcome.image());
    assert_eq!(
        (tree["/to/in/f"].as_str(), tree["/to/in/l"].as_str()),
        ("644 3:3 packed", "777 3:3 →f")
    );
    assert_eq!(tree["/own/in/f"], "644 0:0 packed");
    let dockerfile = format!(
        "FROM scratch\nADD --unpack http://{host}/a.tar /to/\nADD http://{host}/a.tar /whole/\n\
         ADD --unpack=false a.tar /own/\n"
    );
    let outcome = site.build(&[("Dockerfile", &dockerfile), ("a.tar", &plain)]).await;
    let tree = site.tree(outcome.image());
    assert_eq!(tree["/to/in/f"], "644 0:0 packed");
    assert!(tree.contains_key("/whole/a.tar") && tree.contains_key("/own/a.tar"));
    let wrong = format!("FROM scratch\nADD --checksum={sum} http://{host}/files/tool.txt /x\n");
    let outcome = site.build(&[("Dockerfile", &wrong)]).await;
    assert!(outcome.error.unwrap().contains(&format!("expected {sum}")));
    let missing = format!("FROM scratch\nADD http://{host}/nothing /x\n");
    let outcome = site.build(&[("Dockerfile", &missing)]).await;
    assert!(outcome.error.unwrap().contains("404"));
    server.abort();
}

#[tokio::test]
async fn triggers_of_a_base_run_in_the_next_build() {
    let site = Site::new().await;
    let base =
        format!("{SHELL}ONBUILD COPY app /app\nONBUILD RUN busybox cat /app > /seen\nCMD run\n");
    let request = BuildImage { tags: vec!["base".into()], ..BuildImage::default() };
    let outcome = site.build_with(&[("Dockerfile", &base), ("app", "x")], request).await;
    assert_eq!(outcome.image().config.config.on_build.len(), 2);
    assert!(!site.tree(outcome.image()).contains_key("/seen"));
    let outcome = site.build(&[("Dockerfile", "FROM base\nUSER 1\n"), ("app", "mine")]).await;
    let image = outcome.image();
    assert_eq!(site.tree(image)["/seen"], "644 0:0 mine");
    assert!(image.config.config.on_build.is_empty());
    assert_eq!(image.config.config.cmd.as_ref().unwrap()[2], "run");
}

#[tokio::test]
async fn mounts_of_a_step_leave_nothing_in_the_image() {
    let site = Site::new().await;
    let dockerfile = format!(
        "{SHELL}\
         FROM shell AS other\nRUN echo other > /file\n\
         FROM shell\n\
         RUN --mount=type=bind,source=dir,target=/src --mount=type=bind,from=other,source=/file,target=/o \
             --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t \
             --mount=type=secret,id=tok,env=TOKEN --mount=type=secret,id=tok,target=/run/token \
             busybox cat /src/a /o /run/token > /seen && echo $TOKEN >> /seen \
             && busybox touch /t/x && echo more >> /cache/count\n\
         RUN --mount=type=cache,target=/cache busybox cat /cache/count > /count\n"
    );
    let files = [("Dockerfile", dockerfile.as_str()), ("dir/a", "A\n")];
    // {"tok":"czNjcmV0Cg=="} is what it says; the secret is "s3cret\n".
    let secrets = "eyJ0b2siOiJjek5qY21WMENnPT0ifQ==".to_owned();
    let request =
        BuildImage { headers: vec![("x-minke-build-secrets", secrets)], ..BuildImage::default() };
    let outcome = site.build_with(&files, request).await;
    let tree = site.tree(outcome.image());
    assert_eq!(tree["/seen"], "644 0:0 A\nother\ns3cret\ns3cret\n");
    assert_eq!(tree["/count"], "644 0:0 more\n");
    for gone in ["/src", "/o", "/cache", "/t", "/run"] {
        assert!(!tree.contains_key(gone), "{gone}");
    }
    let config = serde_json::to_string(&*outcome.image().config).unwrap();
    assert!(!config.contains("s3cret"));
}
