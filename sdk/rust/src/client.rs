//! One server, one token, and the few ways in which its API is called.

use std::sync::Once;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::odata::Query;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers that come at once; streams have no limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of an error's text is worth showing.
const MAX_MESSAGE: usize = 2000;

/// A server, and who is calling it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<String>,
}

#[derive(serde::Deserialize)]
struct Rows<T> {
    d: Vec<T>,
}

impl Client {
    /// A client of the server at `url`, as `http://127.0.0.1:8080`, without a token.
    pub fn new(url: &str) -> Result<Client, Error> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // A program that has chosen another provider keeps it.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let address = || Error::Address { url: url.to_owned() };
        let server = Url::parse(url).map_err(|_| address())?;
        if !matches!(server.scheme(), "http" | "https") || server.host().is_none() {
            return Err(address());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| Error::Transport {
                what: "set up TLS for calls".to_owned(),
                server: url.to_owned(),
                source,
            })?;
        Ok(Client { http, server, token: None })
    }

    /// The same client, calling with `token` (a session's or an API key).
    pub fn with_token(mut self, token: impl Into<String>) -> Client {
        self.token = Some(token.into());
        self
    }

    /// The server's address, without a slash at its end.
    pub fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// What the client calls with.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) fn set_token(&mut self, token: String) {
        self.token = Some(token);
    }

    /// Reads the rows of `query`. `what` is for errors: "list fleets".
    pub async fn rows<T: DeserializeOwned>(
        &self,
        what: &str,
        query: &Query,
    ) -> Result<Vec<T>, Error> {
        let mut url = self.url(&format!("v7/{}", query.resource()));
        url.query_pairs_mut().extend_pairs(query.options());
        let response = self.send(what, self.http.get(url).timeout(ANSWER_TIMEOUT)).await?;
        let rows: Rows<T> = self.json(what, response).await?;
        Ok(rows.d)
    }

    /// Creates a row and returns it as the server made it.
    pub async fn create<T: DeserializeOwned>(
        &self,
        what: &str,
        resource: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let response =
            self.request(what, Method::POST, &format!("v7/{resource}"), Some(body)).await?;
        self.json(what, response).await
    }

    /// Changes the rows of `query`.
    pub async fn update(
        &self,
        what: &str,
        query: &Query,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        self.write(what, Method::PATCH, query, Some(body)).await
    }

    /// Deletes the rows of `query`.
    pub async fn delete(&self, what: &str, query: &Query) -> Result<(), Error> {
        self.write(what, Method::DELETE, query, None::<&Value>).await
    }

    async fn write(
        &self,
        what: &str,
        method: Method,
        query: &Query,
        body: Option<&impl Serialize>,
    ) -> Result<(), Error> {
        let mut url = self.url(&format!("v7/{}", query.resource()));
        url.query_pairs_mut().extend_pairs(query.options());
        let mut request = self.http.request(method, url).timeout(ANSWER_TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(what, request).await.map(drop)
    }

    /// Calls a plain endpoint with a JSON body.
    pub(crate) async fn request(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response, Error> {
        let mut request = self.http.request(method, self.url(path)).timeout(ANSWER_TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(what, request).await
    }

    /// A request without a time limit, for streams in either direction.
    pub(crate) fn stream(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        self.http.request(method, url)
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.server.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url
    }

    /// Sends, and turns every answer but a success into an error.
    pub(crate) async fn send(
        &self,
        what: &str,
        mut request: reqwest::RequestBuilder,
    ) -> Result<Response, Error> {
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.send().await.map_err(|source| self.transport(what, source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let what = what.to_owned();
        if status == StatusCode::UNAUTHORIZED {
            return Err(Error::Unauthorized { what });
        }
        let text = response.text().await.unwrap_or_default();
        Err(Error::Refused { what, status: status.as_u16(), message: message(status, &text) })
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        what: &str,
        response: Response,
    ) -> Result<T, Error> {
        let body = self.bytes(what, response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Answer { what: what.to_owned(), reason: error.to_string() })
    }

    pub(crate) async fn text(&self, what: &str, response: Response) -> Result<String, Error> {
        let body = self.bytes(what, response).await?;
        String::from_utf8(body.to_vec())
            .map_err(|error| Error::Answer { what: what.to_owned(), reason: error.to_string() })
    }

    async fn bytes(&self, what: &str, response: Response) -> Result<bytes::Bytes, Error> {
        response.bytes().await.map_err(|source| self.transport(what, source))
    }

    pub(crate) fn transport(&self, what: &str, source: reqwest::Error) -> Error {
        Error::Transport { what: what.to_owned(), server: self.server().to_owned(), source }
    }
}

/// The server's own words: errors are JSON strings, now and then an object, rarely plain text.
fn message(status: StatusCode, text: &str) -> String {
    let words = match serde_json::from_str(text) {
        Ok(Value::String(words)) => words,
        Ok(Value::Object(fields)) => ["message", "error"]
            .iter()
            .find_map(|name| fields.get(*name)?.as_str())
            .map_or_else(|| text.to_owned(), str::to_owned),
        _ => text.trim().to_owned(),
    };
    if words.is_empty() {
        return status.canonical_reason().unwrap_or("no reason given").to_owned();
    }
    words.chars().take(MAX_MESSAGE).collect()
}
