//! Programs are run on a machine of our own, against the policy itself and against another compiler.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::super::profile::{Comparison, Context, Profile, Rule};
use super::*;

/// What the kernel shows to a filter.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    abi: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        match at {
            0 => self.number,
            4 => self.abi,
            _ => {
                let argument = self.arguments[(at as usize - 16) / 8];
                (if at.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
            }
        }
    }
}

/// The kernel's machine, as far as filters of system calls use it.
fn run(program: impl Iterator<Item = (u16, u8, u8, u32)>, call: &Call) -> u32 {
    let program: Vec<_> = program.collect();
    let (mut register, mut at) = (0_u32, 0_usize);
    loop {
        let (code, yes, no, operand) = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { yes } else { no });
        match code {
            LOAD => register = call.word(operand),
            AND => register &= operand,
            JUMP => at += operand as usize,
            RETURN => return operand,
            EQUAL => at += jump(register == operand),
            GREATER => at += jump(register > operand),
            GREATER_EQUAL => at += jump(register >= operand),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn ours(program: &Program, call: &Call) -> u32 {
    run(program.instructions.iter().map(|it| (it.code, it.yes, it.no, it.operand)), call)
}

/// A policy read by its meaning.
fn meaning(policy: &Policy, abi: Abi, call: &Call) -> Action {
    let names = |rule: &&Rule| rule.names.iter().any(|n| abi.number(n) == Some(call.number));
    let rules: Vec<&Rule> = policy.rules.iter().filter(names).collect();
    let holds = |check: &Check| {
        let value = call.arguments[check.index as usize];
        match check.comparison {
            Comparison::Equal => value == check.value,
            Comparison::NotEqual => value != check.value,
            Comparison::Less => value < check.value,
            Comparison::LessEqual => value <= check.value,
            Comparison::Greater => value > check.value,
            Comparison::GreaterEqual => value >= check.value,
            Comparison::Masked(mask) => value & mask == check.value,
        }
    };
    let checked = rules.iter().find(|r| !r.checks.is_empty() && r.checks.iter().all(holds));
    let plain = rules.iter().find(|rule| rule.checks.is_empty());
    checked.or(plain).map_or(policy.default, |rule| rule.action)
}

fn call(abi: Abi, name: &str, arguments: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { number: abi.number(name).unwrap(), abi: abi.audit(), arguments: all }
}

fn builtin(capabilities: &[&str]) -> (Policy, Program) {
    let capabilities = capabilities.iter().map(|name| name.to_string()).collect();
    let policy = Profile::builtin().select(&Context { capabilities, kernel: (6, 1) });
    let program = policy.compile().unwrap();
    (policy, program)
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

#[test]
fn the_default_profile_decides_as_docker_documents() {
    let native = Abi::NATIVE;
    let (_, plain) = builtin(&["CAP_CHOWN"]);
    let (_, admin) = builtin(&["CAP_SYS_ADMIN"]);
    let of = |name: &str, arguments: &[u64]| {
        let call = call(native, name, arguments);
        (ours(&plain, &call), ours(&admin, &call))
    };
    assert_eq!(of("read", &[]), (ALLOW, ALLOW));
    assert_eq!(of("mount", &[]), (EPERM, ALLOW));
    assert_eq!(of("unshare", &[0x1000_0000]), (EPERM, ALLOW));
    assert_eq!(of("add_key", &[]), (EPERM, EPERM));
    assert_eq!(of("keyctl", &[]), (EPERM, EPERM));
    assert_eq!(of("kexec_load", &[]), (EPERM, EPERM));
    assert_eq!(of("clone", &[0x0001_0f00]), (ALLOW, ALLOW));
    assert_eq!(of("clone", &[0x1000_0000]), (EPERM, ALLOW));
    assert_eq!(of("clone3", &[]), (0x0005_0026, ALLOW), "ENOSYS: libraries then take clone");
    assert_eq!(of("socket", &[2]), (ALLOW, ALLOW));
    assert_eq!(of("socket", &[38]), (EPERM, EPERM), "AF_ALG");
    assert_eq!(of("socket", &[39]), (ALLOW, ALLOW));
    assert_eq!(of("socket", &[40]), (EPERM, EPERM), "AF_VSOCK");
    assert_eq!(of("personality", &[0xffff_ffff]), (ALLOW, ALLOW));
    assert_eq!(of("personality", &[0x0004_0000]), (EPERM, EPERM), "ADDR_NO_RANDOMIZE");
}

#[test]
fn programs_of_the_other_width_are_judged_by_their_own_numbers() {
    let (_, program) = builtin(&[]);
    let narrow = Abi::NATIVE.narrow().unwrap();
    assert_eq!(ours(&program, &call(narrow, "read", &[])), ALLOW);
    assert_eq!(ours(&program, &call(narrow, "chown32", &[])), ALLOW);
    assert_eq!(ours(&program, &call(narrow, "mount", &[])), EPERM);
    let foreign = Call { number: 0, abi: 0x8000_0016, arguments: [0; 6] };
    assert_eq!(ours(&program, &foreign), 0, "the thread is killed");
    if Abi::NATIVE == Abi::X86_64 {
        let x32 = Call { number: X32, abi: Abi::X86_64.audit(), arguments: [0; 6] };
        assert_eq!(ours(&program, &x32), 0x0005_0026);
    }
}

#[test]
fn a_refused_call_takes_few_instructions() {
    let (_, program) = builtin(&[]);
    let depth = |name: &str| {
        let call = call(Abi::NATIVE, name, &[0]);
        let mut steps = 0;
        let counted = program.instructions.iter().map(|it| (it.code, it.yes, it.no, it.operand));
        let program: Vec<_> = counted.collect();
        let (mut at, mut register) = (0, 0);
        while program[at].0 != RETURN {
            let (code, yes, no, operand) = program[at];
            steps += 1;
            at += 1;
            match code {
                LOAD => register = call.word(operand),
                JUMP => at += operand as usize,
                EQUAL => at += usize::from(if register == operand { yes } else { no }),
                _ => at += usize::from(if register >= operand { yes } else { no }),
            }
        }
        steps
    };
    for name in ["keyctl", "mount", "read", "kexec_load"] {
        assert!(depth(name) <= 20, "{name}: {}", depth(name));
    }
}

#[test]
fn a_profile_that_is_too_long_is_refused() {
    let rules: Vec<String> = (0..900)
        .map(|value| {
            format!(
                r#"{{"name":"socket","action":"SCMP_ACT_ALLOW","args":[{{"index":1,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        })
        .collect();
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","));
    let policy = Profile::parse(&text).unwrap().unwrap().select(&Context::default());
    assert!(matches!(policy.compile(), Err(SeccompError::TooLong(4097..))));
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        Just(Action::Trap),
        Just(Action::KillProcess),
        (0..4096_u16).prop_map(Action::Errno),
        (0..4096_u16).prop_map(Action::Trace),
    ]
}

/// Values where halves and bits matter.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4_u64,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just((1 << 32) + 1),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn checks() -> impl Strategy<Value = Check> {
    let comparisons = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::LessEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterEqual),
        values().prop_map(Comparison::Masked),
    ];
    (0..6_u32, values(), comparisons).prop_map(|(index, value, comparison)| {
        let value = match comparison {
            Comparison::Masked(mask) => value & mask,
            _ => value,
        };
        Check { index, value, comparison }
    })
}

