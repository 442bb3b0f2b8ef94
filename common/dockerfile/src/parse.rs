//! From logical lines to stages.

use crate::ast::{Arg, Dockerfile, From, Instruction, Node, Span, Stage, Warning};
use crate::error::ParseError;
use crate::lines::{Logical, Reader};
use crate::{MAX_BYTES, MAX_INSTRUCTIONS, MAX_STAGES, flags, instructions, words};

/// What an instruction's parser needs beside its line.
pub(crate) struct Context {
    pub escape: char,
    pub warnings: Vec<Warning>,
}

/// Reads a whole Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; the limit is {MAX_BYTES}", text.len());
        return Err(ParseError::new(1, 1, message));
    }
    let mut reader = Reader::new(text)?;
    let mut context = Context { escape: reader.escape, warnings: Vec::new() };
    let mut global_args: Vec<Arg> = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut count = 0;
    while let Some(mut line) = reader.next_logical()? {
        count += 1;
        if count > MAX_INSTRUCTIONS {
            let message = format!("more than {MAX_INSTRUCTIONS} instructions; that is the limit");
            return Err(line.error(0, message));
        }
        let (keyword, rest) = keyword(&line);
        let span = span(&line);
        if keyword == "FROM" {
            if stages.len() == MAX_STAGES {
                return Err(
                    line.error(0, format!("more than {MAX_STAGES} stages; that is the limit"))
                );
            }
            let from = from_line(&mut context, &line, rest)?;
            if let Some(name) = &from.name
                && stages.iter().any(|s| s.from.name.as_ref() == Some(name))
            {
                return Err(line.error(rest, format!("a stage named `{name}` exists already")));
            }
            stages.push(Stage { from, span, nodes: Vec::new() });
            continue;
        }
        let instruction = instructions::parse(&mut context, &mut line, &keyword, rest)?;
        match (stages.last_mut(), instruction) {
            (Some(stage), instruction) => {
                let text = std::mem::take(&mut line.text);
                stage.nodes.push(Node { span, text, instruction });
            }
            (None, Instruction::Arg(args)) => global_args.extend(args),
            (None, other) => {
                let message =
                    format!("{} before the first FROM; expected FROM or ARG", other.keyword());
                return Err(line.error(0, message));
            }
        }
    }
    if stages.is_empty() {
        let error =
            ParseError::new(1, 1, "there is no FROM; expected `FROM image` to begin a stage");
        return Err(error);
    }
    Ok(Dockerfile { escape: context.escape, global_args, stages, warnings: context.warnings })
}

/// Reads one instruction that stands alone, as an `ONBUILD` trigger kept in an image does.
pub fn parse_instruction(text: &str, escape: char) -> Result<Instruction, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::new(1, 1, format!("an instruction over {MAX_BYTES} bytes")));
    }
    let mut context = Context { escape, warnings: Vec::new() };
    let mut reader = Reader::new(text)?;
    reader.escape = escape;
    let Some(mut line) = reader.next_logical()? else {
        return Err(ParseError::new(1, 1, "nothing here; expected an instruction"));
    };
    let (keyword, rest) = keyword(&line);
    instructions::parse(&mut context, &mut line, &keyword, rest)
}

/// The keyword in upper case, and where its arguments begin.
pub(crate) fn keyword(line: &Logical) -> (String, usize) {
    keyword_at(line, 0)
}

pub(crate) fn keyword_at(line: &Logical, from: usize) -> (String, usize) {
    let text = &line.text[from..];
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let rest = text.len() - text[end..].trim_start().len();
    (text[..end].to_ascii_uppercase(), from + rest)
}

fn span(line: &Logical) -> Span {
    let (first, column) = line.position(0);
    Span { line: first, column, end_line: line.end_line }
}

fn from_line(context: &mut Context, line: &Logical, rest: usize) -> Result<From, ParseError> {
    let (found, rest) = flags::take(line, rest, context.escape, &["platform"], "FROM")?;
    let mut platform = None;
    for flag in &found {
        platform = Some(flag.required(line)?);
    }
    let words: Vec<(usize, &str)> = words::split(&line.text[rest..], context.escape);
    let (image, name) = match words.as_slice() {
        [(_, image)] => (*image, None),
        [(_, image), (_, as_word), (offset, name)] if as_word.eq_ignore_ascii_case("as") => {
            let name = name.to_ascii_lowercase();
            if !stage_name(&name) {
                let message = format!(
                    "`{name}` is not a stage name; expected a letter, then letters, digits, `-`, `_` or `.`"
                );
                return Err(line.error(rest + offset, message));
            }
            (*image, Some(name))
        }
        [] => {
            return Err(
                line.error(line.text.len(), "FROM has no image; expected `FROM image [AS name]`")
            );
        }
        [_, (offset, word), ..] => {
            let message = format!("`{word}` after the image; expected `FROM image [AS name]`");
            return Err(line.error(rest + offset, message));
        }
    };
    Ok(From { platform, image: flags::unquote(image, context.escape), name })
}

fn stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}
