//! Which crate may know which: the arrows of `ARCHITECTURE.md`.

use std::collections::BTreeMap;

use super::metadata::Metadata;

/// A folder and what crates in it may depend on. The longest matching folder decides.
/// `common/` allows the whole folder, `engine/client` that crate alone.
const ALLOWED: &[(&str, &[&str])] = &[
    ("common/", &["common/"]),
    ("engine/documents", &[]),
    ("engine/images", &["common/", "engine/documents"]),
    ("engine/network", &["common/", "engine/documents"]),
    ("engine/runtime", &["common/"]),
    ("engine/shim", &[]),
    ("engine/init", &[]),
    ("engine/rest", &[]),
    ("engine/client", &["common/"]),
    (
        "engine/daemon",
        &[
            "common/",
            // The wire types of the API stand there once, for both of its ends.
            "engine/client",
            "engine/documents",
            "engine/images",
            "engine/init",
            "engine/network",
            "engine/rest",
            "engine/runtime",
            "engine/shim",
        ],
    ),
    ("device/", &["common/", "engine/client", "device/"]),
    (
        "device/device",
        &[
            "common/",
            "device/",
            "engine/client",
            "engine/daemon",
            "engine/runtime",
            "engine/network",
            "engine/rest",
        ],
    ),
    ("cloud/", &["common/", "engine/client", "cloud/"]),
    ("sdk/rust", &["common/"]),
    ("cli", &["common/", "sdk/rust"]),
    ("tests/", &["tests/testkit"]),
    ("xtask", &["tests/testkit"]),
];

/// Crates of others that only some folders may use, with the reason.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("sqlx", &["cloud/db"], "cloud/db is the only crate with SQL"),
    ("sea-query", &["cloud/db"], "cloud/db is the only crate with SQL"),
    ("libcontainer", &["engine/runtime"], "it hangs when called in a threaded process"),
    ("rtnetlink", &["engine/network", "device/device"], "links are made in engine/network"),
    ("yamux", &["common/tunnel"], "the multiplexer is the tunnel's own business"),
];

/// Crates that pure code may not use.
const IMPURE: &[&str] = &["tokio", "reqwest", "hyper", "axum", "rustix", "nix", "libc", "socket2"];

pub fn check(metadata: &Metadata) -> Vec<String> {
    let folders: BTreeMap<&str, &str> =
        metadata.members().map(|(folder, package)| (package.name.as_str(), folder)).collect();
    let mut breaches = Vec::new();
    for (folder, package) in metadata.members() {
        // What tests use stays out of what ships, so only shipped arrows count.
        let shipped = package.dependencies.iter().filter(|it| it.kind.as_deref() != Some("dev"));
        for dependency in shipped {
            let name = dependency.name.as_str();
            match folders.get(name) {
                Some(target) if !allowed(folder, target) => {
                    breaches.push(format!("{folder} may not depend on {target}"));
                }
                Some(_) => {}
                None => breaches.extend(foreign(folder, name)),
            }
        }
    }
    breaches
}

fn allowed(folder: &str, target: &str) -> bool {
    ALLOWED
        .iter()
        .filter(|(from, _)| covers(from, folder))
        .max_by_key(|(from, _)| from.len())
        .is_some_and(|(_, targets)| targets.iter().any(|it| covers(it, target)))
}

fn covers(pattern: &str, folder: &str) -> bool {
    folder == pattern || (pattern.ends_with('/') && folder.starts_with(pattern))
}

fn foreign(folder: &str, name: &str) -> Option<String> {
    if folder.starts_with("common/") && IMPURE.contains(&name) {
        return Some(format!("{folder} is pure and may not depend on {name}"));
    }
    let (_, folders, why) = ONLY_IN.iter().find(|(crate_name, _, _)| *crate_name == name)?;
    (!folders.contains(&folder)).then(|| format!("{folder} may not depend on {name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_folder_decides() {
        assert!(allowed("device/device", "engine/daemon"));
        assert!(!allowed("device/supervisor", "engine/daemon"));
        assert!(!allowed("cloud/api", "device/store"));
        assert!(!allowed("engine/shim", "common/model"));
        assert!(!allowed("elsewhere", "common/model"));
    }

    #[test]
    fn foreign_crates_stay_where_they_belong() {
        assert!(foreign("cloud/api", "sqlx").is_some());
        assert!(foreign("cloud/db", "sqlx").is_none());
        assert!(foreign("common/model", "tokio").is_some());
        assert!(foreign("cloud/api", "tokio").is_none());
    }
}
