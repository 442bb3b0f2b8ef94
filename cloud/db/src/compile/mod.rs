//! One OData request → one SQL statement, with the caller's permissions as predicates.
//!
//! Rows come back as JSON arrays (not objects: PostgreSQL builds objects of at most 50 pairs, SQLite
//! of 63), nested for expands, and a [`shape::Shape`] says what stands where. Values in them are raw column
//! values, so both engines give the same text and one decoder makes the answer.
//!
//! Invariants:
//! * whatever a statement reads of a resource passes the caller's `Read` filters: base rows, expands,
//!   lambdas, counts and paths in filters and orders alike;
//! * inside a permission filter no permission applies (it is the server's own question);
//! * types are checked here, for SQLite would not and PostgreSQL would say it otherwise;
//! * no value of a request is ever part of the text of a statement.

mod filter;
mod function;
mod path;
mod rows;
mod shape;
mod value;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use minke_cloud_fleet::Verb;
use minke_common_odata as odata;
use minke_common_odata::{Key, KeyValue, Literal, Request};
use sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement};

pub(crate) use rows::Read;

use crate::caller::Caller;
use crate::error::{Error, Result};
use crate::model::{Model, Resource};
use crate::store::Engine;

/// Permission texts that were read before.
#[derive(Debug, Default)]
pub(crate) struct Rules(Mutex<HashMap<String, Arc<odata::Expr>>>);

/// Most texts kept; they come from this program's own tables, so this is never reached in earnest.
const MAX_RULES: usize = 10_000;

impl Rules {
    fn read(&self, text: &str) -> Result<Arc<odata::Expr>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rule) = known.get(text) {
            return Ok(Arc::clone(rule));
        }
        let rule = odata::parse_filter(text)
            .map_err(|fault| Error::Corrupt(format!("the permission {text:?}: {fault}")))?;
        if known.len() >= MAX_RULES {
            known.clear();
        }
        let rule = Arc::new(rule);
        known.insert(text.to_owned(), Arc::clone(&rule));
        Ok(rule)
    }
}

/// Most bound values in one statement; SQLite takes 32,766.
const MAX_VALUES: usize = 30_000;
/// Most expands inside one another.
const MAX_EXPAND_DEPTH: usize = 12;
/// How often one resource may stand on the way from the base rows to an expand.
const MAX_VISITS: usize = 2;

/// Makes statements for one request of one caller.
pub(crate) struct Compiler<'a> {
    model: &'static Model,
    engine: Engine,
    caller: &'a Caller,
    rules: &'a Rules,
    now: i64,
    aliases: &'a [(String, Literal)],
    next_alias: usize,
    values: usize,
    /// Above zero inside permission filters.
    trusted: usize,
    /// The resources on the way from the base rows to the expand that is compiled.
    way: Vec<&'static str>,
}

/// The rows that names in an expression can mean.
struct Scope<'s> {
    resource: &'static Resource,
    alias: String,
    variable: Option<&'s str>,
    outer: Option<&'s Scope<'s>>,
}

impl<'s> Scope<'s> {
    fn root(resource: &'static Resource, alias: &str) -> Self {
        Self { resource, alias: alias.to_owned(), variable: None, outer: None }
    }

    /// The row that the request itself is about.
    fn base(&self) -> &Self {
        self.outer.map_or(self, Scope::base)
    }

    fn variable(&self, name: &str) -> Option<&Self> {
        match self.variable {
            Some(own) if own == name => Some(self),
            _ => self.outer.and_then(|outer| outer.variable(name)),
        }
    }
}

impl<'a> Compiler<'a> {
    pub fn new(
        engine: Engine,
        caller: &'a Caller,
        rules: &'a Rules,
        now: i64,
        aliases: &'a [(String, Literal)],
    ) -> Self {
        Self {
            model: Model::get(),
            engine,
            caller,
            rules,
            now,
            aliases,
            next_alias: 0,
            values: 0,
            trusted: 0,
            way: Vec::new(),
        }
    }

    fn fresh(&mut self) -> String {
        self.next_alias += 1;
        format!("t{}", self.next_alias)
    }

