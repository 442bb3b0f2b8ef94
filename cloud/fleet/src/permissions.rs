//! Who may do what: for each role, resource and verb, the OData filter that a row must pass.
//!
//! The rules a role has are a list; a row passes if it passes one of them; without a rule there is
//! nothing to see and nothing to write. How the verbs use a filter:
//! - `Read` hides the rows that fail, in collections, expands, filters and counts, and as targets of
//!   foreign keys that the caller writes;
//! - `Create` must hold for the row after it was written;
//! - `Update` must hold before and after, so that no row can be moved to a place of another owner;
//! - `Delete` must hold before.
//!
//! Paths are written with `any` at every step, so each text means the same wherever it is nested.
//! A caller has direct access to an application if `is_directly_accessible_by__user` has a row for
//! them: that resource is the closure of memberships, which the database keeps.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

mod device;
mod user;

/// What a caller does to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// See rows.
    Read,
    /// Make a row.
    Create,
    /// Change a row.
    Update,
    /// Remove a row.
    Delete,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 4] = [Verb::Read, Verb::Create, Verb::Update, Verb::Delete];
}

/// What a caller is, as far as rules go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A person, by session or by a key of theirs.
    User,
    /// A device, by its own key.
    Device,
    /// A fleet's key with which devices register.
    Provisioning,
    /// Anybody.
    Public,
    /// The server itself.
    Root,
}

impl Role {
    /// The role that a name in the database or in a request means; `None` for names that grant nothing.
    pub fn from_name(name: &str) -> Option<Role> {
        Some(match name {
            "default-user" | "user-api-key" | "named-user-api-key" => Role::User,
            "device-api-key" => Role::Device,
            "provisioning-api-key" => Role::Provisioning,
            _ => return None,
        })
    }
}

/// Resource names are the short ones of v7 (`service`, not `application__has__service_name`).
type Rules = BTreeMap<(String, Verb), Vec<String>>;

/// All the rules of one role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    rules: Rules,
    everything: bool,
}

impl Permissions {
    /// The rules of `role`.
    pub fn for_role(role: Role) -> &'static Permissions {
        Self::table(role)
    }

    /// The rules of `role`, shared.
    pub fn shared(role: Role) -> Arc<Permissions> {
        Arc::clone(Self::table(role))
    }

    fn table(role: Role) -> &'static Arc<Permissions> {
        static TABLES: [OnceLock<Arc<Permissions>>; 5] = [const { OnceLock::new() }; 5];
        TABLES[role as usize].get_or_init(|| {
            Arc::new(match role {
                Role::User => user::rules(),
                Role::Device => device::device_rules(),
                Role::Provisioning => device::provisioning_rules(),
                Role::Public => user::public_rules(),
                Role::Root => Permissions { rules: Rules::new(), everything: true },
            })
        })
    }

    /// Whether every row of every resource passes.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// The filters of which one must hold; empty: no row passes. `"true"` lets every row pass.
    pub fn filters(&self, resource: &str, verb: Verb) -> &[String] {
        static ALL: OnceLock<Vec<String>> = OnceLock::new();
        if self.everything {
            return ALL.get_or_init(|| vec!["true".to_owned()]);
        }
        self.rules.get(&(resource.to_owned(), verb)).map_or(&[], Vec::as_slice)
    }

    /// Every rule, in order.
    pub fn rules(&self) -> impl Iterator<Item = (&str, Verb, &[String])> {
        self.rules
            .iter()
            .map(|((resource, verb), filters)| (resource.as_str(), *verb, filters.as_slice()))
    }

    /// Permissions whose reads show the rows that these let a caller do `verb` to.
    pub fn as_reads_of(&self, verb: Verb) -> Permissions {
        let rules = self
            .rules
            .iter()
            .filter(|((_, of), _)| *of == verb)
            .map(|((resource, _), filters)| ((resource.clone(), Verb::Read), filters.clone()))
            .collect();
        Permissions { rules, everything: self.everything }
    }

    /// Permissions of a person whose reads show the applications in which they may make devices.
    pub fn of_registering() -> Permissions {
        user::rules_of_registering()
    }

    fn allow(&mut self, resource: &str, verbs: &[Verb], filter: &str) {
        for verb in verbs {
            self.rules.entry((resource.to_owned(), *verb)).or_default().push(filter.to_owned());
        }
    }

    /// What anybody may read: the catalogue of device types and of roles.
    fn allow_catalogue(&mut self) {
        for resource in [
            "application_type",
            "cpu_architecture",
            "device_type",
            "device_type_alias",
            "device_family",
            "device_manufacturer",
            "application_membership_role",
            "organization_membership_role",
        ] {
            self.allow(resource, &[Verb::Read], "true");
        }
    }
}

