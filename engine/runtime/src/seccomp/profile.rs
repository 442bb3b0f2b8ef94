//! Profiles: the default one, and moby's JSON; and what is left of one on a machine, for a container.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::abi::Abi;
use super::compile;
use super::{Program, SeccompError, defaults};

/// Longest profile that is read, bytes.
const MAX_TEXT: usize = 1 << 20;
/// Arguments that a system call has.
const ARGUMENTS: u32 = 6;
/// The kernel takes no larger error numbers from a filter.
const MAX_ERRNO: u32 = 4095;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and written to the kernel's audit log.
    Log,
    /// It fails with this number.
    Errno(u16),
    /// The caller gets SIGSYS.
    Trap,
    /// A tracer decides; without one it fails with ENOSYS.
    Trace(u16),
    /// The calling thread is killed.
    KillThread,
    /// The calling process is killed.
    KillProcess,
}

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    NotEqual,
    Less,
    LessEqual,
    Equal,
    GreaterEqual,
    Greater,
    /// Equal in the bits of this mask.
    Masked(u64),
}

/// One argument of a call compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) index: u32,
    pub(super) value: u64,
    pub(super) comparison: Comparison,
}

/// Where a rule stands: an empty list asks for nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) capabilities: Vec<String>,
    pub(super) arches: Vec<String>,
    pub(super) kernel: Option<(u32, u32)>,
}

/// An action for calls whose arguments pass all checks.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    pub(super) checks: Vec<Check>,
    pub(super) when: Condition,
    pub(super) unless: Condition,
}

/// A set of rules, with conditions.
#[derive(Clone, Debug)]
pub struct Profile {
    default: Action,
    abis: Vec<Abi>,
    flags: u32,
    rules: Vec<Rule>,
}

/// What conditions are held against.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The container's bounding set, as `CAP_…`.
    pub capabilities: BTreeSet<String>,
    /// Version of the kernel: `(6, 1)`.
    pub kernel: (u32, u32),
}

/// A profile without conditions: what a program is made of.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) default: Action,
    pub(super) abis: Vec<Abi>,
    pub(super) flags: u32,
    pub(super) rules: Vec<Rule>,
}

/// Do not turn on the kernel's slow mitigations for every filtered process.
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_LOG: u32 = 2;

impl Profile {
    /// Docker's default list.
    pub fn builtin() -> Profile {
        Profile {
            default: Action::Errno(defaults::DEFAULT_ERRNO),
            abis: [Some(Abi::NATIVE), Abi::NATIVE.narrow()].into_iter().flatten().collect(),
            flags: FLAG_SPEC_ALLOW,
            rules: defaults::rules(),
        }
    }

    /// Reads moby's JSON. `None`: a profile that says nothing, which turns filtering off.
    pub fn parse(text: &str) -> Result<Option<Profile>, SeccompError> {
        if text.len() > MAX_TEXT {
            return Err(SeccompError::Invalid(format!("it is longer than {MAX_TEXT} bytes")));
        }
        let wire: WireProfile =
            serde_json::from_str(text).map_err(|error| SeccompError::Decode(error.to_string()))?;
        if wire.default_action.is_empty() && wire.syscalls.is_empty() {
            return Ok(None);
        }
        let default = action(&wire.default_action, wire.default_errno_ret)?;
        let mut flags = if wire.flags.is_none() { FLAG_SPEC_ALLOW } else { 0 };
        for flag in wire.flags.iter().flatten() {
            flags |= match flag.as_str() {
                "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
                // One thread installs the filter before there are others.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                other => return Err(SeccompError::Invalid(format!("unknown flag {other:?}"))),
            };
        }
        let abis = wire.abis()?;
        let rules = wire.syscalls.into_iter().map(WireRule::rule).collect::<Result<_, _>>()?;
        Ok(Some(Profile { default, abis, flags, rules }))
    }

    /// What of the profile holds for a container on this machine.
    pub fn select(&self, context: &Context) -> Policy {
        let holds = |rule: &&Rule| rule.when.met(context) && !rule.unless.hit(context);
        Policy {
            default: self.default,
            abis: self.abis.clone(),
            flags: self.flags,
            rules: self.rules.iter().filter(holds).cloned().collect(),
        }
    }
}

impl Policy {
    /// The kernel's program.
    pub fn compile(&self) -> Result<Program, SeccompError> {
        compile::compile(self)
    }
}

impl Condition {
    /// Everything it asks for is there.
    fn met(&self, context: &Context) -> bool {
        let has = |name| context.capabilities.contains(name);
        (self.arches.is_empty() || self.here())
            && self.capabilities.iter().all(has)
            && self.kernel.is_none_or(|least| context.kernel >= least)
    }

    /// Anything it names is there.
    fn hit(&self, context: &Context) -> bool {
        self.here()
            || self.capabilities.iter().any(|name| context.capabilities.contains(name))
            || self.kernel.is_some_and(|least| context.kernel >= least)
    }

    fn here(&self) -> bool {
        self.arches.iter().any(|name| name == Abi::NATIVE.go_name())
    }
}

