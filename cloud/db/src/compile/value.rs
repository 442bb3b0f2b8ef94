//! Typed SQL values: constants, columns, and what may be compared with what.

use minke_common_odata::{Binary, Literal};
use sea_query::{BinOper, Expr, ExprTrait, Value};

use super::{Compiler, column};
use crate::cell::parse_time;
use crate::error::{Error, Result};
use crate::model::{Access, Field, Kind, Link, Resource};
use crate::store::Engine;

/// What kind of value an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// A whole number or a link.
    Integer,
    /// A double.
    Real,
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// Milliseconds since the epoch.
    Time,
    /// Comparable with null only.
    Opaque,
    /// The constant null.
    Null,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Integer | Self::Real => "a number",
            Self::Text => "a text",
            Self::Boolean => "true or false",
            Self::Time => "a date",
            Self::Opaque => "a document",
            Self::Null => "null",
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Real)
    }
}

impl From<Kind> for Type {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Integer | Kind::BigInteger => Self::Integer,
            Kind::Real => Self::Real,
            Kind::Boolean => Self::Boolean,
            Kind::Text => Self::Text,
            Kind::DateTime => Self::Time,
            Kind::Json | Kind::WebResource | Kind::Version => Self::Opaque,
        }
    }
}

/// A piece of SQL that gives one value.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub sql: Expr,
    pub kind: Type,
    pub nullable: bool,
    /// The constant it is, if it is one.
    pub constant: Option<Literal>,
    /// Whether it is a column, with the column's collation.
    pub is_column: bool,
}

impl Typed {
    pub fn new(sql: Expr, kind: Type, nullable: bool) -> Self {
        Self { sql, kind, nullable, constant: None, is_column: false }
    }

    /// A condition that is never null.
    pub fn condition(sql: Expr) -> Self {
        Self::new(sql, Type::Boolean, false)
    }
}

