//! One parser per instruction.

use crate::ast::{
    Add, Arg, Command, CopyFlags, Healthcheck, Instruction, Pair, Run, RunNetwork, Source, Warning,
};
use crate::error::ParseError;
use crate::flags;
use crate::lines::{Logical, heredoc_mark};
use crate::parse::{Context, keyword_at};
use crate::words;

const KEYWORDS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads the arguments of `keyword`, which begin at byte `rest`.
pub(crate) fn parse(
    context: &mut Context,
    line: &mut Logical,
    keyword: &str,
    rest: usize,
) -> Result<Instruction, ParseError> {
    let copying = matches!(keyword, "ADD" | "COPY" | "RUN" | "HEALTHCHECK");
    let arguments = &line.text[rest..];
    if !copying && KEYWORDS.contains(&keyword) {
        if arguments.is_empty() {
            let message = format!("{keyword} has no argument; expected {}", expected(keyword));
            return Err(line.error(line.text.len(), message));
        }
        if arguments.starts_with("--")
            && !matches!(keyword, "CMD" | "ENTRYPOINT" | "ENV" | "LABEL" | "ONBUILD" | "MAINTAINER")
        {
            flags::take(line, rest, context.escape, &[], keyword)?;
        }
    }
    Ok(match keyword {
        "ADD" => Instruction::Add(add(context, line, rest, "ADD")?),
        "COPY" => Instruction::Copy(add(context, line, rest, "COPY")?),
        "ARG" => Instruction::Arg(args(context, line, rest)?),
        "CMD" => Instruction::Cmd(command(context, line, rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(context, line, rest)),
        "ENV" => Instruction::Env(pairs(context, line, rest, "ENV")?),
        "LABEL" => Instruction::Label(pairs(context, line, rest, "LABEL")?),
        "EXPOSE" => Instruction::Expose(bare_words(line, rest)),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(context, line, rest)?),
        "MAINTAINER" => Instruction::Maintainer(arguments.to_owned()),
        "ONBUILD" => onbuild(context, line, rest)?,
        "RUN" => Instruction::Run(run(context, line, rest)?),
        "SHELL" => Instruction::Shell(shell(line, rest)?),
        "STOPSIGNAL" => Instruction::Stopsignal(one_word(context, line, rest, "STOPSIGNAL")?),
        "USER" => Instruction::User(one_word(context, line, rest, "USER")?),
        "VOLUME" => match json_array(arguments) {
            Some(list) if list.is_empty() => {
                return Err(line.error(rest, "VOLUME has an empty list; expected a path"));
            }
            Some(list) => Instruction::Volume(list, true),
            None => Instruction::Volume(bare_words(line, rest), false),
        },
        "WORKDIR" => Instruction::Workdir(arguments.to_owned()),
        other => return Err(unknown(line, other)),
    })
}

fn expected(keyword: &str) -> &'static str {
    match keyword {
        "ARG" => "a name, as in `ARG NAME=default`",
        "CMD" | "ENTRYPOINT" => "a command",
        "ENV" | "LABEL" => "key=value",
        "EXPOSE" => "a port",
        "ONBUILD" => "an instruction",
        "SHELL" => "a JSON array, such as [\"/bin/sh\", \"-c\"]",
        "STOPSIGNAL" => "a signal",
        "USER" => "a user",
        "VOLUME" | "WORKDIR" => "a path",
        _ => "a value",
    }
}

fn unknown(line: &Logical, word: &str) -> ParseError {
    let shown: String = word.chars().take(40).collect();
    let message = format!("unknown instruction `{shown}`; expected one of {}", KEYWORDS.join(", "));
    match words::closest(word, KEYWORDS) {
        Some(near) => line.error(0, message).hint(format!("did you mean {near}?")),
        None => line.error(0, message),
    }
}

