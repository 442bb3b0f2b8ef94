//! The words of the grammar: spaces, names, literals; and the bookkeeping of limits and faults.

use winnow::combinator::opt;
use winnow::error::{ContextError, ErrMode};
use winnow::stream::{LocatingSlice, Location, Stateful};
use winnow::token::{any, literal, one_of, take_while};
use winnow::{ModalResult, Parser};

use crate::ast::Literal;
use crate::error::{ParseError, Problem};
use crate::limits;

/// What a reading has used up, and why it stopped.
#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    nesting: usize,
    nodes: usize,
    expands: usize,
    fault: Option<(usize, Problem)>,
}

pub(crate) type Input<'a> = Stateful<LocatingSlice<&'a str>, State>;

/// Runs `parser` over the whole of `text`.
pub(crate) fn complete<T>(
    part: &str,
    text: &str,
    mut parser: impl FnMut(&mut Input<'_>) -> ModalResult<T>,
) -> Result<T, ParseError> {
    let mut input = Stateful { input: LocatingSlice::new(text), state: State::default() };
    let result =
        spaces(&mut input)
            .and_then(|()| parser(&mut input))
            .and_then(|value| spaces(&mut input).map(|()| value))
            .and_then(|value| {
                if input.is_empty() { Ok(value) } else { Err(expected(&mut input, "the end")) }
            });
    result.map_err(|_| {
        let here = input.current_token_start();
        let (offset, problem) = input
            .state
            .fault
            .take()
            .unwrap_or((here, Problem::Expected("something the grammar allows")));
        let position = text.get(..offset).map_or(0, |before| before.chars().count());
        ParseError::new(part, position, problem)
    })
}

/// Refuses a text that is longer than any request may be.
pub(crate) fn check_length(part: &str, text: &str) -> Result<(), ParseError> {
    if text.len() <= limits::MAX_LENGTH {
        return Ok(());
    }
    let problem = Problem::Limit { limit: limits::MAX_LENGTH, unit: "bytes in a request" };
    Err(ParseError::new(part, 0, problem))
}

fn fault(input: &mut Input<'_>, problem: Problem) -> ErrMode<ContextError> {
    let here = input.current_token_start();
    input.state.fault.get_or_insert((here, problem));
    ErrMode::Cut(ContextError::new())
}

/// The fault "something else stands here".
pub(crate) fn expected(input: &mut Input<'_>, what: &'static str) -> ErrMode<ContextError> {
    fault(input, Problem::Expected(what))
}

/// The fault "more than `limit` of `unit`".
pub(crate) fn over(
    input: &mut Input<'_>,
    limit: usize,
    unit: &'static str,
) -> ErrMode<ContextError> {
    fault(input, Problem::Limit { limit, unit })
}

/// A fault of an option inside `$expand`.
pub(crate) fn refuse(input: &mut Input<'_>, message: String) -> ErrMode<ContextError> {
    fault(input, Problem::Option(message))
}

/// Runs `parser` one level deeper.
pub(crate) fn nested<'a, T>(
    input: &mut Input<'a>,
    parser: impl FnOnce(&mut Input<'a>) -> ModalResult<T>,
) -> ModalResult<T> {
    if input.state.nesting >= limits::MAX_NESTING {
        return Err(over(input, limits::MAX_NESTING, "levels of nesting"));
    }
    input.state.nesting += 1;
    let result = parser(input);
    input.state.nesting -= 1;
    result
}

/// Counts one expression node.
pub(crate) fn count_node(input: &mut Input<'_>) -> ModalResult<()> {
    input.state.nodes += 1;
    if input.state.nodes > limits::MAX_NODES {
        return Err(over(input, limits::MAX_NODES, "terms in the expressions of a request"));
    }
    Ok(())
}

/// Counts one expanded navigation.
pub(crate) fn count_expand(input: &mut Input<'_>) -> ModalResult<()> {
    input.state.expands += 1;
    if input.state.expands > limits::MAX_EXPANDS {
        return Err(over(input, limits::MAX_EXPANDS, "expanded navigations in a request"));
    }
    Ok(())
}

pub(crate) fn spaces(input: &mut Input<'_>) -> ModalResult<()> {
    take_while(0.., [' ', '\t', '\r', '\n']).void().parse_next(input)
}

/// Takes `symbol` with the spaces around it, if it is there.
pub(crate) fn eat(input: &mut Input<'_>, symbol: &'static str) -> ModalResult<bool> {
    let start = input.input;
    spaces(input)?;
    if opt(literal(symbol)).parse_next(input)?.is_some() {
        spaces(input)?;
        return Ok(true);
    }
    input.input = start;
    Ok(false)
}

/// Takes `symbol` or fails saying so.
pub(crate) fn need(input: &mut Input<'_>, symbol: &'static str) -> ModalResult<()> {
    if eat(input, symbol)? {
        return Ok(());
    }
    spaces(input)?;
    Err(expected(
        input,
        match symbol {
            "(" => "`(`",
            ")" => "`)`",
            ":" => "`:` after the lambda variable",
            "=" => "`=`",
            _ => "a separator",
        },
    ))
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A name if one stands here.
pub(crate) fn name_opt<'a>(input: &mut Input<'a>) -> ModalResult<Option<&'a str>> {
    let word = opt((one_of(is_name_start), take_while(0.., is_name)).take()).parse_next(input)?;
    match word {
        Some(word) if word.len() > limits::MAX_NAME_LENGTH => {
            Err(over(input, limits::MAX_NAME_LENGTH, "characters in a name"))
        }
        word => Ok(word),
    }
}

