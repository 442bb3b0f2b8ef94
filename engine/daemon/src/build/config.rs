//! Instructions that change only an image's configuration.

use minke_common_dockerfile::{Command, Healthcheck, Instruction, Pair};
use serde_json::{Map, Value, json};

use crate::build::state::State;

/// Most ports of one `EXPOSE` range.
const MAX_RANGE: u16 = 10_000;

/// What an instruction says with its variables filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// For the history, and for the key.
    pub(crate) text: String,
    /// For the key, where the text does not tell one value's end from the next one's beginning:
    /// `ENV A="1 B=2"` and `ENV A=1 B=2` read the same.
    pub(crate) values: Vec<String>,
}

impl Said {
    /// One value, or several that cannot be taken for others.
    pub(crate) fn plain(text: String) -> Said {
        Said { text, values: Vec::new() }
    }

    fn pairs(keyword: &str, pairs: Vec<(String, String)>) -> Said {
        let mut text = keyword.to_owned();
        for (key, value) in &pairs {
            text.push_str(&format!(" {key}={value}"));
        }
        Said { text, values: pairs.into_iter().flat_map(|(key, value)| [key, value]).collect() }
    }
}

/// Carries out an instruction; answers what it says for key and history. Instructions that need files
/// are not taken: `None`.
pub(crate) fn apply(state: &mut State, instruction: &Instruction) -> Result<Option<Said>, String> {
    let text = match instruction {
        Instruction::Env(pairs) => return env(state, pairs).map(Some),
        Instruction::Label(pairs) => return label(state, pairs).map(Some),
        Instruction::Volume(paths, _) => return volume(state, paths).map(Some),
        Instruction::Cmd(command) => {
            state.config.config.cmd = Some(words(state, command));
            state.command_set = true;
            format!("CMD {}", json!(state.config.config.cmd))
        }
        Instruction::Entrypoint(command) => {
            state.config.config.entrypoint = Some(words(state, command));
            if !state.command_set {
                state.config.config.cmd = None;
            }
            format!("ENTRYPOINT {}", json!(state.config.config.entrypoint))
        }
        Instruction::Expose(ports) => expose(state, ports)?,
        Instruction::User(user) => {
            state.config.config.user = state.word(user)?;
            format!("USER {}", state.config.config.user)
        }
        Instruction::Stopsignal(signal) => {
            let signal = state.word(signal)?;
            check_signal(&signal)?;
            state.config.config.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Shell(words) => {
            state.config.config.shell = Some(words.clone());
            format!("SHELL {}", json!(words))
        }
        Instruction::Healthcheck(check) => {
            let value = healthcheck(state, check);
            let text = format!("HEALTHCHECK {value}");
            state.config.config.healthcheck = Some(value);
            text
        }
        Instruction::Maintainer(name) => {
            state.config.author = Some(name.clone());
            format!("MAINTAINER {name}")
        }
        Instruction::Onbuild(trigger, _) => {
            state.config.config.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Instruction::Add(_)
        | Instruction::Arg(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => return Ok(None),
    };
    Ok(Some(Said::plain(text)))
}

/// Both forms as an argument list.
pub(crate) fn words(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            let mut words = state.shell();
            words.push(text.clone());
            words
        }
    }
}

/// All values are read before any is set: `ENV A=1 B=$A` sees the old `A`.
fn env(state: &mut State, pairs: &[Pair]) -> Result<Said, String> {
    let filled = fill(state, pairs)?;
    for (key, value) in &filled {
        state.set_env(key, value);
    }
    Ok(Said::pairs("ENV", filled))
}

fn label(state: &mut State, pairs: &[Pair]) -> Result<Said, String> {
    let filled = fill(state, pairs)?;
    state.config.config.labels.extend(filled.iter().cloned());
    Ok(Said::pairs("LABEL", filled))
}

fn fill(state: &State, pairs: &[Pair]) -> Result<Vec<(String, String)>, String> {
    pairs.iter().map(|p| Ok((state.word(&p.key)?, state.word(&p.value)?))).collect()
}

fn expose(state: &mut State, ports: &[String]) -> Result<String, String> {
    let mut all = Vec::new();
    for port in ports {
        for word in state.words(port)? {
            all.extend(port_range(&word)?);
        }
    }
    for port in &all {
        state.config.config.exposed_ports.insert(port.clone(), json!({}));
    }
    Ok(format!("EXPOSE {}", all.join(" ")))
}

/// `80`, `80/udp`, `8000-8010/tcp`; a host's port before a colon means nothing here.
fn port_range(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("invalid port `{text}`; expected a number or range, and tcp, udp or sctp");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    let range = range.rsplit(':').next().unwrap_or(range);
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (u16, u16) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    if from == 0 || from > to || to - from > MAX_RANGE {
        return Err(bad());
    }
    Ok((from..=to).map(|port| format!("{port}/{protocol}")).collect())
}

fn volume(state: &mut State, paths: &[String]) -> Result<Said, String> {
    let mut values = Vec::new();
    for path in paths {
        let path = state.word(path)?;
        if path.is_empty() {
            return Err("VOLUME specified can not be an empty string".into());
        }
        state.config.config.volumes.insert(path.clone(), json!({}));
        values.push(path);
    }
    Ok(Said { text: format!("VOLUME {}", values.join(" ")), values })
}

fn check_signal(signal: &str) -> Result<(), String> {
    let number = signal.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n));
    let name = signal.trim_start_matches("SIG");
    let plain = name.len() >= 2
        && name.len() <= 10
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c))
        && name.starts_with(|c: char| c.is_ascii_uppercase());
    match number || plain {
        true => Ok(()),
        false => {
            Err(format!("invalid signal `{signal}`; expected a name such as SIGTERM or a number"))
        }
    }
}

