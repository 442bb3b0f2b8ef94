//! AppArmor, where the kernel has it.

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
}