/// The part of the model that hangs off an application: resource and the navigations that lead there.
const OF_APPLICATION: [(&str, &[&str]); 27] = [
    ("application", &[]),
    ("application_environment_variable", &["application"]),
    ("application_config_variable", &["application"]),
    ("build_environment_variable", &["application"]),
    ("application_tag", &["application"]),
    ("application_domain_mapping", &["application"]),
    ("application_profile", &["application"]),
    ("service", &["application"]),
    ("service_label", &["service", "application"]),
    ("service_environment_variable", &["service", "application"]),
    ("device", &["belongs_to__application"]),
    ("device_environment_variable", &["device", "belongs_to__application"]),
    ("device_config_variable", &["device", "belongs_to__application"]),
    ("device_tag", &["device", "belongs_to__application"]),
    ("device_domain_mapping", &["device", "belongs_to__application"]),
    ("service_install", &["device", "belongs_to__application"]),
    (
        "device_service_environment_variable",
        &["service_install", "device", "belongs_to__application"],
    ),
    ("image_install", &["device", "belongs_to__application"]),
    ("release", &["belongs_to__application"]),
    ("release_tag", &["release", "belongs_to__application"]),
    ("release_asset", &["release", "belongs_to__application"]),
    ("image", &["is_a_build_of__service", "application"]),
    ("release_image", &["is_part_of__release", "belongs_to__application"]),
    ("image_label", &["release_image", "is_part_of__release", "belongs_to__application"]),
    (
        "image_environment_variable",
        &["release_image", "is_part_of__release", "belongs_to__application"],
    ),
    ("image_profile", &["release_image", "is_part_of__release", "belongs_to__application"]),
    ("delta", &["produces__image", "is_a_build_of__service", "application"]),
];

/// `condition` (with `{}` for the row) at the end of a path of navigations:
/// `["device", "actor"]` gives `device/any(p0:p0/actor/any(p1:…))`.
fn along(path: &[&str], condition: &str) -> String {
    let mut text = String::new();
    for (depth, step) in path.iter().enumerate() {
        let row = if depth == 0 { String::new() } else { format!("p{}/", depth - 1) };
        text.push_str(&format!("{row}{step}/any(p{depth}:"));
    }
    let row = if path.is_empty() { String::new() } else { format!("p{}/", path.len() - 1) };
    text.push_str(&condition.replace("{}", &row));
    text.extend(std::iter::repeat_n(')', path.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_nests_one_any_per_step() {
        assert_eq!(along(&[], "{}actor eq 1"), "actor eq 1");
        assert_eq!(
            along(&["device", "application"], "{}actor eq 1"),
            "device/any(p0:p0/application/any(p1:p1/actor eq 1))"
        );
    }

    #[test]
    fn the_callers_actor_is_bound_in_every_rule_that_is_not_for_all() {
        for role in [Role::User, Role::Device, Role::Provisioning] {
            for (resource, verb, filters) in Permissions::for_role(role).rules() {
                for filter in filters {
                    assert!(
                        filter == "true"
                            || filter.contains("@__ACTOR_ID")
                            || filter.contains("is_public eq true"),
                        "{role:?} {verb:?} {resource}: {filter}"
                    );
                    assert!(verb == Verb::Read || filter.contains("@__ACTOR_ID"), "{resource}");
                }
            }
        }
    }

    #[test]
    fn anybody_writes_nothing() {
        assert!(Permissions::for_role(Role::Public).rules().all(|(_, verb, _)| verb == Verb::Read));
    }

    #[test]
    fn every_rule_is_odata() {
        for role in [Role::User, Role::Device, Role::Provisioning, Role::Public] {
            for (resource, _, filters) in Permissions::for_role(role).rules() {
                for filter in filters.iter().filter(|filter| *filter != "true") {
                    if let Err(error) = minke_common_odata::parse_filter(filter) {
                        panic!("{role:?} {resource}: {filter}: {error}");
                    }
                }
            }
        }
    }
}
