//! The tree as text again; parsing it gives an equal tree.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{
    Add, Arg, Command, Dockerfile, From, Healthcheck, Heredoc, Instruction, Mount, MountKind, Pair,
    Run, RunNetwork, Source,
};
use crate::words;

impl Display for Dockerfile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.escape != '\\' {
            writeln!(f, "# escape={}", self.escape)?;
        }
        for arg in &self.global_args {
            writeln!(f, "ARG {arg}")?;
        }
        for stage in &self.stages {
            print_from(f, &stage.from, self.escape)?;
            for node in &stage.nodes {
                print_instruction(f, &node.instruction, self.escape)?;
                f.write_char('\n')?;
            }
        }
        Ok(())
    }
}

impl Display for Arg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.default {
            Some(default) => write!(f, "{}={default}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn print_from(f: &mut Formatter<'_>, from: &From, escape: char) -> fmt::Result {
    f.write_str("FROM")?;
    if let Some(platform) = &from.platform {
        write!(f, " --platform={}", quoted(platform, escape))?;
    }
    let image = quoted(&from.image, escape);
    if image.starts_with("--") {
        f.write_str(" --")?;
    }
    write!(f, " {image}")?;
    match &from.name {
        Some(name) => writeln!(f, " AS {name}"),
        None => writeln!(f),
    }
}

fn print_instruction(
    f: &mut Formatter<'_>,
    instruction: &Instruction,
    escape: char,
) -> fmt::Result {
    write!(f, "{} ", instruction.keyword())?;
    match instruction {
        Instruction::Add(add) | Instruction::Copy(add) => print_add(f, add, escape),
        Instruction::Arg(args) => join(f, args),
        Instruction::Cmd(command) | Instruction::Entrypoint(command) => print_command(f, command),
        Instruction::Env(pairs) | Instruction::Label(pairs) => print_pairs(f, pairs, escape),
        Instruction::Expose(words) => join(f, words),
        Instruction::Healthcheck(check) => print_healthcheck(f, check),
        Instruction::Onbuild(text, _)
        | Instruction::Maintainer(text)
        | Instruction::Stopsignal(text)
        | Instruction::User(text)
        | Instruction::Workdir(text) => f.write_str(text),
        Instruction::Run(run) => print_run(f, run, escape),
        Instruction::Shell(words) => print_json(f, words),
        Instruction::Volume(words, true) => print_json(f, words),
        Instruction::Volume(words, false) => join(f, words),
    }
}

fn join<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { " " })?;
    }
    Ok(())
}

fn print_json(f: &mut Formatter<'_>, words: &[String]) -> fmt::Result {
    f.write_str(&serde_json::to_string(words).map_err(|_| fmt::Error)?)
}

fn print_command(f: &mut Formatter<'_>, command: &Command) -> fmt::Result {
    match command {
        Command::Shell(text) => f.write_str(text),
        Command::Exec(words) => print_json(f, words),
    }
}

/// A single value that is no single word came from the old `ENV key value` form.
fn print_pairs(f: &mut Formatter<'_>, pairs: &[Pair], escape: char) -> fmt::Result {
    if let [Pair { key, value }] = pairs {
        let one = words::split(value, escape).len() == 1 && words::balanced(value, escape);
        let trimmed = value.trim() == value;
        if !(value.is_empty() || one && trimmed) {
            return write!(f, "{key} {value}");
        }
    }
    for (i, Pair { key, value }) in pairs.iter().enumerate() {
        write!(f, "{}{key}={value}", if i == 0 { "" } else { " " })?;
    }
    Ok(())
}

fn print_heredocs<'a>(
    f: &mut Formatter<'_>,
    docs: impl Iterator<Item = &'a Heredoc>,
) -> fmt::Result {
    for doc in docs {
        write!(f, "\n{}{}", doc.body, doc.name)?;
    }
    Ok(())
}

