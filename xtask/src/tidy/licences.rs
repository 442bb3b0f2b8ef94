//! Which licences and which crates may be linked.

use std::collections::BTreeMap;

use super::metadata::{Metadata, Package};

const PERMITTED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "0BSD",
    "Zlib",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "WTFPL",
    "bzip2-1.0.6",
];

const BANNED: &[(&str, &str)] = &[
    ("aws-lc-sys", "needs cmake and a second crypto library; TLS uses ring"),
    ("openssl-sys", "links the system's OpenSSL; TLS uses rustls"),
    ("native-tls", "links the system's OpenSSL; TLS uses rustls"),
    ("serde_yaml", "unmaintained; YAML is read with saphyr"),
];

/// Crates whose licence stands in a file of their own; each was read and is permitted.
const READ: &[(&str, &str)] = &[("rust-criu", "MIT")];

/// Native libraries that may stand in the lock file once.
const ONCE: &[&str] = &["libsqlite3-sys", "ring"];

pub fn check(metadata: &Metadata) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &metadata.packages {
        versions.entry(&package.name).or_default().push(&package.version);
        if let Some((name, why)) = BANNED.iter().find(|(name, _)| *name == package.name) {
            breaches.push(format!("{name} is banned: {why}"));
        }
        breaches.extend(licence_breach(package));
    }
    for name in ONCE {
        if let Some(found) = versions.get(name).filter(|found| found.len() > 1) {
            breaches.push(format!("{name} stands in the lock file as {}", found.join(" and ")));
        }
    }
    breaches
}

fn licence_breach(package: &Package) -> Option<String> {
    let (name, version) = (&package.name, &package.version);
    match &package.license {
        Some(expression) if permits(expression) => None,
        Some(expression) => Some(format!("{name} {version} has the licence {expression}")),
        None if READ.iter().any(|(read, _)| read == name) => None,
        None if package.license_file.is_some() => {
            Some(format!("{name} {version} has a licence file that nobody has read"))
        }
        None => Some(format!("{name} {version} names no licence")),
    }
}

/// Whether some choice that the SPDX expression leaves uses only permitted licences.
fn permits(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let all = |part: &str| part.split(" AND ").all(|it| PERMITTED.contains(&it.trim()));
    // Precedence inside brackets does not matter to this test: either every `AND` part has a
    // permitted alternative, or some `OR` alternative is permitted whole.
    expression.split(" OR ").any(all)
        || expression
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|it| PERMITTED.contains(&it.trim())))
}

#[cfg(test)]
mod tests {
    use super::permits;

    #[test]
    fn expressions() {
        for good in
            ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"]
        {
            assert!(permits(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-2.0", "AGPL-3.0-only", ""] {
            assert!(!permits(bad), "{bad}");
        }
    }
}
