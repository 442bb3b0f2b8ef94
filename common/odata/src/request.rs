//! The path of a request and the cutting of its query string.

use winnow::ModalResult;
use winnow::Parser;
use winnow::combinator::opt;
use winnow::token::literal;

use crate::ast::{Key, KeyValue, Options, Request};
use crate::error::{ParseError, Problem};
use crate::limits;
use crate::options::{constant, top_level};
use crate::percent;
use crate::scan::{
    Input, check_length, complete, eat, expected, literal_opt, name, name_opt, need, over,
};

pub(crate) fn parse(text: &str) -> Result<Request, ParseError> {
    check_length("request", text)?;
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let path = percent::decode("path", path, false)?;
    let mut request = complete("path", &path, address)?;
    request.options = query_options(query)?;
    Ok(request)
}

fn query_options(query: &str) -> Result<Options, ParseError> {
    let mut options = Options::default();
    let parts = percent::split(query);
    if parts.len() > limits::MAX_OPTIONS {
        let problem = Problem::Limit { limit: limits::MAX_OPTIONS, unit: "options in a query" };
        return Err(ParseError::new("query", 0, problem));
    }
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = percent::decode("query", name, true)?;
        let value = percent::decode(&name, value, true)?;
        top_level(&mut options, &name, &value)?;
    }
    Ok(options)
}

fn address(input: &mut Input<'_>) -> ModalResult<Request> {
    eat(input, "/")?;
    let mut request = Request {
        resource: name(input, "the name of a resource")?.to_owned(),
        ..Request::default()
    };
    if eat(input, "(")? {
        request.key = Some(key(input)?);
        need(input, ")")?;
    }
    if eat(input, "/")? {
        if opt(literal("$count")).parse_next(input)?.is_some() {
            request.count = true;
        } else if opt(literal("$links/")).parse_next(input)?.is_some() {
            request.links = Some(name(input, "a navigation after `$links/`")?.to_owned());
        } else if let Some(word) = name_opt(input)? {
            request.property = Some(word.to_owned());
            if opt(literal("/$count")).parse_next(input)?.is_some() {
                request.count = true;
            }
        } else if winnow::stream::Stream::peek_token(input).is_some() {
            return Err(expected(input, "`$count`, `$links/…` or a name"));
        }
    }
    Ok(request)
}

fn key(input: &mut Input<'_>) -> ModalResult<Key> {
    if opt(literal("@")).parse_next(input)?.is_some() {
        return name(input, "a parameter name").map(|n| Key::Id(KeyValue::Alias(n.to_owned())));
    }
    if let Some(value) = literal_opt(input)? {
        return Ok(Key::Id(KeyValue::Literal(value)));
    }
    let mut parts: Vec<(String, KeyValue)> = Vec::new();
    loop {
        if parts.len() == limits::MAX_NAMES {
            return Err(over(input, limits::MAX_NAMES, "parts in a key"));
        }
        let field = name(input, "a key: a constant, `@name` or `field=value`")?.to_owned();
        need(input, "=")?;
        let value = match opt(literal("@")).parse_next(input)? {
            Some(_) => KeyValue::Alias(name(input, "a parameter name")?.to_owned()),
            None => KeyValue::Literal(constant(input)?),
        };
        if parts.iter().any(|(known, _)| *known == field) {
            return Err(expected(input, "each field of a key once"));
        }
        parts.push((field, value));
        if !eat(input, ",")? {
            return Ok(Key::Named(parts));
        }
    }
}
