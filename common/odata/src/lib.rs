//! OData query text ⇄ syntax tree, for the dialect that balena's clients speak.
//!
//! Pure: no schema, no SQL, no clock. [`parse`] reads a resource path with its query string,
//! [`parse_filter`] a lone filter expression (permission texts). Every tree prints back
//! (`Display`) to text that parses to the same tree.
//!
//! Two rules differ from the published standard and are relied on by clients:
//! * `and` and `or` have the same precedence and group strictly from the left;
//! * `$orderby=field` without a direction sorts descending.
//!
//! Invariants:
//! * no input makes the parser panic, recurse deeper than [`limits::MAX_DEPTH`] or build more than
//!   [`limits::MAX_NODES`] nodes;
//! * every refusal names the part of the request, the position in its decoded text, and what was
//!   expected or which limit was passed.

mod ast;
mod error;
mod expression;
pub mod limits;
mod options;
mod percent;
mod print;
mod request;
mod scan;

pub use ast::{
    Binary, Expand, Expr, Function, Key, KeyValue, Literal, Options, OrderBy, Path, Quantifier,
    Request,
};
pub use error::{ParseError, Problem};

/// Reads a resource path with its optional query string, percent-encoded or not, without the
/// version prefix: `device(uuid='ab')?$select=id`. A leading `/` is allowed.
pub fn parse(text: &str) -> Result<Request, ParseError> {
    request::parse(text)
}

/// Reads one filter expression that is not percent-encoded, such as a permission text.
pub fn parse_filter(text: &str) -> Result<Expr, ParseError> {
    scan::check_length("filter", text)?;
    scan::complete("filter", text, expression::expression)
}
