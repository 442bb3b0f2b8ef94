//! The grammar of expressions: `$filter`, lambda bodies, paths of `$orderby`.

use winnow::ModalResult;
use winnow::Parser;
use winnow::combinator::{opt, peek};
use winnow::token::{any, literal};

use crate::ast::{Binary, Expr, Function, Path, Quantifier};
use crate::limits;
use crate::scan::{
    Input, count_node, eat, expected, literal_opt, name, name_opt, need, nested, over, spaces,
};

/// An expression with whatever operators follow; bounded in depth.
pub(crate) fn expression(input: &mut Input<'_>) -> ModalResult<Expr> {
    let tree = nested(input, |input| level(input, 0))?;
    if depth(&tree) > limits::MAX_DEPTH {
        return Err(over(input, limits::MAX_DEPTH, "levels or operators in a row"));
    }
    Ok(tree)
}

/// Operators of one binding strength, grouped from the left.
fn level(input: &mut Input<'_>, strength: u8) -> ModalResult<Expr> {
    if strength > 3 {
        return unary(input);
    }
    let mut left = level(input, strength + 1)?;
    while let Some(operator) = operator(input, strength)? {
        count_node(input)?;
        left = match operator {
            Operator::In => in_list(input, left)?,
            Operator::Binary(op) => {
                let right = level(input, strength + 1)?;
                Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
            }
        };
    }
    Ok(left)
}

enum Operator {
    Binary(Binary),
    In,
}

fn operator(input: &mut Input<'_>, strength: u8) -> ModalResult<Option<Operator>> {
    let start = input.input;
    spaces(input)?;
    if let Some(word) = name_opt(input)? {
        let found = match word {
            "in" if strength == 1 => Some(Operator::In),
            _ => Binary::ALL
                .iter()
                .find(|(op, name)| *name == word && op.level() == strength)
                .map(|(op, _)| Operator::Binary(*op)),
        };
        if found.is_some() {
            spaces(input)?;
            return Ok(found);
        }
    }
    input.input = start;
    Ok(None)
}

fn in_list(input: &mut Input<'_>, value: Expr) -> ModalResult<Expr> {
    need(input, "(")?;
    let mut list = Vec::new();
    loop {
        if list.len() == limits::MAX_LIST {
            return Err(over(input, limits::MAX_LIST, "values in one list"));
        }
        let item = match literal_opt(input)? {
            Some(constant) => Expr::Literal(constant),
            None => nested(input, unary)?,
        };
        list.push(item);
        if !eat(input, ",")? {
            break;
        }
    }
    need(input, ")")?;
    Ok(Expr::In { value: Box::new(value), list })
}

fn unary(input: &mut Input<'_>) -> ModalResult<Expr> {
    count_node(input)?;
    if let Some(constant) = literal_opt(input)? {
        return Ok(Expr::Literal(constant));
    }
    if eat(input, "(")? {
        let inner = expression(input)?;
        need(input, ")")?;
        return Ok(inner);
    }
    if eat(input, "-")? {
        return nested(input, unary).map(|inner| Expr::Negate(Box::new(inner)));
    }
    if opt(literal("@")).parse_next(input)?.is_some() {
        return name(input, "the name of a parameter").map(|n| Expr::Parameter(n.to_owned()));
    }
    let word = name(input, "a field, a value, a function or `(`")?;
    let follows = opt(peek(any)).parse_next(input)?;
    match (word, follows) {
        ("not", Some(' ' | '\t' | '\r' | '\n' | '(')) => {
            spaces(input)?;
            nested(input, unary).map(|inner| Expr::Not(Box::new(inner)))
        }
        (_, Some('(')) => call(input, word),
        _ => path_or_lambda(input, word),
    }
}