fn healthcheck(state: &State, check: &Healthcheck) -> Value {
    let Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } =
        check
    else {
        return json!({ "Test": ["NONE"] });
    };
    let test = match command {
        Command::Exec(words) => [vec!["CMD".to_owned()], words.clone()].concat(),
        // The daemon that runs it adds the image's shell.
        Command::Shell(text) if state.config.config.shell.is_none() => {
            vec!["CMD-SHELL".to_owned(), text.clone()]
        }
        Command::Shell(_) => [vec!["CMD".to_owned()], words(state, command)].concat(),
    };
    let mut out = Map::new();
    out.insert("Test".into(), json!(test));
    for (name, value) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ] {
        if let Some(value) = value {
            out.insert(name.into(), json!(value));
        }
    }
    if let Some(retries) = retries {
        out.insert("Retries".into(), json!(retries));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cache::Key;
    use minke_common_dockerfile::parse;
    use minke_engine_images::{ImageConfig, RunConfig};

    /// The configuration after these instructions.
    fn after(text: &str) -> Result<RunConfig, String> {
        let file = parse(&format!("FROM scratch\n{text}")).unwrap();
        let mut state =
            State::new(ImageConfig::default(), Key::base(None, "linux/amd64"), None, '\\');
        state.config.config.cmd = Some(vec!["inherited".into()]);
        for node in &file.stages[0].nodes {
            apply(&mut state, &node.instruction)?;
        }
        Ok(state.config.config)
    }

    #[test]
    fn every_instruction_lands_in_its_field() {
        let config = after(
            "ENV A=1 B=\"two words\"\nENV C=$A-${B:-x} A=9\nLABEL a=b \"c d\"=$A\nUSER ${C:+node}:7\n\
             EXPOSE 80 53/udp 8000-8002\nVOLUME /a $A\nVOLUME [\"/v w\"]\nSTOPSIGNAL SIGINT\n\
             HEALTHCHECK --interval=2s --retries=4 CMD test -e /x\nSHELL [\"/bin/bash\", \"-c\"]\n\
             CMD run $A\nENTRYPOINT [\"/e\"]\nONBUILD RUN x",
        )
        .unwrap();
        assert_eq!(config.env[1..], ["A=9", "B=two words", "C=1-two words"]);
        assert_eq!((config.labels["a"].as_str(), config.labels["c d"].as_str()), ("b", "9"));
        assert_eq!(config.user, "node:7");
        let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        let volumes: Vec<&str> = config.volumes.keys().map(String::as_str).collect();
        assert_eq!(volumes, ["/a", "/v w", "9"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        let health = config.healthcheck.unwrap();
        assert_eq!(health["Test"], json!(["CMD-SHELL", "test -e /x"]));
        assert_eq!(
            (&health["Interval"], &health["Retries"]),
            (&json!(2_000_000_000u64), &json!(4))
        );
        let cmd = config.cmd.unwrap();
        assert_eq!(cmd, ["/bin/bash", "-c", "run $A"]);
        assert_eq!(config.entrypoint.unwrap(), ["/e"]);
        assert_eq!(config.on_build, ["RUN x"]);
    }

    #[test]
    fn an_entrypoint_drops_only_an_inherited_command() {
        assert_eq!(after("ENTRYPOINT a").unwrap().cmd, None);
        assert!(after("CMD b\nENTRYPOINT a").unwrap().cmd.is_some());
        assert_eq!(after("USER x").unwrap().cmd.unwrap(), ["inherited"]);
    }

    #[test]
    fn values_that_read_the_same_are_told_apart() {
        let said = |text: &str| {
            let file = parse(&format!("FROM scratch\n{text}")).unwrap();
            let mut state =
                State::new(ImageConfig::default(), Key::base(None, "linux/amd64"), None, '\\');
            apply(&mut state, &file.stages[0].nodes[0].instruction).unwrap().unwrap()
        };
        for (one, other) in [
            ("ENV A=\"1 B=2\"", "ENV A=1 B=2"),
            ("LABEL A=\"1 B=2\"", "LABEL A=1 B=2"),
            ("VOLUME [\"/a b\"]", "VOLUME /a b"),
        ] {
            let (one, other) = (said(one), said(other));
            assert_eq!(one.text, other.text, "the history shows both alike");
            assert_ne!(one.values, other.values);
        }
    }

    #[test]
    fn wrong_values_are_said() {
        for (text, says) in [
            ("EXPOSE x", "invalid port `x`"),
            ("EXPOSE 9-1", "invalid port"),
            ("EXPOSE 1/foo", "tcp, udp or sctp"),
            ("STOPSIGNAL nope!", "invalid signal"),
            ("VOLUME [\"\"]", "empty string"),
            ("ENV A=${B:?missing}", "B: missing"),
        ] {
            let message = after(text).unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
