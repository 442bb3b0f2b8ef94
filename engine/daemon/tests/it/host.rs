//! What privileged containers do to a kernel that allows it, and what the kernel's AppArmor does to
//! containers.

use std::path::Path;

use crate::support::{Site, on_path};

/// A part of the kernel that is in a file and that nothing else here loads.
const MODULE: &str = "dummy";

fn has_module() -> bool {
    let loaded = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    loaded.lines().any(|line| line.split(' ').next() == Some(MODULE))
}

#[test]
fn a_privileged_container_loads_modules_where_the_host_can() {
    let site = Site::new();
    let version = rustix::system::uname().release().to_string_lossy().into_owned();
    let there = Path::new("/lib/modules").join(version).join("modules.dep").exists();
    let load = |options: &[&str]| {
        let words = ["run", "--rm", "-v", "/lib/modules:/lib/modules:ro"];
        let load = ["busybox", "busybox", "modprobe", MODULE];
        site.docker(&[&words[..], options, &load].concat())
    };
    assert_ne!(load(&[]).code, 0);
    assert!(!has_module());
    let loaded = load(&["--privileged"]);
    // A kernel without modules says so by itself.
    assert_eq!(loaded.code == 0, there, "{loaded:?}");
    assert_eq!(has_module(), there);
}

const PROFILE: &str = "profile minke-test flags=(attach_disconnected,mediate_deleted) {\n\
    file,\n capability,\n network,\n signal,\n deny /tmp/denied w,\n}\n";

#[test]
fn a_profile_of_apparmor_confines_where_the_kernel_has_it() {
    let site = Site::new();
    let confined = ["--security-opt", "apparmor=minke-test"];
    let start = ["run", "-d", "--name", "box"];
    let words = [&start[..], &confined, &["busybox", "sleep", "1000"]].concat();
    // Nothing has loaded it yet, or nothing can.
    let refused = site.docker(&words);
    assert!(refused.stderr.contains("minke-test"), "{refused:?}");
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        return;
    }
    let file = site.dir.path().join("profile");
    std::fs::write(&file, PROFILE).unwrap();
    let parser = on_path("apparmor_parser").display().to_string();
    let options = ["--replace", "--skip-cache", "--config-file", "/dev/null"];
    let file = file.display().to_string();
    site.command_of(&parser, &[&options[..], &[&file]].concat(), b"").ok();
    site.docker(&words).ok();
    let script = "cat /proc/1/attr/current /proc/self/attr/current; echo x > /tmp/allowed; \
                  echo x > /tmp/denied";
    let seen = site.docker(&["exec", "box", "sh", "-c", script]);
    assert_eq!(seen.stdout, "minke-test (enforce)\nminke-test (enforce)\n", "{seen:?}");
    assert!(seen.code != 0 && seen.stderr.contains("Permission denied"), "{seen:?}");
}