impl Compiler<'_> {
    pub(super) fn literal(&mut self, literal: &Literal) -> Result<Typed> {
        self.values += 1;
        let (value, kind) = match literal {
            Literal::Null => (Value::BigInt(None), Type::Null),
            Literal::Boolean(value) => (Value::Bool(Some(*value)), Type::Boolean),
            Literal::Integer(value) => (Value::BigInt(Some(*value)), Type::Integer),
            Literal::Real(value) => (Value::Double(Some(*value)), Type::Real),
            Literal::Text(text) if text.contains('\0') => {
                return Err(Error::invalid("a text may not hold NUL characters"));
            }
            Literal::Text(text) => (Value::String(Some(text.clone())), Type::Text),
            Literal::DateTime(text) => match parse_time(text) {
                Some(time) => (Value::BigInt(Some(time)), Type::Time),
                None => return Err(Error::invalid(format!("{text:?} is not an ISO date"))),
            },
        };
        let nullable = kind == Type::Null;
        let constant = Some(literal.clone());
        Ok(Typed { sql: Expr::val(value), kind, nullable, constant, is_column: false })
    }

    /// The caller's own parameter, or one of the request's aliases.
    pub(super) fn parameter(&mut self, name: &str) -> Result<Typed> {
        if name == "__ACTOR_ID" && self.trusted > 0 {
            let actor = Expr::val(Value::BigInt(self.caller.actor));
            return Ok(Typed::new(actor, Type::Integer, false));
        }
        let literal = self.alias(name)?;
        self.literal(literal)
    }

    /// A field of the row that `alias` stands for.
    pub(super) fn field(&self, resource: &Resource, alias: &str, field: &Field) -> Result<Typed> {
        let allowed = match field.access {
            Access::Normal => true,
            Access::Root | Access::Secret => self.trusted > 0 || self.caller.is_root(),
        };
        if !allowed {
            return Err(unknown(resource, &field.name));
        }
        let sql = self.stored(alias, &field.name, field.volatile, field.computed.as_deref());
        Ok(Typed {
            is_column: field.computed.is_none(),
            ..Typed::new(sql, field.kind.into(), field.nullable)
        })
    }

    /// The id in a link of the row that `alias` stands for.
    pub(super) fn link(&self, alias: &str, link: &Link) -> Typed {
        let sql = self.stored(alias, &link.name, link.volatile, link.computed.as_deref());
        Typed::new(sql, Type::Integer, link.nullable)
    }

    pub(super) fn stored(
        &self,
        alias: &str,
        name: &str,
        volatile: bool,
        computed: Option<&str>,
    ) -> Expr {
        let Some(sql) = computed else {
            let status = format!("{alias}s");
            return column(if volatile { &status } else { alias }, name);
        };
        // Aliases are `t` and a number, and the time is a number: nothing of a request gets in here.
        let sql = sql
            .replace("{t}", &format!("\"{alias}\""))
            .replace("{s}", &format!("\"{alias}s\""))
            .replace("{now}", &self.now.to_string());
        Expr::cust(format!("({sql})"))
    }

    /// Makes both sides of one type, where a constant can be read as the other side's type.
    fn unify(&mut self, left: Typed, right: Typed) -> Result<(Typed, Typed)> {
        let fits = |a: Type, b: Type| {
            a == b || (a.is_number() && b.is_number()) || a == Type::Null || b == Type::Null
        };
        if fits(left.kind, right.kind) && left.kind != Type::Opaque {
            return Ok((left, right));
        }
        if left.kind == Type::Opaque && right.kind == Type::Null {
            return Ok((left, right));
        }
        let as_time = |side: &Typed| match &side.constant {
            Some(Literal::Text(text)) => parse_time(text),
            Some(Literal::Integer(time)) => Some(*time),
            _ => None,
        };
        let timed = |time: i64| Typed::new(Expr::val(time), Type::Time, false);
        if left.kind == Type::Time
            && let Some(time) = as_time(&right)
        {
            return Ok((left, timed(time)));
        }
        if right.kind == Type::Time
            && let Some(time) = as_time(&left)
        {
            return Ok((timed(time), right));
        }
        let (left, right) = (left.kind.name(), right.kind.name());
        Err(Error::invalid(format!("{left} cannot be compared with {right}")))
    }

    /// `left op right`, where `op` is one of the six comparisons. The result may be null only where
    /// an order is asked of a null.
    pub(super) fn compare(&mut self, op: Binary, left: Typed, right: Typed) -> Result<Expr> {
        let (left, right) = self.unify(left, right)?;
        match (left.kind == Type::Null, right.kind == Type::Null, op) {
            (true, true, Binary::Eq | Binary::Ge | Binary::Le) => return Ok(Expr::cust("TRUE")),
            (true, true, _) => return Ok(Expr::cust("FALSE")),
            (false, true, Binary::Eq) => return Ok(left.sql.is_null()),
            (true, false, Binary::Eq) => return Ok(right.sql.is_null()),
            (false, true, Binary::Ne) => return Ok(left.sql.is_not_null()),
            (true, false, Binary::Ne) => return Ok(right.sql.is_not_null()),
            (true, false, _) | (false, true, _) => return Ok(Expr::cust("FALSE")),
            (false, false, _) => {}
        }
        let both = left.nullable && right.nullable;
        let either = left.nullable || right.nullable;
        let ordered = |engine, side: Typed| match engine {
            Engine::Postgres if side.kind == Type::Text => bytewise(side.sql),
            _ => side.sql,
        };
        Ok(match op {
            Binary::Eq if both => left.sql.binary(same(), right.sql),
            Binary::Eq => left.sql.eq(right.sql),
            Binary::Ne if either => left.sql.binary(distinct(), right.sql),
            Binary::Ne => left.sql.ne(right.sql),
            Binary::Gt => ordered(self.engine, left).gt(right.sql),
            Binary::Ge => ordered(self.engine, left).gte(right.sql),
            Binary::Lt => ordered(self.engine, left).lt(right.sql),
            Binary::Le => ordered(self.engine, left).lte(right.sql),
            _ => return Err(Error::invalid(format!("{} is not a comparison", op.name()))),
        })
    }
}

/// PostgreSQL compares text by the database's language unless told; SQLite always by bytes.
pub(super) fn bytewise(sql: Expr) -> Expr {
    Expr::cust_with_exprs("($1) COLLATE \"C\"", [sql])
}

fn same() -> BinOper {
    BinOper::Custom("IS NOT DISTINCT FROM")
}

fn distinct() -> BinOper {
    BinOper::Custom("IS DISTINCT FROM")
}

/// The refusal of a name that a resource does not have, or not for this caller.
pub(super) fn unknown(resource: &Resource, name: &str) -> Error {
    Error::invalid(format!("{} has no field or navigation {name:?}", resource.name))
}
