//! Paths over navigations: values, existence and counts of related rows.

use minke_cloud_fleet::Verb;
use minke_common_odata::Expr as Tree;
use sea_query::{Expr, ExprTrait, Func, Order, SelectStatement, SubQueryStatement};

use super::filter::known;
use super::value::{Type, Typed, unknown};
use super::{Compiler, Scope, column};
use crate::error::{Error, Result};
use crate::model::{Member, Resource};

/// What stands at the end of a path of navigations.
enum Tail<'t> {
    Member(&'t str),
    Count { navigation: &'t str, filter: Option<&'t Tree> },
}

/// Makes the condition on the last row of a chain of navigations.
type Leaf<'l, 'a> =
    &'l mut dyn FnMut(&mut Compiler<'a>, &'static Resource, &str) -> Result<Option<Expr>>;

pub(super) fn scalar(select: SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(SubQueryStatement::SelectStatement(select)))
}

impl<'a> Compiler<'a> {
    /// The row at which a path begins, and the rest of the path.
    fn start<'s, 'n>(
        scope: &'s Scope<'s>,
        names: &'n [String],
    ) -> Result<(&'s Scope<'s>, &'n [String])> {
        let Some((first, rest)) = names.split_first() else {
            return Err(Error::invalid("an empty path"));
        };
        match scope.variable(first) {
            None => Ok((scope.base(), names)),
            Some(_) if rest.is_empty() => {
                Err(Error::invalid(format!("the variable {first:?} stands for a row, not a value")))
            }
            Some(row) => Ok((row, rest)),
        }
    }

    /// The value at the end of a path of links.
    pub(super) fn path(&mut self, scope: &Scope<'_>, names: &[String]) -> Result<Typed> {
        let (row, names) = Self::start(scope, names)?;
        match names.split_last() {
            Some((last, links)) => {
                self.walk(row.resource, &row.alias, links, &Tail::Member(last), false)
            }
            None => Err(Error::invalid("an empty path")),
        }
    }

    /// Like [`Self::path`], but of several rows at the other end the first one counts.
    pub(super) fn sort_path(&mut self, scope: &Scope<'_>, names: &[String]) -> Result<Typed> {
        let (row, names) = Self::start(scope, names)?;
        match names.split_last() {
            Some((last, links)) => {
                self.walk(row.resource, &row.alias, links, &Tail::Member(last), true)
            }
            None => Err(Error::invalid("an empty path")),
        }
    }

    /// `navigation/$count($filter=…)`.
    pub(super) fn count(
        &mut self,
        scope: &Scope<'_>,
        names: &[String],
        filter: Option<&Tree>,
    ) -> Result<Typed> {
        let (row, names) = Self::start(scope, names)?;
        match names.split_last() {
            Some((navigation, links)) => {
                let tail = Tail::Count { navigation, filter };
                self.walk(row.resource, &row.alias, links, &tail, false)
            }
            None => Err(Error::invalid("an empty path")),
        }
    }

    fn walk(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        links: &[String],
        tail: &Tail<'_>,
        first_of_many: bool,
    ) -> Result<Typed> {
        let Some((step, rest)) = links.split_first() else {
            return self.tail(resource, alias, tail);
        };
        if matches!(resource.member(step), Some(Member::Reverse(_))) && !first_of_many {
            let name = &resource.name;
            let message = format!("{name}.{step} leads to many rows: use any, all or $count");
            return Err(Error::invalid(message));
        }
        let next = self.fresh();
        let (target, joined) = self.navigate(resource, alias, step, &next)?;
        let inner = self.walk(target, &next, rest, tail, first_of_many)?;
        let mut select = self.source(target, &next);
        select.expr(inner.sql).and_where(joined);
        if let Some(passes) = self.permit(target, &next, Verb::Read)? {
            select.and_where(passes);
        }
        if first_of_many {
            select.order_by_expr(column(&next, "id"), Order::Asc).limit(1);
        }
        Ok(Typed::new(scalar(select), inner.kind, true))
    }

