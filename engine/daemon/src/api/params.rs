//! What a request says beside its path: query and body.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::filters::Filters;
use super::versions::{Spoken, Version};
use crate::error::{Error, Result};

/// Largest body that is read whole, bytes.
const LARGEST_BODY: usize = 8 << 20;

/// How long a body that is read whole may take to come.
const BODY_TIME: Duration = Duration::from_secs(60);

/// The query of a request, and the version of the API that it is of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    /// `None` is the newest.
    version: Option<Version>,
}

impl Params {
    /// Takes a query apart.
    pub(crate) fn parse(query: &str) -> Params {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape_plus(name), unescape_plus(value))
        });
        Params { pairs: pairs.collect(), version: None }
    }

    #[cfg(test)]
    pub(crate) fn of_version(version: Version) -> Params {
        Params { version: Some(version), ..Params::default() }
    }

    /// Whether the client speaks a version before this one.
    pub(crate) fn before(&self, version: Version) -> bool {
        self.version.is_some_and(|spoken| spoken < version)
    }

    /// The first value of this name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A switch.
    pub(crate) fn flag(&self, name: &str) -> bool {
        is_on(self.text(name).unwrap_or_default())
    }

    /// A number, if there is one.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.text(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Error::Invalid(format!("bad parameter {name}: {:?} is not a number here", text))
            }),
        }
    }

    /// A time, nanoseconds since 1970; 0 if there is none.
    pub(crate) fn time(&self, name: &str) -> Result<i64> {
        match self.text(name) {
            None | Some("" | "0") => Ok(0),
            Some(text) => crate::stamp::parse_query(text, crate::stamp::now())
                .ok_or_else(|| Error::Invalid(format!("invalid value for \"{name}\": {text:?}"))),
        }
    }

    /// The filters.
    pub(crate) fn filters(&self) -> Result<Filters> {
        Filters::parse(self.text("filters").unwrap_or_default())
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Infallible> {
        let params = Params::parse(parts.uri.query().unwrap_or_default());
        let version = parts.extensions.get::<Spoken>().and_then(|spoken| spoken.0);
        Ok(Params { version, ..params })
    }
}

/// A JSON body; an empty one is the type's default, and so is `null`: older clients write it where they
/// have nothing to say.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<JsonBody<T>> {
        let bytes = read_whole(request.into_body()).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(JsonBody(T::default()));
        }
        serde_json::from_slice::<Option<T>>(&bytes)
            .map(|body| JsonBody(body.unwrap_or_default()))
            .map_err(|error| Error::Invalid(format!("invalid JSON: {error}")))
    }
}

async fn read_whole(body: Body) -> Result<Bytes> {
    let read = axum::body::to_bytes(body, LARGEST_BODY);
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Error::Invalid(format!(
            "the request's body broke off or is larger than {LARGEST_BODY} bytes"
        ))),
        Err(_) => Err(Error::Invalid(format!(
            "the request's body did not come within {} s",
            BODY_TIME.as_secs()
        ))),
    }
}

/// As Docker reads a switch: anything but nothing, `0`, `no`, `false` and `none`.
pub(crate) fn is_on(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// Undoes percent-encoding.
pub(crate) fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes text as a part of a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unescape_plus(text: &str) -> String {
    unescape(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_have_switches_numbers_and_filters() {
        let params = Params::parse("all=1&size=false&t=-1&name=a%2Fb+c&x&t=2");
        assert!(params.flag("all") && !params.flag("size") && !params.flag("x"));
        assert_eq!(params.number::<i64>("t").unwrap(), Some(-1));
        assert_eq!(params.all("t").count(), 2);
        assert_eq!(params.text("name"), Some("a/b c"));
        assert!(Params::parse("t=x").number::<i64>("t").is_err());
        let filters = Params::parse("filters=%7B%22label%22%3A%5B%22a%22%5D%7D").filters();
        assert_eq!(filters.unwrap().all("label"), ["a"]);
    }
}
