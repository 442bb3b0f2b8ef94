//! The process of a container, and that of an exec.

use std::collections::BTreeMap;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User};

use super::{ContainerSpec, ExecSpec, Facts, Identity, SpecError, capabilities, defaults, mounts};

/// The main process.
pub(super) fn build(container: &ContainerSpec, facts: &Facts) -> Result<Process, SpecError> {
    let who = facts.accounts.resolve(&container.user, &container.group_add)?;
    let mut process = Process::default();
    process
        .set_terminal(Some(container.tty))
        .set_user(user(&who)?)
        .set_args(Some(arguments(&container.args)?))
        .set_env(Some(environment(container, &[], container.tty, &who)))
        .set_cwd(working_directory(&container.cwd)?.into())
        .set_capabilities(Some(capabilities::build(container, facts, who.uid, false)?))
        .set_rlimits(Some(limits(container, facts)?))
        .set_apparmor_profile(apparmor(container))
        .set_no_new_privileges(Some(container.no_new_privileges))
        .set_oom_score_adj(Some(oom_score_adj(container, facts)));
    Ok(process)
}

/// A further process in the same container.
pub(super) fn build_exec(
    exec: &ExecSpec,
    container: &ContainerSpec,
    facts: &Facts,
) -> Result<Process, SpecError> {
    let of_container = |own: &str, container: &str| {
        if own.is_empty() { container.to_owned() } else { own.to_owned() }
    };
    let named = of_container(&exec.user, &container.user);
    let who = facts.accounts.resolve(&named, &container.group_add)?;
    let cwd = of_container(&exec.cwd, &container.cwd);
    let mut process = Process::default();
    process
        .set_terminal(Some(exec.tty))
        .set_user(user(&who)?)
        .set_args(Some(arguments(&exec.args)?))
        .set_env(Some(environment(container, &exec.env, exec.tty, &who)))
        .set_cwd(working_directory(&cwd)?.into())
        .set_capabilities(Some(capabilities::build(container, facts, who.uid, exec.privileged)?))
        .set_rlimits(Some(limits(container, facts)?))
        .set_apparmor_profile(apparmor(container))
        .set_no_new_privileges(Some(container.no_new_privileges))
        .set_oom_score_adj(Some(oom_score_adj(container, facts)));
    Ok(process)
}

/// Nobody in a user namespace may make a process less likely a victim.
fn oom_score_adj(container: &ContainerSpec, facts: &Facts) -> i32 {
    let lowest = match container.user_namespace {
        Some(_) => facts.oom_score_adj,
        None => facts.lowest_oom_score_adj,
    };
    container.oom_score_adj.clamp(lowest, 1000)
}

fn apparmor(container: &ContainerSpec) -> Option<String> {
    (!container.apparmor.is_empty()).then(|| container.apparmor.clone())
}

fn user(who: &Identity) -> Result<User, SpecError> {
    let mut user = User::default();
    user.set_uid(who.uid).set_gid(who.gid).set_additional_gids(Some(who.groups.clone()));
    Ok(user)
}

fn arguments(args: &[String]) -> Result<Vec<String>, SpecError> {
    match args.first() {
        Some(first) if !first.is_empty() => Ok(args.to_vec()),
        _ => Err(SpecError::NoCommand),
    }
}

fn working_directory(cwd: &str) -> Result<String, SpecError> {
    match cwd {
        "" => Ok("/".to_owned()),
        _ if cwd.starts_with('/') => Ok(mounts::clean(cwd)),
        _ => Err(SpecError::RelativeWorkingDirectory(cwd.to_owned())),
    }
}

/// Docker's order: PATH, HOSTNAME and TERM first, then the container's own, HOME last.
fn environment(
    container: &ContainerSpec,
    further: &[String],
    tty: bool,
    who: &Identity,
) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let path = format!("PATH={}", defaults::PATH);
    let hostname = format!("HOSTNAME={}", container.hostname);
    let home = format!("HOME={}", who.home);
    let mut base = vec![path.as_str()];
    if !container.hostname.is_empty() {
        base.push(&hostname);
    }
    if tty {
        base.push("TERM=xterm");
    }
    let own = container.env.iter().chain(further).map(String::as_str);
    for entry in base.into_iter().chain(own) {
        let Some((key, _)) = entry.split_once('=') else { continue };
        if values.insert(key, entry.to_owned()).is_none() {
            names.push(key);
        }
    }
    if !values.contains_key("HOME") {
        names.push("HOME");
        values.insert("HOME", home);
    }
    names.into_iter().filter_map(|name| values.remove(name)).collect()
}