fn call(input: &mut Input<'_>, word: &str) -> ModalResult<Expr> {
    let Some(&(function, _, fewest, most)) = Function::ALL.iter().find(|f| f.1 == word) else {
        return Err(expected(input, "a known function before `(`"));
    };
    need(input, "(")?;
    let mut arguments = Vec::new();
    if !eat(input, ")")? {
        loop {
            arguments.push(expression(input)?);
            if arguments.len() == most || !eat(input, ",")? {
                break;
            }
        }
        need(input, ")")?;
    }
    if arguments.len() < fewest || arguments.len() > most {
        return Err(expected(input, "as many arguments as the function takes"));
    }
    Ok(Expr::Call { function, arguments })
}

/// `a/b/c`, `a/$count`, `a/any(x:…)`; the first name is already read.
fn path_or_lambda(input: &mut Input<'_>, first: &str) -> ModalResult<Expr> {
    let mut names = vec![first.to_owned()];
    while opt(literal("/")).parse_next(input)?.is_some() {
        if opt(literal("$count")).parse_next(input)?.is_some() {
            return count_filter(input).map(|filter| Expr::Count { path: Path(names), filter });
        }
        if names.len() == limits::MAX_NESTING {
            return Err(over(input, limits::MAX_NESTING, "names in one path"));
        }
        let word = name(input, "a name after `/`")?;
        let opens = opt(peek(literal("("))).parse_next(input)?.is_some();
        match (word, opens) {
            ("any", true) => return lambda(input, Path(names), Quantifier::Any),
            ("all", true) => return lambda(input, Path(names), Quantifier::All),
            (_, true) => return Err(expected(input, "`any` or `all` before `(`")),
            _ => names.push(word.to_owned()),
        }
    }
    Ok(Expr::Path(Path(names)))
}

fn count_filter(input: &mut Input<'_>) -> ModalResult<Option<Box<Expr>>> {
    if opt(literal("(")).parse_next(input)?.is_none() {
        return Ok(None);
    }
    spaces(input)?;
    if opt(literal("$filter")).parse_next(input)?.is_none() {
        return Err(expected(input, "`$filter`"));
    }
    need(input, "=")?;
    let filter = expression(input)?;
    need(input, ")")?;
    Ok(Some(Box::new(filter)))
}

fn lambda(input: &mut Input<'_>, path: Path, quantifier: Quantifier) -> ModalResult<Expr> {
    need(input, "(")?;
    if eat(input, ")")? {
        return match quantifier {
            Quantifier::Any => Ok(Expr::Lambda { path, quantifier, body: None }),
            Quantifier::All => Err(expected(input, "a condition inside `all(…)`")),
        };
    }
    let variable = name(input, "a lambda variable")?.to_owned();
    need(input, ":")?;
    let body = expression(input)?;
    need(input, ")")?;
    Ok(Expr::Lambda { path, quantifier, body: Some((variable, Box::new(body))) })
}

/// A path or a count, as `$orderby` wants.
pub(crate) fn sort_key(input: &mut Input<'_>) -> ModalResult<Expr> {
    count_node(input)?;
    let word = name(input, "a field to order by")?;
    match path_or_lambda(input, word)? {
        Expr::Lambda { .. } => Err(expected(input, "a field or `$count` to order by")),
        key => Ok(key),
    }
}

fn depth(tree: &Expr) -> usize {
    1 + match tree {
        Expr::Literal(_) | Expr::Path(_) | Expr::Parameter(_) => 0,
        Expr::Count { filter, .. } => filter.as_deref().map_or(0, depth),
        Expr::Not(inner) | Expr::Negate(inner) => depth(inner),
        Expr::Binary { left, right, .. } => depth(left).max(depth(right)),
        Expr::In { value, list } => list.iter().map(depth).max().unwrap_or(0).max(depth(value)),
        Expr::Call { arguments, .. } => arguments.iter().map(depth).max().unwrap_or(0),
        Expr::Lambda { body, .. } => body.as_ref().map_or(0, |(_, inner)| depth(inner)),
    }
}