/// A JSON array of strings, or nothing.
pub(crate) fn json_array(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn command(context: &mut Context, line: &Logical, rest: usize) -> Command {
    let text = line.text[rest..].trim();
    if let Some(words) = json_array(text) {
        return Command::Exec(words);
    }
    if text.starts_with('[') && text.ends_with(']') && text.contains(['"', '\'']) {
        let (at, column) = line.position(rest);
        let message = "this looks like the JSON form but is not valid JSON (strings need double \
                       quotes); it will be given to the shell";
        context.warnings.push(Warning { line: at, column, message: message.into() });
    }
    Command::Shell(text.to_owned())
}

fn plain_words(context: &Context, line: &Logical, rest: usize) -> Vec<String> {
    words::split(&line.text[rest..], context.escape).iter().map(|(_, w)| w.to_string()).collect()
}

/// Words as Docker splits them here: quotes and escapes hold no spaces together.
fn bare_words(line: &Logical, rest: usize) -> Vec<String> {
    line.text[rest..].split_whitespace().map(str::to_owned).collect()
}

fn one_word(
    context: &Context,
    line: &Logical,
    rest: usize,
    keyword: &str,
) -> Result<String, ParseError> {
    match words::split(&line.text[rest..], context.escape).as_slice() {
        [(_, word)] => Ok(word.to_string()),
        [_, (offset, extra), ..] => {
            let message = format!("`{extra}` is too much; expected one argument for {keyword}");
            Err(line.error(rest + offset, message))
        }
        [] => Err(line.error(rest, format!("{keyword} has no argument; expected one"))),
    }
}

fn check_quotes(
    context: &Context,
    line: &Logical,
    offset: usize,
    word: &str,
) -> Result<(), ParseError> {
    match words::balanced(word, context.escape) {
        true => Ok(()),
        false => Err(line.error(offset, "a quote is opened and never closed; expected its end")),
    }
}

fn args(context: &Context, line: &Logical, rest: usize) -> Result<Vec<Arg>, ParseError> {
    let mut out = Vec::new();
    for (offset, word) in words::split(&line.text[rest..], context.escape) {
        check_quotes(context, line, rest + offset, word)?;
        let (name, default) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        if name.is_empty() || name.contains(['$', '"', '\'']) {
            let message = format!("`{word}` declares no variable; expected NAME or NAME=default");
            return Err(line.error(rest + offset, message));
        }
        out.push(Arg { name: name.to_owned(), default });
    }
    Ok(out)
}

/// `k=v k2="v 2"`, or the old form `k the rest of the line`.
fn pairs(
    context: &Context,
    line: &Logical,
    rest: usize,
    keyword: &str,
) -> Result<Vec<Pair>, ParseError> {
    let text = &line.text[rest..];
    let words = words::split(text, context.escape);
    let Some((_, first)) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let value = text[first.len()..].trim();
        if value.is_empty() {
            let message = format!("`{first}` has no value; expected `{keyword} {first}=value`");
            return Err(line.error(rest, message));
        }
        let key = (*first).to_owned();
        return Ok(vec![Pair { key, value: value.to_owned() }]);
    }
    let mut out = Vec::new();
    for (offset, word) in words {
        check_quotes(context, line, rest + offset, word)?;
        match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                out.push(Pair { key: key.to_owned(), value: value.to_owned() });
            }
            _ => {
                let message = format!("`{word}` is no pair; expected key=value");
                let error = line.error(rest + offset, message);
                return Err(error.hint("quote values that hold spaces"));
            }
        }
    }
    Ok(out)
}

fn shell(line: &Logical, rest: usize) -> Result<Vec<String>, ParseError> {
    match json_array(line.text[rest..].trim()) {
        Some(words) if !words.is_empty() => Ok(words),
        _ => Err(line.error(rest, "SHELL wants a JSON array, such as [\"/bin/sh\", \"-c\"]")),
    }
}

fn run(context: &mut Context, line: &mut Logical, rest: usize) -> Result<Run, ParseError> {
    let allowed = ["mount", "network", "security"];
    let (found, rest) = flags::take(line, rest, context.escape, &allowed, "RUN")?;
    let (mut mounts, mut network, mut insecure) = (Vec::new(), RunNetwork::Default, false);
    for flag in &found {
        match flag.name {
            "mount" => mounts.push(flags::mount(line, flag)?),
            "network" => {
                network = match flag.required(line)?.as_str() {
                    "default" => RunNetwork::Default,
                    "none" => RunNetwork::None,
                    "host" => RunNetwork::Host,
                    other => {
                        let message =
                            format!("`--network={other}`; expected default, none or host");
                        return Err(line.error(flag.offset, message));
                    }
                }
            }
            _ => insecure = flag.required(line)? == "insecure",
        }
    }
    if line.text[rest..].trim().is_empty() {
        return Err(line.error(line.text.len(), "RUN has no command; expected one"));
    }
    let command = command(context, line, rest);
    let heredocs = match command {
        Command::Shell(_) => std::mem::take(&mut line.heredocs),
        Command::Exec(_) => Vec::new(),
    };
    Ok(Run { mounts, network, insecure, command, heredocs })
}

