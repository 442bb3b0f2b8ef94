//! A statement ready to be sent, whichever way it was made.

use sea_query::{
    DeleteStatement, InsertStatement, PostgresQueryBuilder, QueryBuilder, SelectStatement,
    SqliteQueryBuilder, UpdateStatement, Value, Values,
};
use sea_query_sqlx::SqlxValues;

use super::Engine;
use crate::cell::Cell;

/// Something to send.
#[derive(Debug)]
pub(crate) enum Statement {
    Select(Box<SelectStatement>),
    Insert(Box<InsertStatement>),
    Update(Box<UpdateStatement>),
    Delete(Box<DeleteStatement>),
    /// Text that both engines read, with parameters `$1`, `$2`, …
    Raw(String, Vec<Value>),
}

impl Statement {
    /// SQL text that both engines read. Parameters stand as `$1`, `$2`, … and are never null.
    pub fn raw(sql: impl Into<String>, values: impl IntoIterator<Item = Cell>) -> Self {
        let bound = values.into_iter().map(|cell| match cell {
            Cell::Integer(value) => Value::BigInt(Some(value)),
            Cell::Real(value) => Value::Double(Some(value)),
            Cell::Boolean(value) => Value::Bool(Some(value)),
            Cell::Text(value) => Value::String(Some(value)),
            Cell::Null => Value::BigInt(None),
        });
        Self::Raw(sql.into(), bound.collect())
    }

    pub(super) fn build(self, engine: Engine) -> (String, SqlxValues) {
        let (sql, values) = match engine {
            Engine::Sqlite => self.render(SqliteQueryBuilder),
            Engine::Postgres => self.render(PostgresQueryBuilder),
        };
        (sql, SqlxValues(values))
    }

    fn render(self, builder: impl QueryBuilder) -> (String, Values) {
        match self {
            Self::Select(statement) => statement.build(builder),
            Self::Insert(statement) => statement.build(builder),
            Self::Update(statement) => statement.build(builder),
            Self::Delete(statement) => statement.build(builder),
            Self::Raw(sql, values) => (sql, Values(values)),
        }
    }
}

impl From<SelectStatement> for Statement {
    fn from(statement: SelectStatement) -> Self {
        Self::Select(Box::new(statement))
    }
}

impl From<InsertStatement> for Statement {
    fn from(statement: InsertStatement) -> Self {
        Self::Insert(Box::new(statement))
    }
}

impl From<UpdateStatement> for Statement {
    fn from(statement: UpdateStatement) -> Self {
        Self::Update(Box::new(statement))
    }
}

impl From<DeleteStatement> for Statement {
    fn from(statement: DeleteStatement) -> Self {
        Self::Delete(Box::new(statement))
    }
}