fn action(name: &str, number: Option<u32>) -> Result<Action, SeccompError> {
    let small = |number: u32| {
        u16::try_from(number)
            .ok()
            .filter(|_| number <= MAX_ERRNO)
            .ok_or_else(|| SeccompError::Invalid(format!("error number {number} is too large")))
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(small(number.unwrap_or(1))?),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(small(number.unwrap_or(1))?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_NOTIFY" => {
            let text = "SCMP_ACT_NOTIFY needs an agent, which this engine does not have";
            return Err(SeccompError::Invalid(text.to_owned()));
        }
        other => return Err(SeccompError::Invalid(format!("unknown action {other:?}"))),
    })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireProfile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    arch_map: Vec<WireArch>,
    flags: Option<Vec<String>>,
    #[serde(deserialize_with = "null_is_empty")]
    syscalls: Vec<WireRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireArch {
    architecture: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireRule {
    name: String,
    #[serde(deserialize_with = "null_is_empty")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_is_empty")]
    args: Vec<WireCheck>,
    #[serde(deserialize_with = "null_is_empty")]
    includes: WireCondition,
    #[serde(deserialize_with = "null_is_empty")]
    excludes: WireCondition,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireCheck {
    index: u32,
    value: u64,
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireCondition {
    #[serde(deserialize_with = "null_is_empty")]
    caps: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl WireProfile {
    /// The native ABI, and what the profile names beside it.
    fn abis(&self) -> Result<Vec<Abi>, SeccompError> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            let text = "both 'architectures' and 'archMap' are specified, use either of them";
            return Err(SeccompError::Invalid(text.to_owned()));
        }
        let native = Abi::NATIVE.profile_name();
        let of_map = self.arch_map.iter().filter(|entry| entry.architecture == native);
        let named = self.architectures.iter().chain(of_map.flat_map(|it| &it.sub_architectures));
        let mut abis = vec![Abi::NATIVE];
        abis.extend(named.filter_map(|name| Abi::of_profile(name)));
        abis.retain(|abi| *abi == Abi::NATIVE || Some(*abi) == Abi::NATIVE.narrow());
        abis.sort_unstable();
        abis.dedup();
        Ok(abis)
    }
}

impl WireRule {
    fn rule(self) -> Result<Rule, SeccompError> {
        let names = match (self.name.is_empty(), self.names.is_empty()) {
            (false, false) => {
                let text = "both 'name' and 'names' are specified, use either of them";
                return Err(SeccompError::Invalid(text.to_owned()));
            }
            (false, true) => vec![self.name],
            (true, _) => self.names,
        };
        Ok(Rule {
            action: action(&self.action, self.errno_ret)?,
            checks: self.args.iter().map(WireCheck::check).collect::<Result<_, _>>()?,
            when: self.includes.condition()?,
            unless: self.excludes.condition()?,
            names,
        })
    }
}

impl WireCheck {
    fn check(&self) -> Result<Check, SeccompError> {
        if self.index >= ARGUMENTS {
            let text = format!("a call has {ARGUMENTS} arguments, not a number {}", self.index);
            return Err(SeccompError::Invalid(text));
        }
        let (comparison, value) = match self.op.as_str() {
            "SCMP_CMP_NE" => (Comparison::NotEqual, self.value),
            "SCMP_CMP_LT" => (Comparison::Less, self.value),
            "SCMP_CMP_LE" => (Comparison::LessEqual, self.value),
            "SCMP_CMP_EQ" => (Comparison::Equal, self.value),
            "SCMP_CMP_GE" => (Comparison::GreaterEqual, self.value),
            "SCMP_CMP_GT" => (Comparison::Greater, self.value),
            "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(self.value), self.value_two),
            other => return Err(SeccompError::Invalid(format!("unknown comparison {other:?}"))),
        };
        Ok(Check { index: self.index, value, comparison })
    }
}

impl WireCondition {
    fn condition(self) -> Result<Condition, SeccompError> {
        let kernel = match self.min_kernel.as_deref() {
            None | Some("") => None,
            Some(text) => {
                let parsed = text
                    .split_once('.')
                    .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
                let wrong = || SeccompError::Invalid(format!("invalid kernel version {text:?}"));
                Some(parsed.ok_or_else(wrong)?)
            }
        };
        Ok(Condition { capabilities: self.caps, arches: self.arches, kernel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_says_nothing_turns_filtering_off() {
        assert!(Profile::parse("{}").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("[", "EOF"),
            (r#"{"defaultAction":"SCMP_ACT_FLY"}"#, "SCMP_ACT_FLY"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "agent"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#, "70000"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                    "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
                "archMap",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],
                    "action":"SCMP_ACT_ALLOW"}]}"#,
                "names",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],
                    "action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
                "6 arguments",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],
                    "action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}]}"#,
                "new",
            ),
        ] {
            let error = Profile::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn conditions_choose_rules() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_BPF"]}},
            {"names":["c"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5.8"}},
            {"names":["d"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}},
            {"names":["e"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"5.8"},"args":null}]}"#;
        let profile = Profile::parse(text).unwrap().unwrap();
        let names = |capabilities: &[&str], kernel| -> String {
            let capabilities = capabilities.iter().map(|name| name.to_string()).collect();
            let policy = profile.select(&Context { capabilities, kernel });
            policy.rules.iter().map(|rule| rule.names[0].as_str()).collect()
        };
        assert_eq!(names(&[], (6, 1)), "bc");
        assert_eq!(names(&["CAP_BPF"], (6, 1)), "ac");
        assert_eq!(names(&[], (5, 7)), "be");
    }
}
