//! What a request says beside its path: query and body.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::containers::filter::Filters;
use crate::error::{Error, Result};

/// Largest body that is read whole, bytes.
const LARGEST_BODY: usize = 8 << 20;

/// How long a body that is read whole may take to come.
const BODY_TIME: Duration = Duration::from_secs(60);

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Takes a query apart.
    pub(crate) fn parse(query: &str) -> Params {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Params(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (unescape_plus(name), unescape_plus(value))
                })
                .collect(),
        )
    }

    /// The first value of this name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// As Docker reads a switch: anything but nothing, `0`, `no`, `false` and `none`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        !matches!(
            self.text(name).unwrap_or_default().trim().to_ascii_lowercase().as_str(),
            "" | "0" | "no" | "false" | "none"
        )
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

    /// The filters: `{"label":["a"]}`, or as old clients write it `{"label":{"a":true}}`.
    pub(crate) fn filters(&self) -> Result<Filters> {
        let text = self.text("filters").unwrap_or_default();
        if text.is_empty() {
            return Ok(Filters::new());
        }
        let old = serde_json::from_str::<BTreeMap<String, BTreeMap<String, bool>>>(text);
        if let Ok(old) = old {
            let values = |set: BTreeMap<String, bool>| {
                set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect()
            };
            return Ok(old.into_iter().map(|(key, set)| (key, values(set))).collect());
        }
        serde_json::from_str(text).map_err(|_| Error::Invalid("invalid filter".to_owned()))
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Infallible> {
        Ok(Params::parse(parts.uri.query().unwrap_or_default()))
    }
}

/// A JSON body; an empty one is the type's default.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<JsonBody<T>> {
        let bytes = read_whole(request.into_body()).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(JsonBody(T::default()));
        }
        serde_json::from_slice(&bytes)
            .map(JsonBody)
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
        let new = Params::parse(r#"filters=%7B%22label%22%3A%5B%22a%22%5D%7D"#).filters().unwrap();
        let old = Params::parse(r#"filters={"label":{"a":true,"b":false}}"#).filters().unwrap();
        assert_eq!(new, old);
        assert!(Params::parse("filters=x").filters().is_err());
    }
}
