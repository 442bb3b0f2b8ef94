//! Builds as other clients ask for them: parameters given twice, BuildKit by name, caches of images.

use serde_json::Value;

use crate::support::{Site, ask_with};

fn context(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(dockerfile.len() as u64);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn build(site: &Site, query: &str, dockerfile: &str) -> (u16, Vec<Value>) {
    let head = ["Content-Type: application/x-tar"];
    let answer = ask_with(site, "POST", &format!("/build?{query}"), &head, &context(dockerfile));
    let lines = answer.text.lines().filter(|line| !line.is_empty());
    (answer.status, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn streams(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["stream"].as_str()).collect()
}

#[test]
fn buildkit_by_name_is_built_and_its_sessions_are_refused() {
    let site = Site::new();
    let file = "FROM busybox\nRUN --mount=type=cache,target=/cache echo built > /made\n";
    let (status, lines) = build(&site, "version=2&t=made", file);
    assert!(status == 200 && lines.iter().all(|line| line["error"].is_null()), "{lines:?}");
    assert_eq!(site.docker(&["run", "--rm", "made", "cat", "/made"]).ok(), "built\n");
    let (status, lines) = build(&site, "version=2&session=x", file);
    assert_eq!(
        (status, lines[0]["message"].as_str().unwrap().contains("DOCKER_BUILDKIT=0")),
        (501, true)
    );
}

#[test]
fn of_a_parameter_that_does_not_repeat_the_first_counts() {
    let site = Site::new();
    let file = "FROM busybox\nRUN cat /etc/hosts > /hosts\n";
    let query = "dockerfile=Dockerfile&dockerfile=FROM+scratch&t=made\
                 &extrahosts=one.test:10.0.0.1&extrahosts=two.test:10.0.0.2";
    let (status, lines) = build(&site, query, file);
    assert!(status == 200 && lines.iter().all(|line| line["error"].is_null()), "{lines:?}");
    let hosts = site.docker(&["run", "--rm", "made", "cat", "/hosts"]).ok();
    assert!(hosts.contains("10.0.0.1\tone.test\n") && hosts.contains("10.0.0.2\ttwo.test\n"));
}

#[test]
fn what_a_step_says_on_standard_error_is_red() {
    let site = Site::new();
    let (_, lines) = build(&site, "nocache=1", "FROM busybox\nRUN echo wrong >&2\n");
    assert!(streams(&lines).contains(&"\u{1b}[91mwrong\n\u{1b}[0m"), "{lines:?}");
}

#[test]
fn who_names_caches_gets_steps_of_these_only() {
    let site = Site::new();
    let file = "FROM busybox\nENV A=1\nRUN touch /a\n";
    let cached = |query: &str| {
        let (status, lines) = build(&site, query, file);
        assert_eq!(status, 200, "{lines:?}");
        streams(&lines).iter().filter(|line| line.contains("Using cache")).count()
    };
    assert_eq!(cached("t=one"), 0);
    assert_eq!(cached("t=two"), 2);
    assert_eq!(cached("t=two&cachefrom=%5B%22one%22%5D"), 2);
    assert_eq!(cached("t=two&cachefrom=%5B%22nosuchtag%22%5D"), 0);
}

#[test]
fn a_name_that_no_image_can_have_is_refused_before_anything_is_built() {
    let site = Site::new();
    let digest = format!("t=app@sha256:{}", "0".repeat(64));
    for (query, says) in [
        ("t=Upper", "invalid reference format"),
        ("t=good&t=a:b:c", "invalid reference format"),
        (&digest, "with a digest reference"),
    ] {
        let (status, lines) = build(&site, query, "FROM busybox\nENV A=1\n");
        let message = lines[0]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(says), "{query}: {status} {lines:?}");
    }
    assert_eq!(site.docker(&["images", "-q"]).ok().lines().count(), 1, "something was built");
}