    /// `SELECT … FROM resource AS alias`, with the volatile part beside it.
    fn source(&self, resource: &Resource, alias: &str) -> SelectStatement {
        let mut select = Query::select();
        select.from_as(Alias::new(&resource.name), Alias::new(alias));
        if resource.has_status() {
            // A left join that nothing uses costs nothing on either engine.
            let status = format!("{alias}s");
            let same = column(&status, "id").eq(column(alias, "id"));
            let join = sea_query::JoinType::LeftJoin;
            select.join_as(join, Alias::new(resource.status_table()), Alias::new(status), same);
        }
        select
    }

    /// What a row must pass for the caller to do `verb`; `None`: every row passes.
    fn permit(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        verb: Verb,
    ) -> Result<Option<Expr>> {
        if self.trusted > 0 || self.caller.is_root() {
            return Ok(None);
        }
        let caller = self.caller;
        let texts = caller.permissions.filters(&resource.name, verb);
        if texts.iter().any(|text| text == "true") {
            return Ok(None);
        }
        let mut any: Option<Expr> = None;
        for text in texts {
            let rule = self.rules.read(text)?;
            self.trusted += 1;
            let passes = self.predicate(&Scope::root(resource, alias), &rule);
            self.trusted -= 1;
            let passes = passes?;
            any = Some(match any {
                Some(others) => others.or(passes),
                None => passes,
            });
        }
        Ok(Some(any.unwrap_or_else(never)))
    }

    /// The rows that a request addresses and the caller may do `verb` with: ids, in order.
    pub fn addressed(&mut self, request: &Request, verb: Verb) -> Result<SelectStatement> {
        let resource = self.resource(&request.resource)?;
        let alias = self.fresh();
        let mut select = self.source(resource, &alias);
        select.expr(column(&alias, "id"));
        for condition in self.conditions(resource, &alias, request, verb)? {
            select.and_where(condition);
        }
        select.order_by_expr(column(&alias, "id"), sea_query::Order::Asc);
        Ok(select)
    }

    /// How many of the rows with these ids the caller may do `verb` with.
    pub fn permitted(
        &mut self,
        resource: &'static Resource,
        ids: &[i64],
        verb: Verb,
    ) -> Result<SelectStatement> {
        let alias = self.fresh();
        let mut select = self.source(resource, &alias);
        select.expr(sea_query::Func::count(column(&alias, "id")));
        select.and_where(column(&alias, "id").is_in(ids.iter().copied()));
        if let Some(passes) = self.permit(resource, &alias, verb)? {
            select.and_where(passes);
        }
        Ok(select)
    }

    pub fn resource(&self, name: &str) -> Result<&'static Resource> {
        self.model
            .resource(name)
            .ok_or_else(|| Error::invalid(format!("there is no resource {name:?}")))
    }

    /// Key, filter and permission of a request's base rows.
    fn conditions(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        request: &Request,
        verb: Verb,
    ) -> Result<Vec<Expr>> {
        if request.links.is_some() || request.property.is_some() {
            return Err(Error::invalid("paths beyond a resource and its key are not supported"));
        }
        let scope = Scope::root(resource, alias);
        let mut all = Vec::new();
        for (name, value) in key_parts(request) {
            let value = match value {
                KeyValue::Literal(literal) => literal.clone(),
                KeyValue::Alias(alias) => self.alias(alias)?.clone(),
            };
            let field = odata::Expr::Path(odata::Path(vec![name.to_owned()]));
            let field = self.value(&scope, &field)?;
            let value = self.literal(&value)?;
            all.push(self.compare(odata::Binary::Eq, field, value)?);
        }
        if let Some(filter) = &request.options.filter {
            all.push(self.predicate(&scope, filter)?);
        }
        all.extend(self.permit(resource, alias, verb)?);
        if self.values > MAX_VALUES {
            return Err(Error::invalid(format!("at most {MAX_VALUES} values are allowed")));
        }
        Ok(all)
    }

    fn alias(&self, name: &str) -> Result<&'a Literal> {
        let found = self.aliases.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| Error::invalid(format!("the parameter @{name} has no value")))
    }
}

fn key_parts(request: &Request) -> Vec<(&str, &KeyValue)> {
    match &request.key {
        None => Vec::new(),
        Some(Key::Id(value)) => vec![("id", value)],
        Some(Key::Named(parts)) => {
            parts.iter().map(|(name, value)| (name.as_str(), value)).collect()
        }
    }
}

/// `"alias"."name"`.
fn column(alias: &str, name: &str) -> Expr {
    Expr::col((Alias::new(alias), Alias::new(name)))
}

/// A condition that no row meets.
fn never() -> Expr {
    Expr::cust("FALSE")
}
