//! The bounds of every request. Passing one is an error that says which and how much.

/// Longest request text in bytes, before percent-decoding.
pub const MAX_LENGTH: usize = 128 * 1024;
/// Deepest nesting of parentheses, calls, lambdas, operators in a row and expands, together.
pub const MAX_DEPTH: usize = 200;
/// Deepest nesting of parentheses, calls, lambdas and expands while reading.
pub const MAX_NESTING: usize = 48;
/// Most expression nodes in one request. Values of an `in` list are counted apart.
pub const MAX_NODES: usize = 4_000;
/// Most values in one `in` list.
pub const MAX_LIST: usize = 2_000;
/// Most names in one `$select` or `$orderby`, and most parts of a key or a path.
pub const MAX_NAMES: usize = 256;
/// Most expanded navigations in one request, over all levels.
pub const MAX_EXPANDS: usize = 64;
/// Longest identifier in bytes.
pub const MAX_NAME_LENGTH: usize = 128;
/// Most options in one query string.
pub const MAX_OPTIONS: usize = 64;
