//! What a container cannot do, and how much of that can be asked away.

use crate::support::{Dockerd, Outcome, Site, clis, docker28, image_archive};

/// The line of /proc/1/status with this name.
fn status(site: &Site, options: &[&str], name: &str) -> String {
    let line = format!("grep ^{name}: /proc/1/status");
    let words = [&["run", "--rm"], options, &["busybox", "sh", "-c", &line]].concat();
    let line = site.docker(&words).ok();
    line.trim_end().trim_start_matches(name).trim_start_matches(':').trim().to_owned()
}

#[test]
fn system_calls_are_filtered() {
    let site = Site::new();
    assert!(site.docker(&["info"]).ok().contains("seccomp"));
    assert_eq!(status(&site, &[], "Seccomp"), "2");
    assert_eq!(status(&site, &["-u", "app"], "Seccomp"), "2");
    assert_eq!(status(&site, &["--security-opt", "no-new-privileges"], "Seccomp"), "2");
    assert_eq!(status(&site, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    assert_eq!(status(&site, &["--privileged"], "Seccomp"), "0");
    // What installs the filter does not stay behind.
    let plain = "00000000a80425fb";
    for name in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(&site, &[], name), plain);
    }
    assert_eq!(status(&site, &["-u", "app"], "CapPrm"), "0000000000000000");
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, &[&["run", "--rm"], words].concat());
        let unshare = ["busybox", "unshare", "-U", "true"];
        assert!(cli(&unshare).stderr.contains("Operation not permitted"));
        cli(&[&["--security-opt", "seccomp=unconfined"], &unshare[..]].concat()).ok();
        // A capability opens the calls that it is for.
        cli(&[&["--cap-add", "SYS_ADMIN"], &["busybox", "unshare", "-m", "true"][..]].concat())
            .ok();
    }
}

#[test]
fn an_exec_is_filtered_like_its_container() {
    let mut site = Site::new();
    let cli = |site: &Site, words: &[&str]| site.docker(words);
    cli(&site, &["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let read = ["box", "grep", "^Seccomp:", "/proc/self/status"];
    let seccomp = |site: &Site, options: &[&str]| {
        cli(site, &[&["exec"], options, &read[..]].concat()).ok().trim_end().to_owned()
    };
    assert_eq!(seccomp(&site, &[]), "Seccomp:\t2");
    assert_eq!(seccomp(&site, &["-u", "app"]), "Seccomp:\t2");
    assert_eq!(seccomp(&site, &["--privileged"]), "Seccomp:\t2");
    let permitted =
        |site: &Site| cli(site, &["exec", "box", "grep", "^CapPrm:", "/proc/self/status"]).ok();
    assert_eq!(permitted(&site), "CapPrm:\t00000000a80425fb\n");
    site.kill_engine();
    site.start_engine();
    assert_eq!(seccomp(&site, &[]), "Seccomp:\t2");
}

#[test]
fn a_profile_of_ones_own_replaces_the_default_one() {
    let site = Site::new();
    let profile = site.dir.path().join("profile.json");
    let write = |text: &str| std::fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    let run = |options: &[&str], words: &[&str]| {
        let own = ["run", "--rm", "--security-opt", &option];
        site.docker(&[&own[..], options, &["busybox"], words].concat())
    };
    write(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":30},
            {"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO","errnoRet":28,
             "includes":{"caps":["CAP_SYS_TIME"]}},
            {"name":"umask","action":"SCMP_ACT_KILL_PROCESS",
             "args":[{"index":0,"value":448,"op":"SCMP_CMP_MASKED_EQ","valueTwo":64}]}]}"#,
    );
    assert!(run(&[], &["mkdir", "/x"]).stderr.contains("Read-only file system"));
    run(&[], &["chmod", "700", "/tmp"]).ok();
    let with = run(&["--cap-add", "SYS_TIME"], &["chmod", "700", "/tmp"]);
    assert!(with.stderr.contains("No space left on device"), "{with:?}");
    run(&[], &["sh", "-c", "umask 0077"]).ok();
    assert_eq!(run(&[], &["sh", "-c", "umask 0177; true"]).code, 128 + 31, "SIGSYS");
    // Also for a privileged container, because it was asked for.
    assert_ne!(run(&["--privileged"], &["mkdir", "/x"]).code, 0);
    write(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#);
    let refused = run(&[], &["true"]);
    assert!(refused.stderr.contains("unknown action \"SCMP_ACT_MAYBE\""), "{refused:?}");
}

#[test]
fn an_init_takes_the_orphans_and_hands_on_signals() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let run = |options: &[&str], words: &[&str]| {
            cli(&[&["run", "--rm", "--init"], options, &["busybox"], words].concat())
        };
        assert_eq!(run(&[], &["cat", "/proc/1/comm"]).ok(), "docker-init\n");
        assert_eq!(run(&[], &["sh", "-c", "exit 7"]).code, 7);
        assert_eq!(run(&[], &["sh", "-c", "kill -TERM $$"]).code, 143);
        let missing = run(&[], &["no-such-program"]);
        assert!(missing.code == 127 && missing.stderr.contains("no such file"), "{missing:?}");
        // A child whose parent has gone is collected when it ends.
        let orphan = "(sleep 0.1 & exec true); sleep 0.5; ps -o stat | grep -c Z";
        assert_eq!(run(&[], &["sh", "-c", orphan]).stdout, "0\n");
        assert_eq!(run(&["-t"], &["sh", "-c", "tty; echo $PPID"]).ok(), "/dev/pts/0\r\n1\r\n");
        cli(&["run", "-d", "--init", "--name", "box", "busybox", "sleep", "1000"]).ok();
        // A program that is not process 1 dies of a signal that it does not handle.
        cli(&["stop", "-t", "20", "box"]).ok();
        assert_eq!(cli(&["inspect", "-f", "{{.State.ExitCode}}", "box"]).ok(), "143\n");
        cli(&["rm", "box"]).ok();
    }
    let users = Site::empty(&["--userns-remap", "default"]);
    users.load_image();
    let comm = ["run", "--rm", "--init", "--read-only", "busybox", "cat", "/proc/1/comm"];
    assert_eq!(site.docker(&comm).ok(), "docker-init\n");
    assert_eq!(users.docker(&comm).ok(), "docker-init\n");
}

