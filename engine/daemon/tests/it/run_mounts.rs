//! `RUN --mount=…`, with the host's users and in user namespaces: what a step sees is the same.

use crate::support::{Outcome, Site};

/// An engine as a person starts one, and one as a server starts it for strangers' builds.
fn engines() -> [Site; 2] {
    [&[][..], &["--build-worker", "--userns-remap", "default"]].map(|arguments| {
        let site = Site::empty(arguments);
        site.load_image();
        site
    })
}

fn build(site: &Site, options: &[&str], dockerfile: &str) -> Outcome {
    let dir = site.dir.path().join("project");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(dir.join("sub/data"), "of the context").unwrap();
    let dir = dir.display().to_string();
    site.docker(&[&["build", "--no-cache"], options, &[&dir]].concat())
}

/// The lines that a build's steps have said: those that begin with `=`.
#[track_caller]
fn said(outcome: Outcome) -> Vec<String> {
    let text = outcome.ok();
    text.lines().filter(|line| line.starts_with('=')).map(str::to_owned).collect()
}

#[test]
fn binds_of_the_context_and_of_stages_show_their_owners() {
    let file = "FROM busybox AS made\n\
        RUN mkdir /out && echo of the stage > /out/file && chown 12:34 /out/file && chmod 640 /out/file\n\
        FROM busybox\n\
        RUN --mount=type=bind,source=sub,target=/ctx echo \"= $(cat /ctx/data) $(stat -c %u:%g /ctx/data)\"\n\
        RUN --mount=type=bind,target=/ctx touch /ctx/new 2>/dev/null || echo = read-only\n\
        RUN --mount=type=bind,target=/ctx,rw touch /ctx/sub/new && echo \"= $(ls /ctx/sub | xargs)\"\n\
        RUN --mount=type=bind,target=/ctx echo \"= $(ls /ctx/sub | xargs)\"\n\
        RUN --mount=type=bind,from=made,source=/out,target=/from echo \"= $(cat /from/file) $(stat -c %u:%g:%a /from/file)\"\n\
        RUN test ! -e /ctx/sub && test ! -e /from/file && echo = gone\n";
    for site in engines() {
        let lines = said(build(&site, &[], file));
        let expected = [
            "= of the context 0:0",
            "= read-only",
            "= data new",
            "= data",
            "= of the stage 12:34:640",
            "= gone",
        ];
        assert_eq!(lines, expected);
    }
}

#[test]
fn caches_are_kept_between_builds_with_the_owners_of_the_step() {
    let file = "FROM busybox\n\
        RUN --mount=type=cache,target=/c echo x >> /c/log && chown 7 /c/log && echo \"= $(wc -l < /c/log) $(stat -c %u /c/log)\"\n\
        RUN --mount=type=cache,target=/own,id=own,uid=12,gid=34,mode=0750 echo \"= $(stat -c %u:%g:%a /own)\"\n\
        USER app\n\
        RUN --mount=type=cache,target=/own,id=own,uid=12,gid=34,mode=0750 echo y >> /own/log && echo \"= $(wc -l < /own/log)\"\n\
        RUN --mount=type=cache,target=/c,readonly touch /c/new 2>/dev/null || echo = read-only\n\
        USER root\n\
        RUN ls /c 2>/dev/null | grep -q log || echo = not in the image\n";
    for site in engines() {
        let lines = |count: &str| {
            let first = [format!("= {count} 7"), "= 12:34:750".to_owned(), format!("= {count}")];
            [&first[..], &["= read-only".to_owned(), "= not in the image".to_owned()]].concat()
        };
        assert_eq!(said(build(&site, &[], file)), lines("1"));
        assert_eq!(said(build(&site, &[], file)), lines("2"));
    }
}

#[test]
fn memory_is_empty_limited_and_the_steps_own() {
    let file = "FROM busybox\n\
        RUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/big bs=64k count=32 2>/dev/null || echo \"= full $(stat -c %u:%g /t)\"\n\
        RUN --mount=type=tmpfs,target=/t echo \"= $(ls /t | wc -l)\"\n\
        RUN ls /t 2>/dev/null | grep -q big || echo = gone\n";
    for site in engines() {
        assert_eq!(said(build(&site, &[], file)), ["= full 0:0", "= 0", "= gone"]);
    }
}

#[test]
fn secrets_are_for_whom_the_mount_names() {
    let file = "FROM busybox\n\
        RUN --mount=type=secret,id=token echo \"= $(cat /run/secrets/token) $(stat -c %u:%g:%a /run/secrets/token)\"\n\
        RUN --mount=type=secret,id=token,target=/tmp/t,uid=12,gid=34,mode=0440 echo \"= $(stat -c %u:%g:%a /tmp/t)\"\n\
        USER app\n\
        RUN --mount=type=secret,id=token cat /run/secrets/token 2>/dev/null || echo = not for app\n\
        RUN --mount=type=secret,id=token,uid=12 echo \"= $(cat /run/secrets/token)\"\n\
        RUN --mount=type=secret,id=token,env=TOKEN echo \"= $TOKEN\"\n\
        USER root\n\
        RUN test ! -e /tmp/t && ls /run/secrets 2>/dev/null | grep -q token || echo = gone\n";
    for site in engines() {
        let config = site.dir.path().join("docker-config");
        std::fs::create_dir_all(&config).unwrap();
        // {"token": base64 of "s3cret-value"}
        let header = r#"{"HttpHeaders":{"X-Minke-Build-Secrets":"eyJ0b2tlbiI6ImN6TmpjbVYwTFhaaGJIVmwifQ=="}}"#;
        std::fs::write(config.join("config.json"), header).unwrap();
        let expected = [
            "= s3cret-value 0:0:400",
            "= 12:34:440",
            "= not for app",
            "= s3cret-value",
            "= s3cret-value",
            "= gone",
        ];
        assert_eq!(said(build(&site, &[], file)), expected);
    }
}
