//! Why a call did not give what was asked for.

/// Each variant says what was being done; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's address is not a URL with `http` or `https`.
    #[error("`{url}` is not the address of a server, as http://host:8080 would be")]
    Address {
        /// The address as given.
        url: String,
    },
    /// The connection failed or broke.
    #[error("cannot {what} at {server}")]
    Transport {
        /// What was being done, as "list fleets".
        what: String,
        /// The server's address.
        server: String,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// The server wants a login, or refuses the one it got.
    #[error("not logged in, or not allowed to {what}")]
    Unauthorized {
        /// What was being done.
        what: String,
    },
    /// The server answered with an error.
    #[error("cannot {what}: {message} (HTTP {status})")]
    Refused {
        /// What was being done.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("cannot {what}: the answer is not understood: {reason}")]
    Answer {
        /// What was being done.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// What the caller named does not exist, or is not visible to this user.
    #[error("no {kind} `{name}` (or it is not yours)")]
    NotFound {
        /// "fleet", "device", "release", …
        kind: &'static str,
        /// The name as given.
        name: String,
    },
    /// What the caller named fits several things.
    #[error("`{name}` fits several {kind}s: {candidates}")]
    Ambiguous {
        /// "fleet", "device", "release", …
        kind: &'static str,
        /// The name as given.
        name: String,
        /// The first few that fit.
        candidates: String,
    },
}

impl Error {
    /// Whether the server said that the row exists already.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Refused { status: 409, .. })
    }
}