fn print_add(f: &mut Formatter<'_>, add: &Add, escape: char) -> fmt::Result {
    let flags = &add.flags;
    for (name, value) in [
        ("from", &flags.from),
        ("chown", &flags.chown),
        ("chmod", &flags.chmod),
        ("checksum", &flags.checksum),
    ] {
        if let Some(value) = value {
            write!(f, "--{name}={} ", quoted(value, escape))?;
        }
    }
    for value in &flags.exclude {
        write!(f, "--exclude={} ", quoted(value, escape))?;
    }
    for (name, on) in
        [("link", flags.link), ("parents", flags.parents), ("keep-git-dir", flags.keep_git_dir)]
    {
        if on {
            write!(f, "--{name} ")?;
        }
    }
    if let Some(unpack) = flags.unpack {
        write!(f, "--unpack={unpack} ")?;
    }
    let mut words: Vec<String> = add.sources.iter().map(source_word).collect();
    words.push(add.dest.clone());
    if add.json {
        return print_json(f, &words);
    }
    if words[0].starts_with("--") {
        f.write_str("-- ")?;
    }
    join(f, &words)?;
    let docs = add.sources.iter().filter_map(|s| match s {
        Source::Inline(doc) => Some(doc),
        Source::Word(_) => None,
    });
    print_heredocs(f, docs)
}

fn source_word(source: &Source) -> String {
    match source {
        Source::Word(word) => word.clone(),
        Source::Inline(doc) => {
            let dash = if doc.strip_tabs { "-" } else { "" };
            let quote = if doc.expand { "" } else { "\"" };
            format!("{}<<{dash}{quote}{}{quote}", doc.descriptor, doc.name)
        }
    }
}

fn print_run(f: &mut Formatter<'_>, run: &Run, escape: char) -> fmt::Result {
    for mount in &run.mounts {
        write!(f, "--mount={} ", quoted(&mount_text(mount), escape))?;
    }
    match run.network {
        RunNetwork::Default => {}
        RunNetwork::None => f.write_str("--network=none ")?,
        RunNetwork::Host => f.write_str("--network=host ")?,
    }
    if run.insecure {
        f.write_str("--security=insecure ")?;
    }
    if matches!(&run.command, Command::Shell(text) if text.starts_with("--")) {
        f.write_str("-- ")?;
    }
    print_command(f, &run.command)?;
    print_heredocs(f, run.heredocs.iter())
}

fn mount_text(mount: &Mount) -> String {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Cache => "cache",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Secret => "secret",
        MountKind::Ssh => "ssh",
    };
    let mut out = format!("type={kind}");
    let mut field = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(out, ",{key}={value}");
        }
    };
    field("target", mount.target.clone());
    field("source", mount.source.clone());
    field("from", mount.from.clone());
    field("id", mount.id.clone());
    field("env", mount.env.clone());
    field("sharing", mount.sharing.clone());
    field("ro", mount.read_only.map(|v| v.to_string()));
    field("required", mount.required.then(|| "true".into()));
    field("mode", mount.mode.map(|m| format!("{m:o}")));
    field("uid", mount.uid.map(|v| v.to_string()));
    field("gid", mount.gid.map(|v| v.to_string()));
    field("size", mount.size.map(|v| v.to_string()));
    out
}

fn print_healthcheck(f: &mut Formatter<'_>, check: &Healthcheck) -> fmt::Result {
    let Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } =
        check
    else {
        return f.write_str("NONE");
    };
    for (name, value) in [
        ("interval", interval),
        ("timeout", timeout),
        ("start-period", start_period),
        ("start-interval", start_interval),
    ] {
        if let Some(value) = value {
            write!(f, "--{name}={value}ns ")?;
        }
    }
    if let Some(retries) = retries {
        write!(f, "--retries={retries} ")?;
    }
    f.write_str("CMD ")?;
    print_command(f, command)
}

/// A flag's value with the quotes it needs to be one word that reads back the same.
fn quoted(value: &str, escape: char) -> String {
    let one = words::split(value, escape).len() == 1
        && value.trim() == value
        && !value.contains(['"', '\''])
        && !value.ends_with(escape);
    if one {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "'\"'\"'"))
}
