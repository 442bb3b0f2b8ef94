//! Why a text was refused.

use thiserror::Error;

/// A refused request: where and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{part} at character {}: {problem}", .position + 1)]
pub struct ParseError {
    /// The part of the request: `path`, `$filter`, `$expand`, …
    pub part: String,
    /// Characters of that part's decoded text before the fault.
    pub position: usize,
    /// What was wrong there.
    pub problem: Problem,
}

/// The kinds of refusal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// Something else stood where the grammar wants this.
    #[error("expected {0}")]
    Expected(&'static str),
    /// Input larger than a stated limit.
    #[error("too much: at most {limit} {unit} are allowed")]
    Limit {
        /// The bound that was passed.
        limit: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// An option that this server does not know, or one given twice.
    #[error("{0}")]
    Option(String),
}

impl ParseError {
    pub(crate) fn new(part: &str, position: usize, problem: Problem) -> Self {
        Self { part: part.to_owned(), position, problem }
    }
}
