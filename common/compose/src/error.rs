//! Where in the file, what is wrong, and what was expected.

use std::fmt;

/// A compose file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeError {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column, in characters, from 1.
    pub column: usize,
    /// What is wrong, and what was expected in its place.
    pub message: String,
}

impl ComposeError {
    pub(crate) fn new(line: usize, column: usize, message: impl Into<String>) -> Self {
        ComposeError { line, column, message: message.into() }
    }
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ComposeError {}

/// Something that devices will not do as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What, in a sentence.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}
