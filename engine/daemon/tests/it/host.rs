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

fn has_apparmor() -> bool {
    Path::new("/sys/kernel/security/apparmor").exists()
}

#[test]
fn a_profile_of_apparmor_confines_where_the_kernel_has_it() {
    let site = Site::new();
    let confined = ["--security-opt", "apparmor=minke-test"];
    let start = ["run", "-d", "--name", "box"];
    let words = [&start[..], &confined, &["busybox", "sleep", "1000"]].concat();
    // Nothing has loaded it yet, or nothing can.
    let refused = site.docker(&words);
    assert!(refused.stderr.contains("minke-test"), "{refused:?}");
    if !has_apparmor() {
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

/// Mounts, writes where a container's root may not, and says its profile.
const TRY: &str = "cat /proc/self/attr/current 2>/dev/null; mkdir -p /mnt; \
    mount -t tmpfs x /mnt 2>/dev/null && echo mounted; n=$(cat /proc/sys/vm/swappiness); \
    sh -c \"echo $n > /proc/sys/vm/swappiness\" 2>/dev/null && echo written; kill -0 1 && echo fine";

#[test]
fn containers_that_name_no_profile_get_the_engines() {
    let site = Site::new();
    // All that would let it do these things but for the profile.
    let strong = ["--cap-add", "SYS_ADMIN", "--security-opt", "systempaths=unconfined"];
    let start = |name: &str, options: &[&str]| {
        let words = ["run", "-d", "--name", name];
        site.docker(&[&words[..], &strong, options, &["busybox", "sleep", "1000"]].concat()).ok();
        let shown = site.docker(&["inspect", "-f", "{{.AppArmorProfile}}", name]).ok();
        let tried = site.docker(&["exec", name, "sh", "-c", TRY]).ok();
        (shown.trim().to_owned(), tried)
    };
    let there = has_apparmor();
    let free = |shown: &str, tried: &str| {
        assert_eq!(shown, if there { "unconfined" } else { "" });
        assert!(tried.ends_with("mounted\nwritten\nfine\n"), "{tried}");
    };
    let (shown, tried) = start("plain", &[]);
    match there {
        true => {
            assert_eq!((&*shown, &*tried), ("minke-default", "minke-default (enforce)\nfine\n"))
        }
        false => free(&shown, &tried),
    }
    let (shown, tried) = start("free", &["--security-opt", "apparmor=unconfined"]);
    free(&shown, &tried);
    let (shown, tried) = start("strong", &["--privileged"]);
    free(&shown, &tried);
    let (_, tried) = start("strict", &["--security-opt", "no-new-privileges"]);
    assert_eq!(tried.starts_with("minke-default (enforce)"), there, "{tried}");
    // The engine's signals come through.
    let code = |name: &str| site.docker(&["wait", name]).ok();
    site.docker(&["kill", "-s", "KILL", "plain"]).ok();
    assert_eq!(code("plain"), "137\n");
}