fn add(
    context: &Context,
    line: &mut Logical,
    rest: usize,
    keyword: &str,
) -> Result<Add, ParseError> {
    let allowed: &[&str] = match keyword {
        "ADD" => &["chown", "chmod", "checksum", "exclude", "keep-git-dir", "link", "unpack"],
        _ => &["from", "chown", "chmod", "exclude", "link", "parents"],
    };
    let (found, rest) = flags::take(line, rest, context.escape, allowed, keyword)?;
    let mut out = CopyFlags::default();
    for flag in &found {
        match flag.name {
            "from" => out.from = Some(flag.required(line)?),
            "chown" => out.chown = Some(flag.required(line)?),
            "chmod" => out.chmod = Some(flag.required(line)?),
            "checksum" => out.checksum = Some(flag.required(line)?),
            "exclude" => out.exclude.push(flag.required(line)?),
            "link" => out.link = flag.switch(line)?,
            "parents" => out.parents = flag.switch(line)?,
            "unpack" => out.unpack = Some(flag.switch(line)?),
            _ => out.keep_git_dir = flag.switch(line)?,
        }
    }
    let text = &line.text[rest..];
    let (words, json) = match json_array(text.trim()) {
        Some(words) => (words, true),
        None => (plain_words(context, line, rest), false),
    };
    if words.len() < 2 {
        let message = format!(
            "{keyword} has {} path; expected at least a source and a destination",
            words.len()
        );
        return Err(line.error(line.text.len(), message));
    }
    let mut heredocs = std::mem::take(&mut line.heredocs).into_iter();
    let mut sources: Vec<Source> = Vec::new();
    let mut words = words.into_iter().peekable();
    let mut dest = String::new();
    while let Some(word) = words.next() {
        if words.peek().is_none() {
            dest = word;
            break;
        }
        sources.push(match heredoc_mark(&word).filter(|_| !json).and_then(|_| heredocs.next()) {
            Some(heredoc) => Source::Inline(heredoc),
            None => Source::Word(word),
        });
    }
    if !json && heredoc_mark(&dest).is_some() {
        return Err(
            line.error(rest, format!("{keyword} ends with a heredoc; expected a destination"))
        );
    }
    Ok(Add { flags: out, sources, dest, json })
}

fn healthcheck(
    context: &mut Context,
    line: &Logical,
    rest: usize,
) -> Result<Healthcheck, ParseError> {
    let allowed = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let (found, rest) = flags::take(line, rest, context.escape, &allowed, "HEALTHCHECK")?;
    let (word, after) = keyword_at(line, rest);
    if word == "NONE" {
        if after < line.text.len() || !found.is_empty() {
            return Err(line.error(rest, "HEALTHCHECK NONE takes nothing else"));
        }
        return Ok(Healthcheck::None);
    }
    if word != "CMD" || line.text[after..].trim().is_empty() {
        let message = "expected `HEALTHCHECK [flags] CMD command` or `HEALTHCHECK NONE`";
        return Err(line.error(rest, message));
    }
    let (mut interval, mut timeout, mut start_period, mut start_interval) =
        (None, None, None, None);
    let mut retries = None;
    for flag in &found {
        match flag.name {
            "interval" => interval = Some(flag.duration(line)?),
            "timeout" => timeout = Some(flag.duration(line)?),
            "start-period" => start_period = Some(flag.duration(line)?),
            "start-interval" => start_interval = Some(flag.duration(line)?),
            _ => {
                let text = flag.required(line)?;
                retries = Some(text.parse().map_err(|_| {
                    line.error(flag.offset, format!("`--retries={text}`; expected a number"))
                })?);
            }
        }
    }
    let command = command(context, line, after);
    Ok(Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries })
}

fn onbuild(
    context: &mut Context,
    line: &mut Logical,
    rest: usize,
) -> Result<Instruction, ParseError> {
    let (keyword, after) = keyword_at(line, rest);
    if matches!(keyword.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        let message = format!("ONBUILD {keyword} is not allowed; expected another instruction");
        return Err(line.error(rest, message));
    }
    if !KEYWORDS.contains(&keyword.as_str()) {
        let (row, column) = line.position(rest);
        let mut error = unknown(line, &keyword);
        (error.line, error.column) = (row, column);
        return Err(error);
    }
    let mut text = line.text[rest..].to_owned();
    for heredoc in &line.heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
    }
    let inner = parse(context, line, &keyword, after)?;
    Ok(Instruction::Onbuild(text, Box::new(inner)))
}