#[test]
fn capabilities_are_those_that_docker_gives() {
    let site = Site::new();
    let dockerd = Dockerd::start(&site);
    dockerd.docker(&docker28(), &["load"], &image_archive()).ok();
    let sets = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status";
    let cases: [&[&str]; 6] = [
        &[],
        &["-u", "app"],
        &["-u", "app", "--cap-add", "NET_ADMIN"],
        &["-u", "app", "--cap-drop", "ALL", "--cap-add", "CHOWN"],
        &["--cap-drop", "ALL", "--cap-add", "CHOWN"],
        &["-u", "app", "--cap-add", "SYS_PTRACE", "--security-opt", "no-new-privileges"],
    ];
    for options in cases {
        let own = ["run", "--rm", "--network", "none"];
        let words = [&own[..], options, &["busybox", "sh", "-c", sets]].concat();
        let theirs = dockerd.docker(&docker28(), &words, b"").ok();
        assert_eq!(site.docker(&words).ok(), theirs, "{options:?}");
        // Somebody who is not root holds none, but may get those of the bounding set from a file.
        let held = |name: &str| theirs.lines().find(|line| line.starts_with(name)).unwrap();
        let nobody = options.first() == Some(&"-u");
        assert_eq!(held("CapEff").ends_with("0000000000000000"), nobody, "{theirs}");
        assert!(held("CapAmb").ends_with("0000000000000000"), "{theirs}");
    }
    // The same of an exec.
    let start = ["run", "-d", "--name", "box", "--network", "none", "--cap-add", "NET_ADMIN"];
    let start = [&start[..], &["busybox", "sleep", "1000"]].concat();
    let both = |words: &[&str]| -> [Outcome; 2] {
        [site.docker(words), dockerd.docker(&docker28(), words, b"")]
    };
    for outcome in both(&start) {
        outcome.ok();
    }
    for user in ["root", "app"] {
        let [ours, theirs] = both(&["exec", "-u", user, "box", "sh", "-c", sets]);
        assert_eq!(ours.ok(), theirs.ok(), "{user}");
    }
    both(&["rm", "-f", "box"]);
}
