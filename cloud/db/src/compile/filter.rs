//! Expressions of `$filter` and of permission texts.

use minke_common_odata::{Binary, Expr as Tree, Quantifier};
use sea_query::{Expr, ExprTrait};

use super::function::call;
use super::value::{Type, Typed};
use super::{Compiler, Scope};
use crate::error::{Error, Result};

impl Compiler<'_> {
    /// An expression that is true or false.
    pub(super) fn predicate(&mut self, scope: &Scope<'_>, tree: &Tree) -> Result<Expr> {
        self.boolean(scope, tree).map(|typed| typed.sql)
    }

    fn boolean(&mut self, scope: &Scope<'_>, tree: &Tree) -> Result<Typed> {
        let typed = self.value(scope, tree)?;
        if typed.kind == Type::Boolean {
            return Ok(typed);
        }
        Err(Error::invalid(format!("`{}` is neither true nor false", shorten(tree))))
    }

    /// An expression that gives a value of some type.
    pub(super) fn value(&mut self, scope: &Scope<'_>, tree: &Tree) -> Result<Typed> {
        match tree {
            Tree::Literal(literal) => self.literal(literal),
            Tree::Parameter(name) => self.parameter(name),
            Tree::Path(path) => self.path(scope, &path.0),
            Tree::Count { path, filter } => self.count(scope, &path.0, filter.as_deref()),
            Tree::Not(inner) => self.boolean(scope, inner).map(negate),
            Tree::Negate(inner) => {
                let inner = self.number(scope, inner)?;
                let zero = Expr::val(0_i64);
                Ok(Typed::new(zero.sub(inner.sql), inner.kind, inner.nullable))
            }
            Tree::Binary { op, left, right } => self.binary(scope, *op, left, right),
            Tree::In { value, list } => self.is_in(scope, value, list),
            Tree::Call { function, arguments } => self.call(scope, *function, arguments),
            Tree::Lambda { path, quantifier, body } => {
                let all = *quantifier == Quantifier::All;
                let body = body.as_ref().map(|(variable, body)| (variable.as_str(), &**body));
                self.quantified(scope, &path.0, all, body).map(Typed::condition)
            }
        }
    }

    fn binary(
        &mut self,
        scope: &Scope<'_>,
        op: Binary,
        left: &Tree,
        right: &Tree,
    ) -> Result<Typed> {
        match op {
            Binary::And | Binary::Or => {
                let left = self.boolean(scope, left)?;
                let right = self.boolean(scope, right)?;
                let nullable = left.nullable || right.nullable;
                let sql = match op {
                    Binary::And => left.sql.and(right.sql),
                    _ => left.sql.or(right.sql),
                };
                Ok(Typed::new(sql, Type::Boolean, nullable))
            }
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Mod => {
                let left = self.number(scope, left)?;
                let right = self.number(scope, right)?;
                arithmetic(op, left, right)
            }
            comparison => {
                let left = self.value(scope, left)?;
                let right = self.value(scope, right)?;
                let nullable = left.nullable || right.nullable;
                let sql = self.compare(comparison, left, right)?;
                Ok(Typed::new(sql, Type::Boolean, nullable))
            }
        }
    }

    pub(super) fn number(&mut self, scope: &Scope<'_>, tree: &Tree) -> Result<Typed> {
        let typed = self.value(scope, tree)?;
        match typed.kind {
            Type::Integer | Type::Real => Ok(typed),
            // A difference of dates is a number of milliseconds.
            Type::Time => Ok(Typed { kind: Type::Integer, ..typed }),
            _ => Err(Error::invalid(format!("`{}` is not a number", shorten(tree)))),
        }
    }

    fn is_in(&mut self, scope: &Scope<'_>, value: &Tree, list: &[Tree]) -> Result<Typed> {
        let value = self.value(scope, value)?;
        let mut plain = Vec::new();
        let mut others: Option<Expr> = None;
        for item in list {
            let item = self.value(scope, item)?;
            let constant = item.constant.is_some() && item.kind == value.kind;
            if constant && item.kind != Type::Null {
                plain.push(item.sql);
                continue;
            }
            let equal = self.compare(Binary::Eq, value.clone(), item)?;
            others = Some(match others {
                Some(before) => before.or(equal),
                None => equal,
            });
        }
        let nullable = value.nullable;
        let listed = (!plain.is_empty()).then(|| value.sql.is_in(plain));
        let sql = match (listed, others) {
            (Some(listed), Some(others)) => listed.or(others),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => super::never(),
        };
        Ok(Typed::new(sql, Type::Boolean, nullable))
    }
}

/// `not x`, where an unknown `x` counts as false.
fn negate(inner: Typed) -> Typed {
    let known = match inner.nullable {
        true => known(inner.sql),
        false => inner.sql,
    };
    Typed::condition(known.not())
}

/// A condition that is false where it was null.
pub(super) fn known(condition: Expr) -> Expr {
    call("coalesce", [condition, super::never()])
}

/// Sums and products are doubles, so they overflow on neither engine; a division by zero gives null.
fn arithmetic(op: Binary, left: Typed, right: Typed) -> Result<Typed> {
    let whole = left.kind == Type::Integer && right.kind == Type::Integer;
    let double = |side: Typed| side.sql.cast_as("DOUBLE PRECISION");
    let nullable = left.nullable || right.nullable;
    let divisor = |sql: Expr| call("nullif", [sql, Expr::cust("0")]);
    let (sql, kind, nullable) = match op {
        Binary::Add => (double(left).add(double(right)), Type::Real, nullable),
        Binary::Sub => (double(left).sub(double(right)), Type::Real, nullable),
        Binary::Mul => (double(left).mul(double(right)), Type::Real, nullable),
        Binary::Div if whole => (left.sql.div(divisor(right.sql)), Type::Integer, true),
        Binary::Div => (double(left).div(divisor(double(right))), Type::Real, true),
        Binary::Mod if whole => (left.sql.modulo(divisor(right.sql)), Type::Integer, true),
        _ => return Err(Error::invalid("`mod` takes whole numbers")),
    };
    Ok(Typed::new(sql, kind, nullable))
}

/// The start of an expression's text, for messages.
pub(super) fn shorten(tree: &Tree) -> String {
    let text = tree.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