pub(super) fn limits(
    container: &ContainerSpec,
    facts: &Facts,
) -> Result<Vec<PosixRlimit>, SpecError> {
    let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    let may_raise = facts.capabilities >> 24 & 1 == 1 && container.user_namespace.is_none();
    container
        .ulimits
        .iter()
        .map(|limit| {
            let (kind, name) = limit_kind(&limit.name)?;
            if value(limit.soft) > value(limit.hard) {
                return Err(SpecError::UlimitOrder(limit.name.clone()));
            }
            let most = match facts.hard_limits.get(name) {
                Some(most) if !may_raise => *most,
                _ => u64::MAX,
            };
            Ok(PosixRlimitBuilder::default()
                .typ(kind)
                .soft(value(limit.soft).min(most))
                .hard(value(limit.hard).min(most))
                .build()?)
        })
        .collect()
}

fn limit_kind(name: &str) -> Result<(PosixRlimitType, &'static str), SpecError> {
    use PosixRlimitType::*;
    Ok(match name {
        "cpu" => (RlimitCpu, "cpu"),
        "fsize" => (RlimitFsize, "fsize"),
        "data" => (RlimitData, "data"),
        "stack" => (RlimitStack, "stack"),
        "core" => (RlimitCore, "core"),
        "rss" => (RlimitRss, "rss"),
        "nproc" => (RlimitNproc, "nproc"),
        "nofile" => (RlimitNofile, "nofile"),
        "memlock" => (RlimitMemlock, "memlock"),
        "as" => (RlimitAs, "as"),
        "locks" => (RlimitLocks, "locks"),
        "sigpending" => (RlimitSigpending, "sigpending"),
        "msgqueue" => (RlimitMsgqueue, "msgqueue"),
        "nice" => (RlimitNice, "nice"),
        "rtprio" => (RlimitRtprio, "rtprio"),
        "rttime" => (RlimitRttime, "rttime"),
        _ => return Err(SpecError::UnknownUlimit(name.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Ulimit;
    use super::*;

    #[test]
    fn the_environment_keeps_order_and_the_last_value_wins() {
        let container = ContainerSpec {
            args: vec!["sh".into()],
            env: vec!["A=1".into(), "PATH=/x".into(), "A=2".into(), "novalue".into()],
            hostname: "box".into(),
            tty: true,
            ..Default::default()
        };
        let process = build(&container, &Facts::default()).unwrap();
        let expected = ["PATH=/x", "HOSTNAME=box", "TERM=xterm", "A=2", "HOME=/"];
        assert_eq!(process.env().as_ref().unwrap(), &expected.map(str::to_owned));
    }

    #[test]
    fn limits_are_lowered_to_what_may_be_given() {
        let limit = |hard| Ulimit { name: "nofile".into(), soft: 1024, hard };
        let facts = Facts { hard_limits: [("nofile", 20000)].into(), ..Facts::default() };
        let of = |hard| {
            let container = ContainerSpec { ulimits: vec![limit(hard)], ..Default::default() };
            limits(&container, &facts).map(|l| (l[0].soft(), l[0].hard()))
        };
        assert_eq!(of(1_048_576).unwrap(), (1024, 20000));
        assert_eq!(of(-1).unwrap(), (1024, 20000));
        assert_eq!(of(4096).unwrap(), (1024, 4096));
        assert!(matches!(of(10), Err(SpecError::UlimitOrder(_))));
    }

    #[test]
    fn a_process_needs_a_command_and_an_absolute_directory() {
        let none = ContainerSpec::default();
        assert!(matches!(build(&none, &Facts::default()), Err(SpecError::NoCommand)));
        let relative =
            ContainerSpec { args: vec!["x".into()], cwd: "tmp".into(), ..Default::default() };
        assert!(matches!(
            build(&relative, &Facts::default()),
            Err(SpecError::RelativeWorkingDirectory(_))
        ));
    }
}
