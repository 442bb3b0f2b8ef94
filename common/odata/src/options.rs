//! Query options: at the top of a request (one text each) and inside an expanded navigation.

use winnow::ModalResult;
use winnow::Parser;
use winnow::combinator::opt;
use winnow::token::{literal, take_while};

use crate::ast::{Expand, Expr, Literal, Options, OrderBy};
use crate::error::{ParseError, Problem};
use crate::expression::{expression, sort_key};
use crate::limits;
use crate::scan::{
    Input, complete, count_expand, eat, expected, literal_opt, name, name_opt, need, nested, over,
    refuse, spaces,
};

/// Puts one `name=value` of the query string into `options`.
pub(crate) fn top_level(options: &mut Options, name: &str, value: &str) -> Result<(), ParseError> {
    let twice = |taken: bool| match taken {
        true => Err(ParseError::new(name, 0, Problem::Option("given twice".to_owned()))),
        false => Ok(()),
    };
    match name {
        "$select" => {
            twice(!options.select.is_empty())?;
            options.select = complete(name, value, select)?;
        }
        "$filter" => {
            twice(options.filter.is_some())?;
            options.filter = Some(complete(name, value, expression)?);
        }
        "$expand" => {
            twice(!options.expand.is_empty())?;
            options.expand = complete(name, value, expand)?;
        }
        "$orderby" => {
            twice(!options.orderby.is_empty())?;
            options.orderby = complete(name, value, orderby)?;
        }
        "$top" => {
            twice(options.top.is_some())?;
            options.top = Some(complete(name, value, amount)?);
        }
        "$skip" => {
            twice(options.skip.is_some())?;
            options.skip = Some(complete(name, value, amount)?);
        }
        "$format" => options.format = Some(value.to_owned()),
        _ => other(options, name, value)?,
    }
    Ok(())
}

fn other(options: &mut Options, name: &str, value: &str) -> Result<(), ParseError> {
    if let Some(alias) = name.strip_prefix('@') {
        let valid = complete(name, alias, |input| {
            crate::scan::name(input, "a parameter name").map(str::to_owned)
        })?;
        options.aliases.push((valid, complete(name, value, constant)?));
    } else if name.starts_with('$') {
        let known = "$select, $filter, $expand, $orderby, $top, $skip, $format";
        let message = format!("unknown option; known are {known}");
        return Err(ParseError::new(name, 0, Problem::Option(message)));
    } else {
        options.custom.push((name.to_owned(), value.to_owned()));
    }
    Ok(())
}

pub(crate) fn constant(input: &mut Input<'_>) -> ModalResult<Literal> {
    match literal_opt(input)? {
        Some(value) => Ok(value),
        None => Err(expected(input, "a constant")),
    }
}

fn amount(input: &mut Input<'_>) -> ModalResult<u64> {
    let start = input.input;
    let digits = take_while(0.., |c: char| c.is_ascii_digit()).parse_next(input)?;
    digits.parse::<u32>().map(u64::from).map_err(|_| {
        input.input = start;
        expected(input, "a whole number from 0 to 4294967295")
    })
}

fn list<T>(
    input: &mut Input<'_>,
    mut item: impl FnMut(&mut Input<'_>) -> ModalResult<T>,
) -> ModalResult<Vec<T>> {
    let mut items = Vec::new();
    loop {
        if items.len() == limits::MAX_NAMES {
            return Err(over(input, limits::MAX_NAMES, "names in one list"));
        }
        items.push(item(input)?);
        if !eat(input, ",")? {
            return Ok(items);
        }
    }
}

fn select(input: &mut Input<'_>) -> ModalResult<Vec<String>> {
    list(input, |input| match eat(input, "*")? {
        true => Ok("*".to_owned()),
        false => name(input, "a field name or `*`").map(str::to_owned),
    })
}

fn orderby(input: &mut Input<'_>) -> ModalResult<Vec<OrderBy>> {
    list(input, |input| {
        let by: Expr = sort_key(input)?;
        let start = input.input;
        spaces(input)?;
        let descending = match name_opt(input)? {
            Some("asc") => false,
            Some("desc") => true,
            Some(_) => {
                input.input = start;
                spaces(input)?;
                return Err(expected(input, "`asc` or `desc`"));
            }
            None => {
                input.input = start;
                true
            }
        };
        Ok(OrderBy { by, descending })
    })
}

fn expand(input: &mut Input<'_>) -> ModalResult<Vec<Expand>> {
    list(input, |input| {
        count_expand(input)?;
        let navigation = name(input, "a navigation to expand")?.to_owned();
        let mut count = false;
        if opt(literal("/")).parse_next(input)?.is_some() {
            count = opt(literal("$count")).parse_next(input)?.is_some();
            if !count {
                return Err(expected(input, "`$count`"));
            }
        }
        let mut options = Options::default();
        if eat(input, "(")? {
            nested(input, |input| inner(input, &mut options))?;
            need(input, ")")?;
        }
        Ok(Expand { navigation, count, options })
    })
}

/// `$select=…;$filter=…` between the parentheses of an expand.
fn inner(input: &mut Input<'_>, options: &mut Options) -> ModalResult<()> {
    loop {
        if opt(literal("$")).parse_next(input)?.is_none() {
            return Err(expected(input, "an option beginning with `$`"));
        }
        let word = name(input, "the name of an option")?;
        need(input, "=")?;
        let twice = match word {
            "select" => !std::mem::replace(&mut options.select, select(input)?).is_empty(),
            "filter" => options.filter.replace(expression(input)?).is_some(),
            "expand" => {
                let inside = nested(input, expand)?;
                !std::mem::replace(&mut options.expand, inside).is_empty()
            }
            "orderby" => !std::mem::replace(&mut options.orderby, orderby(input)?).is_empty(),
            "top" => options.top.replace(amount(input)?).is_some(),
            "skip" => options.skip.replace(amount(input)?).is_some(),
            _ => return Err(refuse(input, format!("unknown option ${word} in an expand"))),
        };
        if twice {
            return Err(refuse(input, format!("${word} given twice in an expand")));
        }
        if !eat(input, ";")? && !eat(input, "&")? {
            return Ok(());
        }
    }
}
