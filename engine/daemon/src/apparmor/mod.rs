//! AppArmor, where the kernel has it: containers that name no profile get one of the engine's.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The profile of containers that name none.
pub(crate) const DEFAULT: &str = "minke-default";

const TEXT: &str = include_str!("minke-default");
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Whether the kernel confines programs by AppArmor.
pub(crate) fn enabled() -> bool {
    let parameter = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    parameter.is_ok_and(|text| text.starts_with('Y'))
}

/// Whether the kernel has this profile.
pub(crate) fn has(profile: &str) -> bool {
    enabled() && named(&std::fs::read_to_string(PROFILES).unwrap_or_default(), profile)
}

/// Lines are `name (mode)`.
fn named(profiles: &str, profile: &str) -> bool {
    let names = profiles.lines().filter_map(|line| line.rsplit_once(" ("));
    names.into_iter().any(|(name, _)| name == profile)
}

/// The profile of a container that names none: empty, if the kernel has none of the engine's.
pub(crate) fn default_profile(privileged: bool) -> String {
    if !privileged && has(DEFAULT) { DEFAULT.to_owned() } else { String::new() }
}

/// As `inspect` shows it.
pub(crate) fn shown(profile: &str) -> String {
    match profile.is_empty() && enabled() {
        true => "unconfined".to_owned(),
        false => profile.to_owned(),
    }
}

/// Gives the kernel the engine's profile, once in the life of the engine: an older engine's may be there.
/// Where that cannot be, one that the host has loaded is used; else containers go without, which is said.
pub(crate) async fn load_default() {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let load = async {
        if !enabled() {
            return;
        }
        if let Err(reason) = parse().await
            && !has(DEFAULT)
        {
            tracing::warn!(reason, "containers run without a profile of AppArmor");
        }
    };
    LOADED.get_or_init(|| load).await;
}

async fn parse() -> Result<(), String> {
    let said = |error: std::io::Error| format!("running apparmor_parser: {error}");
    let mut parser = Command::new("apparmor_parser")
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(said)?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(TEXT.as_bytes()).await.map_err(said)?;
    }
    let output = parser.wait_with_output().await.map_err(said)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_whole_names() {
        let text = "docker-default (enforce)\n/usr/bin/man (a) (complain)\n";
        assert!(named(text, "docker-default"));
        assert!(named(text, "/usr/bin/man (a)"));
        assert!(!named(text, "docker"));
        assert!(!named("", "docker-default"));
    }

    #[test]
    fn the_text_is_of_the_profile_that_is_named() {
        assert!(TEXT.contains(&format!("profile {DEFAULT} ")));
        assert!(TEXT.contains(&format!("peer={DEFAULT},")));
    }
}
