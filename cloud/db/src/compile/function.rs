//! The functions of the dialect, with the same answers on both engines.

use minke_common_odata::{Expr as Tree, Function, Literal};
use sea_query::{Alias, Expr, ExprTrait, Func};

use super::filter::shorten;
use super::value::{Type, Typed, bytewise};
use super::{Compiler, Scope};
use crate::error::{Error, Result};
use crate::store::Engine;

const DAY: i64 = 86_400_000;

impl Compiler<'_> {
    pub(super) fn call(
        &mut self,
        scope: &Scope<'_>,
        function: Function,
        arguments: &[Tree],
    ) -> Result<Typed> {
        use Function as F;
        match function {
            F::StartsWith | F::EndsWith | F::Contains | F::SubstringOf | F::IndexOf => {
                self.search(scope, function, arguments)
            }
            F::ToLower
            | F::ToUpper
            | F::Length
            | F::Trim
            | F::Concat
            | F::Replace
            | F::Substring => self.text_function(scope, function, arguments),
            F::Round | F::Floor | F::Ceiling => self.rounded(scope, function, arguments),
            F::Now => Ok(constant_time(self.now)),
            F::MaxDateTime => Ok(constant_time(253_402_207_200_999)),
            F::MinDateTime => Ok(constant_time(-62_135_596_800_000)),
            F::TotalSeconds => {
                let value = self.argument(scope, arguments, 0)?;
                let value = self.require(value, Type::Real, arguments)?;
                let seconds = value.sql.cast_as("DOUBLE PRECISION").div(1000.0);
                Ok(Typed::new(seconds, Type::Real, value.nullable))
            }
            _ => self.date_part(scope, function, arguments),
        }
    }

    fn argument(&mut self, scope: &Scope<'_>, arguments: &[Tree], at: usize) -> Result<Typed> {
        match arguments.get(at) {
            Some(tree) => self.value(scope, tree),
            None => Err(Error::invalid("too few arguments")),
        }
    }

    fn require(&self, value: Typed, kind: Type, arguments: &[Tree]) -> Result<Typed> {
        let fits = value.kind == kind || (kind == Type::Real && value.kind == Type::Integer);
        if fits {
            return Ok(value);
        }
        let text = arguments.first().map(shorten).unwrap_or_default();
        Err(Error::invalid(format!("the function of `{text}` takes other types of arguments")))
    }

    fn text(&mut self, scope: &Scope<'_>, arguments: &[Tree], at: usize) -> Result<Typed> {
        let value = self.argument(scope, arguments, at)?;
        self.require(value, Type::Text, arguments.get(at..).unwrap_or_default())
    }

    fn search(
        &mut self,
        scope: &Scope<'_>,
        function: Function,
        arguments: &[Tree],
    ) -> Result<Typed> {
        let first = self.text(scope, arguments, 0)?;
        let second = self.text(scope, arguments, 1)?;
        let nullable = first.nullable || second.nullable;
        // `substringof(needle, text)` has its arguments the other way round.
        let (text, part) = match function {
            Function::SubstringOf => (second, first),
            _ => (first, second),
        };
        let found = |engine, text: Expr, part: Expr| {
            call(if engine == Engine::Sqlite { "instr" } else { "strpos" }, [text, part])
        };
        let sql = match function {
            Function::StartsWith => self.starts_with(text, part),
            Function::EndsWith => {
                let start = length(text.sql.clone()).sub(length(part.sql.clone())).add(1);
                let long = length(text.sql.clone()).gte(length(part.sql.clone()));
                long.and(call("substr", [text.sql, start]).eq(part.sql))
            }
            Function::IndexOf => {
                let at = found(self.engine, text.sql, part.sql).cast_as("BIGINT").sub(1);
                return Ok(Typed::new(at, Type::Integer, nullable));
            }
            _ => found(self.engine, text.sql, part.sql).gt(0),
        };
        Ok(Typed::new(sql, Type::Boolean, nullable))
    }

    /// A constant beginning becomes a range, which an index answers; `LIKE` would fold case on one
    /// engine only.
    fn starts_with(&self, text: Typed, part: Typed) -> Expr {
        if let Some(Literal::Text(prefix)) = &part.constant
            && let Some(end) = successor(prefix)
            && (text.is_column || self.engine == Engine::Sqlite)
        {
            return text.sql.clone().gte(prefix.clone()).and(text.sql.lt(end));
        }
        call("substr", [text.sql, Expr::val(1), length(part.sql.clone())]).eq(part.sql)
    }

    fn text_function(
        &mut self,
        scope: &Scope<'_>,
        function: Function,
        arguments: &[Tree],
    ) -> Result<Typed> {
        let first = self.text(scope, arguments, 0)?;
        let mut nullable = first.nullable;
        let sql = match function {
            // Both fold ASCII letters only.
            Function::ToLower => call("lower", [self.ascii(first.sql)]),
            Function::ToUpper => call("upper", [self.ascii(first.sql)]),
            Function::Trim => call("trim", [first.sql]),
            Function::Length => {
                let count = length(first.sql).cast_as("BIGINT");
                return Ok(Typed::new(count, Type::Integer, nullable));
            }
            Function::Concat => {
                let second = self.text(scope, arguments, 1)?;
                nullable |= second.nullable;
                first.sql.binary(sea_query::BinOper::Custom("||"), second.sql)
            }
            Function::Replace => {
                let from = self.text(scope, arguments, 1)?;
                let to = self.text(scope, arguments, 2)?;
                nullable |= from.nullable || to.nullable;
                call("replace", [first.sql, from.sql, to.sql])
            }
            _ => {
                let mut parts = vec![first.sql];
                for at in 1..arguments.len() {
                    parts.push(self.position(scope, arguments, at)?);
                }
                call("substr", parts)
            }
        };
        Ok(Typed::new(sql, Type::Text, nullable))
    }

    /// PostgreSQL folds by the collation of its argument.
    fn ascii(&self, sql: Expr) -> Expr {
        match self.engine {
            Engine::Sqlite => sql,
            Engine::Postgres => bytewise(sql),
        }
    }

    /// Start or length of a substring: a constant, since the engines differ on odd ones.
    fn position(&mut self, scope: &Scope<'_>, arguments: &[Tree], at: usize) -> Result<Expr> {
        let value = self.argument(scope, arguments, at)?;
        match value.constant {
            Some(Literal::Integer(number)) if (0..=1_000_000_000).contains(&number) => {
                let number = i32::try_from(number + i64::from(at == 1)).unwrap_or(i32::MAX);
                Ok(Expr::val(number))
            }
            _ => Err(Error::invalid("substring takes constant positions from 0")),
        }
    }

    fn rounded(
        &mut self,
        scope: &Scope<'_>,
        function: Function,
        arguments: &[Tree],
    ) -> Result<Typed> {
        let value = self.argument(scope, arguments, 0)?;
        let value = self.require(value, Type::Real, arguments)?;
        if value.kind == Type::Integer {
            return Ok(value);
        }
        let shifted = match function {
            Function::Round => value.sql.add(0.5),
            _ => value.sql,
        };
        let up = function == Function::Ceiling;
        // SQLite is built without its mathematical functions; a cast cuts towards zero there.
        let sql = match (self.engine, up) {
            (Engine::Postgres, false) => call("floor", [shifted]),
            (Engine::Postgres, true) => call("ceil", [shifted]),
            (Engine::Sqlite, false) => {
                let cut = shifted.clone().cast_as("BIGINT");
                cut.clone().sub(shifted.lt(cut))
            }
            (Engine::Sqlite, true) => {
                let cut = shifted.clone().cast_as("BIGINT");
                cut.clone().add(shifted.gt(cut))
            }
        };
        Ok(Typed::new(sql.cast_as("DOUBLE PRECISION"), Type::Real, value.nullable))
    }

    fn date_part(
        &mut self,
        scope: &Scope<'_>,
        function: Function,
        arguments: &[Tree],
    ) -> Result<Typed> {
        let value = self.argument(scope, arguments, 0)?;
        let value = match (&value.constant, value.kind) {
            (Some(Literal::Text(text)), _) => match crate::cell::parse_time(text) {
                Some(time) => constant_time(time),
                None => return Err(Error::invalid(format!("{text:?} is not an ISO date"))),
            },
            _ => self.require(value, Type::Time, arguments)?,
        };
        let nullable = value.nullable;
        let time = value.sql;
        // The remainder of a time before 1970 is negative; days and seconds begin below it.
        let within = |time: Expr, unit: i64| time.modulo(unit).add(unit).modulo(unit);
        let sql = match function {
            Function::Date => {
                let start = time.clone().sub(within(time, DAY));
                return Ok(Typed::new(start, Type::Time, nullable));
            }
            Function::Time => within(time, DAY),
            Function::FractionalSeconds => {
                let part = within(time, 1000).cast_as("DOUBLE PRECISION").div(1000.0);
                return Ok(Typed::new(part, Type::Real, nullable));
            }
            Function::Hour => within(time, DAY).div(3_600_000_i64),
            Function::Minute => within(time, 3_600_000).div(60_000_i64),
            Function::Second => within(time, 60_000).div(1000_i64),
            _ => self.calendar(function, time, within)?,
        };
        Ok(Typed::new(sql, Type::Integer, nullable))
    }

    fn calendar(
        &self,
        function: Function,
        time: Expr,
        within: impl Fn(Expr, i64) -> Expr,
    ) -> Result<Expr> {
        let (letter, name) = match function {
            Function::Year => ("%Y", "year"),
            Function::Month => ("%m", "month"),
            Function::Day => ("%d", "day"),
            other => return Err(Error::invalid(format!("{} is not supported", other.name()))),
        };
        let seconds = time.clone().sub(within(time, 1000)).div(1000_i64);
        Ok(match self.engine {
            Engine::Sqlite => {
                call("strftime", [Expr::val(letter), seconds, Expr::val("unixepoch")])
                    .cast_as("BIGINT")
            }
            Engine::Postgres => {
                let moment = call("to_timestamp", [seconds.cast_as("DOUBLE PRECISION")]);
                let moment = Expr::cust_with_exprs("($1 AT TIME ZONE 'UTC')", [moment]);
                call("date_part", [Expr::val(name), moment]).cast_as("BIGINT")
            }
        })
    }
}

fn constant_time(time: i64) -> Typed {
    Typed::new(Expr::val(time), Type::Time, false)
}

pub(super) fn call(name: &'static str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    Func::cust(Alias::new(name)).args(arguments).into()
}

fn length(sql: Expr) -> Expr {
    call("length", [sql])
}

/// The least text, by bytes, that is greater than every text with this beginning.
fn successor(prefix: &str) -> Option<String> {
    let mut text: Vec<char> = prefix.chars().collect();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn a_successor_bounds_every_text_with_the_beginning() {
        assert_eq!(successor("ab").as_deref(), Some("ac"));
        assert_eq!(successor("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(successor("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(successor(""), None);
        assert!("ab\u{10FFFF}z" < "ac");
    }
}
