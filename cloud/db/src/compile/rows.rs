//! The rows of an answer: columns, expands, order, limits.

use minke_cloud_fleet::Verb;
use minke_common_odata::{Expand, Expr as Tree, Options, OrderBy, Request};
use sea_query::{
    Alias, Expr, ExprTrait, Func, NullOrdering, Order, Query, SelectStatement, WindowStatement,
};

use super::function::call;
use super::path::scalar;
use super::shape::{Cell, Shape};
use super::value::{Type, Typed, bytewise, unknown};
use super::{Compiler, MAX_EXPAND_DEPTH, MAX_VISITS, Scope, column};
use crate::error::{Error, Result};
use crate::model::{Access, Kind, Member, Resource};
use crate::store::Engine;

/// Most arguments of one JSON array; PostgreSQL takes 100.
const MAX_ARGUMENTS: usize = 90;
/// Most bytes of an array in which the same rows may stand over and over.
pub(super) const MAX_REPEATED: usize = 16 * 1024 * 1024;

/// A read ready to be sent.
pub(crate) enum Read {
    /// One text a row; the shape says what is in it.
    Rows(SelectStatement, Shape),
    /// One number.
    Count(SelectStatement),
}

type Ordering = Vec<(Expr, Order, NullOrdering)>;

impl Compiler<'_> {
    /// A whole GET request.
    pub fn read(&mut self, request: &Request) -> Result<Read> {
        let resource = self.resource(&request.resource)?;
        let alias = self.fresh();
        let conditions = self.conditions(resource, &alias, request, Verb::Read)?;
        let mut select = self.source(resource, &alias);
        for condition in conditions {
            select.and_where(condition);
        }
        if request.count {
            select.expr(Func::count(column(&alias, "id")));
            return Ok(Read::Count(select));
        }
        self.way = vec![&resource.name];
        let (row, shape) = self.row(resource, &alias, &request.options)?;
        select.expr(match self.engine {
            Engine::Sqlite => row,
            Engine::Postgres => row.cast_as("TEXT"),
        });
        for (by, order, nulls) in self.order(resource, &alias, &request.options.orderby)? {
            select.order_by_expr_with_nulls(by, order, nulls);
        }
        limit(&mut select, &request.options);
        Ok(Read::Rows(select, shape))
    }

    /// One row by its id, whoever may see it.
    pub fn row_by_id(&mut self, resource: &'static Resource, id: i64) -> Result<Read> {
        let alias = self.fresh();
        let mut select = self.source(resource, &alias);
        let (row, shape) = self.row(resource, &alias, &Options::default())?;
        select.expr(match self.engine {
            Engine::Sqlite => row,
            Engine::Postgres => row.cast_as("TEXT"),
        });
        select.and_where(column(&alias, "id").eq(id));
        Ok(Read::Rows(select, shape))
    }

    /// A row as a JSON array, and what stands in it.
    fn row(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        options: &Options,
    ) -> Result<(Expr, Shape)> {
        let mut columns: Vec<(String, Expr, Cell)> = Vec::new();
        for name in self.selected(resource, options)? {
            let known = columns.iter().any(|(other, ..)| *other == name);
            let expanded = options.expand.iter().any(|e| e.navigation == name);
            if known || expanded {
                continue;
            }
            let (sql, cell) = self.selected_column(resource, alias, &name)?;
            columns.push((name, sql, cell));
        }
        for expand in &options.expand {
            if columns.iter().any(|(other, ..)| *other == expand.navigation) {
                let message = format!("{} is expanded twice", expand.navigation);
                return Err(Error::invalid(message));
            }
            let (sql, cell) = self.expand(resource, alias, expand)?;
            columns.push((expand.navigation.clone(), sql, cell));
        }
        let mut shape = Vec::with_capacity(columns.len());
        let mut values = Vec::with_capacity(columns.len());
        for (name, sql, cell) in columns {
            values.push(sql);
            shape.push((name, cell));
        }
        Ok((self.array(values), Shape::new(shape, MAX_ARGUMENTS)))
    }

    fn array(&self, values: Vec<Expr>) -> Expr {
        let function = match self.engine {
            Engine::Sqlite => "json_array",
            Engine::Postgres => "json_build_array",
        };
        if values.len() <= MAX_ARGUMENTS {
            return call(function, values);
        }
        let mut values = values.into_iter().peekable();
        let mut chunks = Vec::new();
        while values.peek().is_some() {
            chunks.push(call(function, values.by_ref().take(MAX_ARGUMENTS).collect::<Vec<_>>()));
        }
        call(function, chunks)
    }

    /// Names of the columns asked for; all that the caller may name when none is.
    fn selected(&self, resource: &Resource, options: &Options) -> Result<Vec<String>> {
        let all = options.select.is_empty() || options.select.iter().any(|name| name == "*");
        if !all {
            return Ok(options.select.clone());
        }
        let root = self.trusted > 0 || self.caller.is_root();
        let fields = resource.fields.iter().filter(|field| match field.access {
            Access::Normal => true,
            Access::Root => root,
            Access::Secret => false,
        });
        let links = resource.links.iter().map(|link| link.name.clone());
        // A link that is expanded under another of its names is not shown twice.
        let expanded = |link: &String| {
            let index = resource.member(link);
            options.expand.iter().any(|e| resource.member(&e.navigation) == index)
        };
        Ok(fields.map(|f| f.name.clone()).chain(links.filter(|l| !expanded(l))).collect())
    }

    fn selected_column(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        name: &str,
    ) -> Result<(Expr, Cell)> {
        match resource.member(name) {
            Some(Member::Field(at)) => {
                let field = &resource.fields[at];
                let sql = self.field(resource, alias, field)?.sql;
                let sql = match (field.kind, self.engine) {
                    // As text: one engine would print fewer digits than the other.
                    (Kind::Real, Engine::Postgres) => sql.cast_as("TEXT"),
                    (Kind::Real, Engine::Sqlite) => {
                        let digits = call("printf", [Expr::val("%!.17g"), sql.clone()]);
                        Expr::case(sql.is_not_null(), digits).into()
                    }
                    _ => sql,
                };
                Ok((sql, Cell::Field(field.kind)))
            }
            Some(Member::Link(at)) => Ok((self.link(alias, &resource.links[at]).sql, Cell::Link)),
            Some(Member::Reverse(_)) => {
                let message = format!("{}.{name} can be expanded but not selected", resource.name);
                Err(Error::invalid(message))
            }
            None => Err(unknown(resource, name)),
        }
    }

    fn expand(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        expand: &Expand,
    ) -> Result<(Expr, Cell)> {
        if self.way.len() > MAX_EXPAND_DEPTH {
            let message =
                format!("at most {MAX_EXPAND_DEPTH} expands inside one another are allowed");
            return Err(Error::invalid(message));
        }
        if expand.count {
            let filter = expand.options.filter.as_ref();
            let select = self.counted(resource, alias, &expand.navigation, filter)?;
            return Ok((scalar(select), Cell::Count));
        }
        let (select, shape) = self.expanded_rows(resource, alias, expand)?;
        let sql = scalar(select);
        let sql = match self.engine {
            Engine::Sqlite => call("json", [sql]),
            Engine::Postgres => sql,
        };
        Ok((sql, Cell::Rows(shape)))
    }

    /// All rows at the other end of a navigation as one JSON array of rows.
    fn expanded_rows(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        expand: &Expand,
    ) -> Result<(SelectStatement, Shape)> {
        let next = self.fresh();
        let options = &expand.options;
        let (target, joined) = self.navigate(resource, alias, &expand.navigation, &next)?;
        self.enter(target)?;
        let (row, shape) = self.row(target, &next, options)?;
        self.way.pop();
        let mut rows = self.source(target, &next);
        rows.expr_as(row, Alias::new("r")).and_where(joined);
        if let Some(filter) = &options.filter {
            rows.and_where(self.predicate(&Scope::root(target, &next), filter)?);
        }
        if let Some(passes) = self.permit(target, &next, Verb::Read)? {
            rows.and_where(passes);
        }
        let mut window = WindowStatement::new();
        for (by, order, nulls) in self.order(target, &next, &options.orderby)? {
            window.order_by_expr_with_nulls(by, order, nulls);
        }
        rows.expr_window_as(call("row_number", []), window, Alias::new("n"));
        if options.top.is_some() || options.skip.is_some() {
            rows.order_by(Alias::new("n"), Order::Asc);
            limit(&mut rows, options);
        }
        let is_many = matches!(resource.member(&expand.navigation), Some(Member::Reverse(_)));
        let all = match is_many && self.repeats(target, options, false) {
            true => self.gathered_within_limit(rows),
            false => self.gathered(rows),
        };
        Ok((all, shape))
    }

    /// Goes one step further from the base rows. Going to and fro between two resources multiplies
    /// their rows with every turn.
    fn enter(&mut self, target: &'static Resource) -> Result<()> {
        let name = target.name.as_str();
        if self.way.iter().filter(|visited| **visited == name).count() >= MAX_VISITS {
            let message = format!(
                "{name} is expanded inside itself: at most {MAX_VISITS} of one resource are allowed on one way"
            );
            return Err(Error::invalid(message));
        }
        self.way.push(name);
        Ok(())
    }

    /// Whether expands lead to one row and from there to many: then each of the rows that they begin at
    /// may bring the same many.
    fn repeats(&self, resource: &Resource, options: &Options, is_after_one: bool) -> bool {
        options.expand.iter().filter(|expand| !expand.count).any(|expand| {
            match resource.member(&expand.navigation) {
                Some(Member::Link(at)) => {
                    let target = self.model.at(resource.links[at].to);
                    self.repeats(target, &expand.options, true)
                }
                Some(Member::Reverse(at)) => {
                    let target = self.model.at(resource.reverse[at].from);
                    is_after_one || self.repeats(target, &expand.options, false)
                }
                _ => false,
            }
        })
    }

    /// The rows `r`, in the order of `n`, as one array.
    fn gathered(&self, rows: SelectStatement) -> SelectStatement {
        let together = match self.engine {
            Engine::Sqlite => "json_group_array(json(x.\"r\") ORDER BY x.\"n\")",
            Engine::Postgres => "COALESCE(json_agg(x.\"r\" ORDER BY x.\"n\"), '[]'::json)",
        };
        let mut all = Query::select();
        all.expr(Expr::cust(together)).from_subquery(rows, Alias::new("x"));
        all
    }

    /// As [`Self::gathered`]; null, and never built, where the array would be too large.
    fn gathered_within_limit(&self, rows: SelectStatement) -> SelectStatement {
        let length = match self.engine {
            Engine::Sqlite => "LENGTH(x.\"r\")",
            Engine::Postgres => "OCTET_LENGTH(CAST(x.\"r\" AS TEXT))",
        };
        let columns =
            format!("x.\"r\", x.\"n\", SUM({length}) OVER (ORDER BY x.\"n\") AS \"size\"");
        let mut measured = Query::select();
        measured.expr(Expr::cust(columns)).from_subquery(rows, Alias::new("x"));
        let few = format!("FILTER (WHERE y.\"size\" <= {MAX_REPEATED})");
        let together = match self.engine {
            Engine::Sqlite => format!("json_group_array(json(y.\"r\") ORDER BY y.\"n\") {few}"),
            Engine::Postgres => {
                format!("COALESCE(json_agg(y.\"r\" ORDER BY y.\"n\") {few}, '[]'::json)")
            }
        };
        let together =
            format!("CASE WHEN MAX(y.\"size\") > {MAX_REPEATED} THEN NULL ELSE {together} END");
        let mut all = Query::select();
        all.expr(Expr::cust(together)).from_subquery(measured, Alias::new("y"));
        all
    }

    /// The order of rows; the id decides where nothing else does. Nulls count as least.
    fn order(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        orderby: &[OrderBy],
    ) -> Result<Ordering> {
        let scope = Scope::root(resource, alias);
        let mut ordering = Vec::new();
        for key in orderby {
            let value = match &key.by {
                Tree::Path(path) => self.sort_path(&scope, &path.0)?,
                other => self.value(&scope, other)?,
            };
            let (order, nulls) = match key.descending {
                true => (Order::Desc, NullOrdering::Last),
                false => (Order::Asc, NullOrdering::First),
            };
            ordering.push((self.sortable(value)?, order, nulls));
        }
        ordering.push((column(alias, "id"), Order::Asc, NullOrdering::First));
        Ok(ordering)
    }

    fn sortable(&self, value: Typed) -> Result<Expr> {
        match (value.kind, self.engine) {
            (Type::Opaque | Type::Null, _) => Err(Error::invalid("documents have no order")),
            (Type::Text, Engine::Postgres) if !value.is_column => Ok(bytewise(value.sql)),
            _ => Ok(value.sql),
        }
    }
}

fn limit(select: &mut SelectStatement, options: &Options) {
    // SQLite takes an offset only after a limit.
    if let Some(top) = options.top {
        select.limit(top);
    } else if options.skip.is_some() {
        select.limit(i64::MAX.unsigned_abs());
    }
    if let Some(skip) = options.skip {
        select.offset(skip);
    }
}
