//! What a release is called.

pub use minke_common_model::semver::Semver;

/// What makes a release's version unique within its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Not final; told apart by when it was made, in milliseconds since the epoch.
    Draft {
        /// `created_at`.
        created_at: i64,
    },
    /// The n-th final release of its version, from 0.
    Final {
        /// `revision`.
        revision: i64,
    },
}

/// The `raw_version` of a release: `M.m.p[-pre][.created when draft][+build.revN.variant]`.
pub fn raw_version(semver: &Semver, stage: &Stage, variant: &str) -> String {
    let mut text = format!("{}.{}.{}", semver.major, semver.minor, semver.patch);
    if !semver.prerelease.is_empty() {
        text.push_str(&format!("-{}", semver.prerelease));
    }
    if let Stage::Draft { created_at } = stage {
        let separator = if semver.prerelease.is_empty() { '-' } else { '.' };
        text.push_str(&format!("{separator}{created_at}"));
    }
    let revision = match stage {
        Stage::Final { revision } if *revision > 0 => format!("rev{revision}"),
        _ => String::new(),
    };
    let build: Vec<&str> =
        [&semver.build, &revision, variant].into_iter().filter(|part| !part.is_empty()).collect();
    if !build.is_empty() {
        text.push_str(&format!("+{}", build.join(".")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_release_is_called_by_its_stage() {
        let version = Semver::parse("1.2.3").unwrap();
        assert_eq!(raw_version(&version, &Stage::Final { revision: 0 }, ""), "1.2.3");
        assert_eq!(raw_version(&version, &Stage::Final { revision: 2 }, ""), "1.2.3+rev2");
        assert_eq!(raw_version(&version, &Stage::Draft { created_at: 17 }, ""), "1.2.3-17");
        let version = Semver::parse("1.2.3-rc.1+b").unwrap();
        assert_eq!(
            raw_version(&version, &Stage::Draft { created_at: 17 }, "dev"),
            "1.2.3-rc.1.17+b.dev"
        );
    }

    proptest! {
        #[test]
        fn a_release_is_called_by_a_version(
            pre in "([a-z0-9-]{1,5}(\\.[a-z0-9-]{1,5}){0,2})?",
            build in "([a-z0-9-]{1,5}(\\.[a-z0-9-]{1,5}){0,2})?",
            number in 0i64..=i64::MAX, is_draft: bool, variant in "[a-z0-9-]{0,5}",
        ) {
            let semver = Semver { major: 1, prerelease: pre, build, ..Semver::default() };
            let stage = match is_draft {
                true => Stage::Draft { created_at: number },
                false => Stage::Final { revision: number },
            };
            prop_assert!(Semver::parse(&raw_version(&semver, &stage, &variant)).is_ok());
        }
    }
}