    fn tail(&mut self, resource: &'static Resource, alias: &str, tail: &Tail<'_>) -> Result<Typed> {
        match tail {
            Tail::Member(name) => match resource.member(name) {
                Some(Member::Field(at)) => self.field(resource, alias, &resource.fields[at]),
                Some(Member::Link(at)) => Ok(self.link(alias, &resource.links[at])),
                Some(Member::Reverse(_)) => Err(Error::invalid(format!(
                    "{}.{name} leads to many rows: use any, all or $count",
                    resource.name
                ))),
                None => Err(unknown(resource, name)),
            },
            Tail::Count { navigation, filter } => {
                let select = self.counted(resource, alias, navigation, *filter)?;
                Ok(Typed::new(scalar(select), Type::Integer, false))
            }
        }
    }

    /// `SELECT COUNT(*)` of the rows at the other end of a navigation.
    pub(super) fn counted(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        navigation: &str,
        filter: Option<&Tree>,
    ) -> Result<SelectStatement> {
        let next = self.fresh();
        let (target, joined) = self.navigate(resource, alias, navigation, &next)?;
        let mut select = self.source(target, &next);
        select.expr(Func::count(column(&next, "id"))).and_where(joined);
        if let Some(filter) = filter {
            select.and_where(self.predicate(&Scope::root(target, &next), filter)?);
        }
        if let Some(passes) = self.permit(target, &next, Verb::Read)? {
            select.and_where(passes);
        }
        Ok(select)
    }

    /// The resource at the other end of a navigation, and the condition that joins it as `next`.
    pub(super) fn navigate(
        &self,
        resource: &'static Resource,
        alias: &str,
        navigation: &str,
        next: &str,
    ) -> Result<(&'static Resource, Expr)> {
        match resource.member(navigation) {
            Some(Member::Link(at)) => {
                let link = &resource.links[at];
                let joined = column(next, "id").eq(self.link(alias, link).sql);
                Ok((self.model.at(link.to), joined))
            }
            Some(Member::Reverse(at)) => {
                let reverse = &resource.reverse[at];
                let target = self.model.at(reverse.from);
                let key = self.link(next, &target.links[reverse.key]).sql;
                Ok((target, key.eq(column(alias, "id"))))
            }
            Some(Member::Field(_)) => {
                let message =
                    format!("{}.{navigation} is a value, not a navigation", resource.name);
                Err(Error::invalid(message))
            }
            None => Err(unknown(resource, navigation)),
        }
    }

    /// `navigation/any(x:…)` and `navigation/all(x:…)`.
    pub(super) fn quantified(
        &mut self,
        scope: &Scope<'_>,
        names: &[String],
        all: bool,
        body: Option<(&str, &Tree)>,
    ) -> Result<Expr> {
        let (row, names) = Self::start(scope, names)?;
        let mut leaf = |this: &mut Compiler<'a>, resource: &'static Resource, alias: &str| {
            let Some((variable, body)) = body else { return Ok(None) };
            let inner = Scope {
                resource,
                alias: alias.to_owned(),
                variable: Some(variable),
                outer: Some(scope),
            };
            let holds = this.predicate(&inner, body)?;
            Ok(Some(match all {
                true => known(holds).not(),
                false => holds,
            }))
        };
        let found = self.chain(row.resource, &row.alias, names, &mut leaf)?;
        Ok(if all { Expr::not_exists(found) } else { Expr::exists(found) })
    }

    /// `SELECT 1` of the rows at the end of a chain of navigations that meet a condition.
    fn chain(
        &mut self,
        resource: &'static Resource,
        alias: &str,
        names: &[String],
        leaf: Leaf<'_, 'a>,
    ) -> Result<SelectStatement> {
        let Some((step, rest)) = names.split_first() else {
            return Err(Error::invalid("an empty path"));
        };
        let next = self.fresh();
        let (target, joined) = self.navigate(resource, alias, step, &next)?;
        let mut select = self.source(target, &next);
        select.expr(Expr::cust("1")).and_where(joined);
        let condition = match rest.is_empty() {
            true => leaf(self, target, &next)?,
            false => Some(Expr::exists(self.chain(target, &next, rest, leaf)?)),
        };
        if let Some(condition) = condition {
            select.and_where(condition);
        }
        if let Some(passes) = self.permit(target, &next, Verb::Read)? {
            select.and_where(passes);
        }
        Ok(select)
    }
}
