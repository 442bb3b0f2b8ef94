//! OData queries as values. What is put in is quoted here, so that a name with a quote in it
//! stays a name.
//!
//! ```
//! use minke_sdk_rust::odata::{Filter, Query};
//!
//! let query = Query::new("device")
//!     .select(["id", "uuid"])
//!     .filter(Filter::eq("device_name", "Fleet's first"))
//!     .order_by("device_name asc");
//! assert_eq!(
//!     query.to_string(),
//!     "device?$select=id,uuid&$filter=device_name eq 'Fleet''s first'&$orderby=device_name asc",
//! );
//! ```

use std::fmt;

/// A literal of the query language.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A string; quotes in it are doubled when it is written.
    Text(String),
    /// An id or a count.
    Number(i64),
    /// `true` or `false`.
    Bool(bool),
}

impl From<&str> for Literal {
    fn from(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }
}

impl From<&String> for Literal {
    fn from(text: &String) -> Literal {
        Literal::Text(text.clone())
    }
}

impl From<i64> for Literal {
    fn from(number: i64) -> Literal {
        Literal::Number(number)
    }
}

impl From<bool> for Literal {
    fn from(value: bool) -> Literal {
        Literal::Bool(value)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Literal::Number(number) => write!(f, "{number}"),
            Literal::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// A condition on rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// `field eq literal`
    Equals(String, Literal),
    /// `startswith(field,'text')`
    StartsWith(String, String),
    /// `navigation/any(x:…)` with the condition on `x`.
    Any(String, Box<Filter>),
    /// `navigation/any()`.
    Leads(String),
    /// All must hold.
    And(Vec<Filter>),
    /// One must hold.
    Or(Vec<Filter>),
}

impl Filter {
    /// `field eq value`
    pub fn eq(field: &str, value: impl Into<Literal>) -> Filter {
        Filter::Equals(field.to_owned(), value.into())
    }

    /// `startswith(field,'text')`
    pub fn starts_with(field: &str, text: &str) -> Filter {
        Filter::StartsWith(field.to_owned(), text.to_owned())
    }

    /// Some row that `navigation` leads to fulfils `filter`.
    pub fn any(navigation: &str, filter: Filter) -> Filter {
        Filter::Any(navigation.to_owned(), Box::new(filter))
    }

    /// `navigation` leads to some row that the caller may see.
    pub fn leads(navigation: &str) -> Filter {
        Filter::Leads(navigation.to_owned())
    }

    /// Both hold.
    pub fn and(self, other: Filter) -> Filter {
        Filter::And(vec![self, other])
    }

    /// One of them holds.
    pub fn or(self, other: Filter) -> Filter {
        Filter::Or(vec![self, other])
    }

    fn write(&self, prefix: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filter::Equals(field, value) => write!(f, "{prefix}{field} eq {value}"),
            Filter::StartsWith(field, text) => {
                write!(f, "startswith({prefix}{field},{})", Literal::from(text))
            }
            Filter::Any(navigation, filter) => {
                // Nested lambdas need names of their own.
                let name = format!("x{}", prefix.len());
                write!(f, "{prefix}{navigation}/any({name}:")?;
                filter.write(&format!("{name}/"), f)?;
                f.write_str(")")
            }
            Filter::Leads(navigation) => write!(f, "{prefix}{navigation}/any()"),
            Filter::And(parts) => write_joined(parts, " and ", prefix, f),
            Filter::Or(parts) => write_joined(parts, " or ", prefix, f),
        }
    }
}

/// `and` and `or` have the same precedence in this dialect, so every group gets its brackets.
fn write_joined(
    parts: &[Filter],
    word: &str,
    prefix: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_str("(")?;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        part.write(prefix, f)?;
    }
    f.write_str(")")
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write("", f)
    }
}

/// What to read of a resource, and of what it leads to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    resource: String,
    select: Vec<String>,
    filter: Option<Filter>,
    expand: Vec<Query>,
    order_by: Option<String>,
    top: Option<u32>,
}

impl Query {
    /// All rows of `resource` (or, inside [`Query::expand`], of a navigation).
    pub fn new(resource: &str) -> Query {
        Query { resource: resource.to_owned(), ..Query::default() }
    }

    /// The row of `resource` with this id.
    pub fn by_id(resource: &str, id: i64) -> Query {
        Query::new(&format!("{resource}({id})"))
    }

    /// Only these fields.
    pub fn select<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Query {
        self.select = fields.into_iter().map(str::to_owned).collect();
        self
    }

    /// Only rows for which this holds.
    pub fn filter(mut self, filter: Filter) -> Query {
        self.filter = Some(filter);
        self
    }

    /// With the rows that this navigation leads to.
    pub fn expand(mut self, navigation: Query) -> Query {
        self.expand.push(navigation);
        self
    }

    /// As "created_at desc".
    pub fn order_by(mut self, order: &str) -> Query {
        self.order_by = Some(order.to_owned());
        self
    }

    /// At most this many.
    pub fn top(mut self, rows: u32) -> Query {
        self.top = Some(rows);
        self
    }

    /// The resource, with its key if it has one.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Names and values for the query part of a URL, not yet percent-encoded.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        if !self.select.is_empty() {
            options.push(("$select", self.select.join(",")));
        }
        if let Some(filter) = &self.filter {
            options.push(("$filter", filter.to_string()));
        }
        if !self.expand.is_empty() {
            let expands: Vec<String> = self.expand.iter().map(Query::nested).collect();
            options.push(("$expand", expands.join(",")));
        }
        if let Some(order) = &self.order_by {
            options.push(("$orderby", order.clone()));
        }
        if let Some(top) = self.top {
            options.push(("$top", top.to_string()));
        }
        options
    }

    fn nested(&self) -> String {
        let options = self.join_options(";");
        if options.is_empty() {
            return self.resource.clone();
        }
        format!("{}({options})", self.resource)
    }

    fn join_options(&self, separator: &str) -> String {
        let parts: Vec<String> =
            self.options().iter().map(|(name, value)| format!("{name}={value}")).collect();
        parts.join(separator)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.join_options("&");
        f.write_str(&self.resource)?;
        if options.is_empty() { Ok(()) } else { write!(f, "?{options}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_expands_and_lambdas() {
        let query = Query::by_id("application", 3)
            .expand(Query::new("owns__device").select(["id"]).expand(Query::new("device_tag")))
            .filter(Filter::any("device_tag", Filter::any("device", Filter::eq("id", 1))));
        assert_eq!(
            query.to_string(),
            "application(3)?$filter=device_tag/any(x0:x0/device/any(x3:x3/id eq 1))\
             &$expand=owns__device($select=id;$expand=device_tag)",
        );
    }

    #[test]
    fn groups_are_bracketed() {
        let filter =
            Filter::eq("a", 1).or(Filter::eq("b", true)).and(Filter::starts_with("c", "x'"));
        assert_eq!(filter.to_string(), "((a eq 1 or b eq true) and startswith(c,'x'''))");
        let filter = Filter::leads("device").and(Filter::any("a", Filter::leads("b")));
        assert_eq!(filter.to_string(), "(device/any() and a/any(x0:x0/b/any()))");
    }
}
