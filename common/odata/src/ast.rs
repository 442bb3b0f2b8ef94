//! The syntax tree of a request. Names are not yet resolved against a model.

/// One request: what it addresses and how the answer is shaped.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// Name of the addressed resource, as written.
    pub resource: String,
    /// `resource(…)`: the one row meant.
    pub key: Option<Key>,
    /// `resource(…)/$links/navigation`.
    pub links: Option<String>,
    /// `resource(…)/name`: a navigation, or the name of an action such as `canAccess`.
    pub property: Option<String>,
    /// `resource/$count`: only the number of rows.
    pub count: bool,
    /// The query string.
    pub options: Options,
}

/// How one row is addressed.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// `(123)`: the primary key.
    Id(KeyValue),
    /// `(uuid='…')` or `(application=1,service_name='x')`: a natural key, parts in any order.
    Named(Vec<(String, KeyValue)>),
}

/// A value inside a key.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyValue {
    /// Written out.
    Literal(Literal),
    /// `@name`, given elsewhere in the query string.
    Alias(String),
}

/// Options of a request or of an expanded navigation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Fields asked for, in order; may repeat; empty = all.
    pub select: Vec<String>,
    /// Rows wanted.
    pub filter: Option<Expr>,
    /// Navigations to put in place.
    pub expand: Vec<Expand>,
    /// Order of the rows.
    pub orderby: Vec<OrderBy>,
    /// At most so many rows.
    pub top: Option<u64>,
    /// Rows to leave out at the start.
    pub skip: Option<u64>,
    /// `$format`, as written.
    pub format: Option<String>,
    /// `@name=value` definitions.
    pub aliases: Vec<(String, Literal)>,
    /// Options without `$` or `@`, such as `apikey`.
    pub custom: Vec<(String, String)>,
}

/// One expanded navigation.
#[derive(Debug, Clone, PartialEq)]
pub struct Expand {
    /// The navigation, as written.
    pub navigation: String,
    /// `navigation/$count`: only the number of rows.
    pub count: bool,
    /// What to do with the expanded rows.
    pub options: Options,
}

/// One sort key.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderBy {
    /// A path or a count of a navigation.
    pub by: Expr,
    /// Largest first; also the meaning of a missing direction.
    pub descending: bool,
}

/// Names joined by `/`: a field, or navigations and then a field. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub Vec<String>);

/// An expression of `$filter`.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A constant.
    Literal(Literal),
    /// A field, a navigation or a lambda variable.
    Path(Path),
    /// `@name`: bound by an alias or by the server.
    Parameter(String),
    /// `navigation/$count`, optionally `($filter=…)`.
    Count {
        /// The counted navigation.
        path: Path,
        /// Which of its rows count.
        filter: Option<Box<Expr>>,
    },
    /// `not x`.
    Not(Box<Expr>),
    /// `- x`.
    Negate(Box<Expr>),
    /// `left op right`.
    Binary {
        /// The operator.
        op: Binary,
        /// What stands before it.
        left: Box<Expr>,
        /// What stands after it.
        right: Box<Expr>,
    },
    /// `value in (a,b,…)`; the list is never empty.
    In {
        /// The value looked for.
        value: Box<Expr>,
        /// Where it is looked for.
        list: Vec<Expr>,
    },
    /// `function(a,b)`.
    Call {
        /// Which function.
        function: Function,
        /// Its arguments, as many as the function takes.
        arguments: Vec<Expr>,
    },
    /// `navigation/any(x:…)`, `navigation/all(x:…)`, `navigation/any()`.
    Lambda {
        /// The navigation whose rows are looked at.
        path: Path,
        /// Some row or every row.
        quantifier: Quantifier,
        /// The variable and the condition; absent in `any()`.
        body: Option<(String, Box<Expr>)>,
    },
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true`, `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent; finite.
    Real(f64),
    /// `'text'`.
    Text(String),
    /// `datetime'…'`: the text between the quotes, not yet read as a date.
    DateTime(String),
}

/// Operators between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are OData's own operators")]
pub enum Binary {
    And,
    Or,
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

impl Binary {
    /// Every operator with its spelling.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::And, "and"),
        (Self::Or, "or"),
        (Self::Eq, "eq"),
        (Self::Ne, "ne"),
        (Self::Gt, "gt"),
        (Self::Ge, "ge"),
        (Self::Lt, "lt"),
        (Self::Le, "le"),
        (Self::Add, "add"),
        (Self::Sub, "sub"),
        (Self::Mul, "mul"),
        (Self::Div, "div"),
        (Self::Mod, "mod"),
    ];

    /// How it is written.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    /// Binding strength: `and`/`or` 0, comparisons 1, `add`/`sub` 2, `mul`/`div`/`mod` 3.
    pub(crate) fn level(self) -> u8 {
        match self {
            Self::And | Self::Or => 0,
            Self::Eq | Self::Ne | Self::Gt | Self::Ge | Self::Lt | Self::Le => 1,
            Self::Add | Self::Sub => 2,
            Self::Mul | Self::Div | Self::Mod => 3,
        }
    }
}

/// `any` or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantifier {
    /// At least one row.
    Any,
    /// No row fails.
    All,
}

/// Functions of the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are OData's own functions")]
pub enum Function {
    StartsWith,
    EndsWith,
    Contains,
    SubstringOf,
    ToLower,
    ToUpper,
    Length,
    IndexOf,
    Concat,
    Substring,
    Trim,
    Replace,
    Round,
    Floor,
    Ceiling,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    FractionalSeconds,
    Date,
    Time,
    Now,
    MaxDateTime,
    MinDateTime,
    TotalSeconds,
}

impl Function {
    /// Every function: its spelling, the fewest and the most arguments.
    pub const ALL: [(Self, &'static str, usize, usize); 28] = [
        (Self::StartsWith, "startswith", 2, 2),
        (Self::EndsWith, "endswith", 2, 2),
        (Self::Contains, "contains", 2, 2),
        (Self::SubstringOf, "substringof", 2, 2),
        (Self::ToLower, "tolower", 1, 1),
        (Self::ToUpper, "toupper", 1, 1),
        (Self::Length, "length", 1, 1),
        (Self::IndexOf, "indexof", 2, 2),
        (Self::Concat, "concat", 2, 2),
        (Self::Substring, "substring", 2, 3),
        (Self::Trim, "trim", 1, 1),
        (Self::Replace, "replace", 3, 3),
        (Self::Round, "round", 1, 1),
        (Self::Floor, "floor", 1, 1),
        (Self::Ceiling, "ceiling", 1, 1),
        (Self::Year, "year", 1, 1),
        (Self::Month, "month", 1, 1),
        (Self::Day, "day", 1, 1),
        (Self::Hour, "hour", 1, 1),
        (Self::Minute, "minute", 1, 1),
        (Self::Second, "second", 1, 1),
        (Self::FractionalSeconds, "fractionalseconds", 1, 1),
        (Self::Date, "date", 1, 1),
        (Self::Time, "time", 1, 1),
        (Self::Now, "now", 0, 0),
        (Self::MaxDateTime, "maxdatetime", 0, 0),
        (Self::MinDateTime, "mindatetime", 0, 0),
        (Self::TotalSeconds, "totalseconds", 1, 1),
    ];

    /// How it is written.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|f| f.0 == self).map_or("", |f| f.1)
    }
}