const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "openat",
    "close",
    "mount",
    "clone",
    "socket",
    "ioctl",
    "reboot",
    "chown32",
    "statmount",
];

fn policies() -> impl Strategy<Value = Policy> {
    let rule = (
        proptest::sample::subsequence(&NAMES[..], 1..6),
        actions(),
        proptest::collection::vec(checks(), 0..4),
    )
        .prop_map(|(names, action, checks)| Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            checks,
            when: Default::default(),
            unless: Default::default(),
        });
    (actions(), proptest::collection::vec(rule, 0..10)).prop_map(|(default, rules)| Policy {
        default,
        abis: [Some(Abi::NATIVE), Abi::NATIVE.narrow()].into_iter().flatten().collect(),
        flags: 0,
        rules,
    })
}

fn calls() -> impl Strategy<Value = (Abi, Call)> {
    let abi = prop_oneof![Just(Abi::NATIVE), Just(Abi::NATIVE.narrow().unwrap())];
    let number = prop_oneof![
        0..500_u32,
        Just(u32::MAX - 1),
        proptest::sample::select(&NAMES[..]).prop_map(|name| Abi::NATIVE.number(name).unwrap_or(1))
    ];
    (abi, number, proptest::array::uniform6(values()))
        .prop_map(|(abi, number, arguments)| (abi, Call { number, abi: abi.audit(), arguments }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_program_does_what_its_policy_means(policy in policies(), calls in proptest::collection::vec(calls(), 30)) {
        let program = policy.compile().unwrap();
        for (abi, call) in calls {
            let x32 = abi == Abi::X86_64 && call.number >= X32;
            let wanted = if x32 { Action::Errno(ENOSYS) } else { meaning(&policy, abi, &call) };
            prop_assert_eq!(ours(&program, &call), code(wanted), "{:?} {:?}", abi, call);
        }
    }

    /// What seccompiler can say too: one ABI, one action for what is named, one for the rest.
    #[test]
    fn another_compiler_decides_the_same(
        named in proptest::collection::btree_set(0..500_u32, 1..60),
        guarded in proptest::collection::vec((0..500_u32, checks()), 0..5),
        calls in proptest::collection::vec(calls(), 40),
    ) {
        let (ours_program, theirs) = both(&named, &guarded);
        for (_, mut call) in calls {
            call.abi = Abi::NATIVE.audit();
            call.number %= X32;
            let their = run(theirs.iter().map(|it| (it.code, it.jt, it.jf, it.k)), &call);
            prop_assert_eq!(ours(&ours_program, &call), their, "{:?}", call);
        }
    }
}

/// The same list of calls by both compilers.
fn both(named: &BTreeSet<u32>, guarded: &[(u32, Check)]) -> (Program, seccompiler::BpfProgram) {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut leaves: BTreeMap<u32, Leaf> = BTreeMap::new();
    let rest = Action::Errno(1);
    for (number, check) in guarded.iter().filter(|(number, _)| !named.contains(number)) {
        let operation = match check.comparison {
            Comparison::Equal => SeccompCmpOp::Eq,
            Comparison::NotEqual => SeccompCmpOp::Ne,
            Comparison::Less => SeccompCmpOp::Lt,
            Comparison::LessEqual => SeccompCmpOp::Le,
            Comparison::Greater => SeccompCmpOp::Gt,
            Comparison::GreaterEqual => SeccompCmpOp::Ge,
            Comparison::Masked(mask) => SeccompCmpOp::MaskedEq(mask),
        };
        let length = SeccompCmpArgLen::Qword;
        let condition =
            SeccompCondition::new(check.index as u8, length, operation, check.value).unwrap();
        let rule = SeccompRule::new(vec![condition]).unwrap();
        rules.entry(i64::from(*number)).or_default().push(rule);
        let leaf = leaves.entry(*number).or_insert(Leaf { rules: Vec::new(), rest });
        leaf.rules.push((vec![*check], Action::Allow));
    }
    for number in named {
        rules.insert(i64::from(*number), Vec::new());
        leaves.insert(*number, Leaf { rules: Vec::new(), rest: Action::Allow });
    }
    let target = match Abi::NATIVE {
        Abi::Aarch64 => TargetArch::aarch64,
        _ => TargetArch::x86_64,
    };
    let filter =
        SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, target).unwrap();
    let mut out = vec![plain(LOAD, NUMBER_AT)];
    out.extend(tree(&ranges(&leaves, rest)));
    (Program::new(0, out).unwrap(), filter.try_into().unwrap())
}