pub(crate) fn name<'a>(input: &mut Input<'a>, what: &'static str) -> ModalResult<&'a str> {
    match name_opt(input)? {
        Some(word) => Ok(word),
        None => Err(expected(input, what)),
    }
}

/// `'text'`, quotes inside doubled. The opening quote is still ahead.
fn quoted(input: &mut Input<'_>) -> ModalResult<String> {
    literal("'").void().parse_next(input)?;
    let mut text = String::new();
    loop {
        text.push_str(take_while(0.., |c| c != '\'').parse_next(input)?);
        if opt(literal("'")).parse_next(input)?.is_none() {
            return Err(expected(input, "the closing quote"));
        }
        if opt(literal("'")).parse_next(input)?.is_none() {
            return Ok(text);
        }
        text.push('\'');
    }
}

fn digits<'a>(input: &mut Input<'a>) -> ModalResult<&'a str> {
    take_while(1.., |c: char| c.is_ascii_digit()).parse_next(input)
}

fn number(input: &mut Input<'_>) -> ModalResult<Literal> {
    let start = input.input;
    let fraction = opt((literal("."), digits).take());
    let exponent = opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), digits).take());
    let (text, (_, _, fraction, exponent)) = (opt(literal("-")), digits, fraction, exponent)
        .with_taken()
        .map(|(v, t)| (t, v))
        .parse_next(input)?;
    if fraction.is_none() && exponent.is_none() {
        if let Ok(whole) = text.parse() {
            return Ok(Literal::Integer(whole));
        }
        input.input = start;
        return Err(expected(input, "a whole number of at most 64 bits"));
    }
    match text.parse::<f64>() {
        Ok(real) if real.is_finite() => Ok(Literal::Real(real)),
        _ => {
            input.input = start;
            Err(expected(input, "a finite number"))
        }
    }
}

/// A constant if one stands here; a name is taken only when it is one of the constant words.
pub(crate) fn literal_opt(input: &mut Input<'_>) -> ModalResult<Option<Literal>> {
    let start = input.input;
    match opt(winnow::combinator::peek(any)).parse_next(input)? {
        Some('\'') => return quoted(input).map(|text| Some(Literal::Text(text))),
        Some('0'..='9') => return number(input).map(Some),
        Some('-') => {
            let value = opt(number).parse_next(input)?;
            return Ok(value);
        }
        _ => {}
    }
    let Some(word) = name_opt(input)? else { return Ok(None) };
    let follows = opt(winnow::combinator::peek(any)).parse_next(input)?;
    match (word, follows) {
        ("datetime" | "datetimeoffset", Some('\'')) => {
            return quoted(input).map(|text| Some(Literal::DateTime(text)));
        }
        (_, Some('/' | '(' | ':')) => {}
        ("null", _) => return Ok(Some(Literal::Null)),
        ("true", _) => return Ok(Some(Literal::Boolean(true))),
        ("false", _) => return Ok(Some(Literal::Boolean(false))),
        _ => {}
    }
    input.input = start;
    Ok(None)
}
