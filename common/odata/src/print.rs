//! The printer: every tree as text that parses back to the same tree.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{
    Expand, Expr, Key, KeyValue, Literal, Options, OrderBy, Path, Quantifier, Request,
};
use crate::percent::{encode, encode_name};

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

fn quote(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "'{}'", text.replace('\'', "''"))
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:?}"),
            Self::Text(text) => quote(text, f),
            Self::DateTime(text) => f.write_str("datetime").and_then(|()| quote(text, f)),
        }
    }
}

impl Expr {
    /// Operators of the tree's top, for the choice of parentheses; 4 = none.
    fn level(&self) -> u8 {
        match self {
            Self::Binary { op, .. } => op.level(),
            Self::In { .. } => 1,
            _ => 4,
        }
    }
}

/// Writes an operand, in parentheses when it binds weaker than its place wants.
fn operand(tree: &Expr, wanted: u8, f: &mut Formatter<'_>) -> fmt::Result {
    if tree.level() < wanted { write!(f, "({tree})") } else { write!(f, "{tree}") }
}

fn joined<T: Display>(items: &[T], f: &mut impl Write) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(at, item)| {
        let comma = if at == 0 { "" } else { "," };
        write!(f, "{comma}{item}")
    })
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => write!(f, "{literal}"),
            Self::Path(path) => write!(f, "{path}"),
            Self::Parameter(name) => write!(f, "@{name}"),
            Self::Count { path, filter: None } => write!(f, "{path}/$count"),
            Self::Count { path, filter: Some(filter) } => {
                write!(f, "{path}/$count($filter={filter})")
            }
            Self::Not(inner) => write!(f, "not({inner})"),
            Self::Negate(inner) => write!(f, "-({inner})"),
            Self::Binary { op, left, right } => {
                operand(left, op.level(), f)?;
                write!(f, " {} ", op.name())?;
                operand(right, op.level() + 1, f)
            }
            Self::In { value, list } => {
                operand(value, 1, f)?;
                f.write_str(" in (")?;
                for (at, item) in list.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    operand(item, 4, f)?;
                }
                f.write_str(")")
            }
            Self::Call { function, arguments } => {
                write!(f, "{}(", function.name())?;
                joined(arguments, f)?;
                f.write_str(")")
            }
            Self::Lambda { path, quantifier, body } => {
                let word = match quantifier {
                    Quantifier::Any => "any",
                    Quantifier::All => "all",
                };
                match body {
                    None => write!(f, "{path}/{word}()"),
                    Some((variable, inner)) => write!(f, "{path}/{word}({variable}:{inner})"),
                }
            }
        }
    }
}

impl Display for KeyValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => write!(f, "{value}"),
            Self::Alias(name) => write!(f, "@{name}"),
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(value) => write!(f, "({value})"),
            Self::Named(parts) => {
                for (at, (name, value)) in parts.iter().enumerate() {
                    write!(f, "{}{name}={value}", if at == 0 { "(" } else { "," })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Display for OrderBy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.by, if self.descending { "desc" } else { "asc" })
    }
}

impl Display for Expand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.navigation)?;
        if self.count {
            f.write_str("/$count")?;
        }
        let options = self.options.written();
        if options.is_empty() {
            return Ok(());
        }
        for (at, (name, value)) in options.iter().enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "(" } else { ";" })?;
        }
        f.write_str(")")
    }
}

impl Options {
    /// The `$` options as names and plain texts.
    fn written(&self) -> Vec<(&'static str, String)> {
        fn list<T: Display>(items: &[T]) -> Option<String> {
            let mut text = String::new();
            joined(items, &mut text).ok()?;
            (!items.is_empty()).then_some(text)
        }
        [
            ("$select", list(&self.select)),
            ("$filter", self.filter.as_ref().map(ToString::to_string)),
            ("$expand", list(&self.expand)),
            ("$orderby", list(&self.orderby)),
            ("$top", self.top.map(|n| n.to_string())),
            ("$skip", self.skip.map(|n| n.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, text)| text.map(|text| (name, text)))
        .collect()
    }
}

impl Display for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut path = self.resource.clone();
        if let Some(key) = &self.key {
            write!(path, "{key}")?;
        }
        if let Some(navigation) = &self.links {
            write!(path, "/$links/{navigation}")?;
        }
        if let Some(name) = &self.property {
            write!(path, "/{name}")?;
        }
        if self.count {
            path.push_str("/$count");
        }
        encode(&path, f)?;
        let options = self.options.written().into_iter().map(|(n, v)| (n.to_owned(), v));
        let format = self.options.format.iter().map(|v| ("$format".to_owned(), v.clone()));
        let aliases = self.options.aliases.iter().map(|(n, v)| (format!("@{n}"), v.to_string()));
        let all = options.chain(format).chain(aliases).chain(self.options.custom.iter().cloned());
        for (at, (name, value)) in all.enumerate() {
            f.write_str(if at == 0 { "?" } else { "&" })?;
            encode_name(&name, f)?;
            f.write_str("=")?;
            encode(&value, f)?;
        }
        Ok(())
    }
}
