//! Bodies of requests, never more of one than its limit.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Bytes of a body that holds a few words.
pub(crate) const SMALL: usize = 64 * 1024;
/// Bytes of a state report.
pub(crate) const REPORT: usize = 1024 * 1024;
/// Bytes of a row: an image's build log may have 1.5 MB and its error message 300 kB, escaped in JSON.
pub(crate) const ROW: usize = 8 * 1024 * 1024;

/// Bytes of a body that nobody wants which are still taken in, and for how long.
const UNWANTED: u64 = 256 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a body may pause, and how long it may take in all.
const PAUSE: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// Takes in a body that is refused: a client that is still sending would not read the answer.
pub(crate) async fn discard(body: Body) {
    let mut stream = body.into_data_stream();
    let all = async {
        let mut left = UNWANTED;
        while let (Some(Ok(chunk)), 1..) = (stream.next().await, left) {
            left = left.saturating_sub(chunk.len() as u64);
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all).await;
}

/// Reads the whole body.
pub(crate) async fn bytes(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let whole = tokio::time::timeout(WHOLE, gather(body, limit, PAUSE));
    whole.await.map_err(|_| too_slow(WHOLE))?
}

fn too_slow(limit: Duration) -> ApiError {
    ApiError::bad(format!("waited for the body longer than {} s, the limit", limit.as_secs()))
}

async fn gather(body: Body, limit: usize, pause: Duration) -> Result<Bytes, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let next = async |stream: &mut axum::body::BodyDataStream| {
        tokio::time::timeout(pause, stream.next()).await.map_err(|_| too_slow(pause))
    };
    while let Some(chunk) = next(&mut stream).await? {
        let chunk = chunk.map_err(|error| ApiError::bad(format!("reading the body: {error}")))?;
        if bytes.len() + chunk.len() > limit {
            return Err(ApiError::TooLarge(format!(
                "the body is larger than {limit} bytes, the limit here"
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Reads the body as JSON of the given form.
pub(crate) async fn json<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, ApiError> {
    let bytes = bytes(body, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad(format!("the body is not the JSON expected here: {error}")))
}

/// Reads the body as JSON or, where the header says so, as a form; nothing is an empty object.
pub(crate) async fn object(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Map<String, Value>, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let bytes = bytes(body, limit).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    if kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        let pairs = crate::query::pairs(&String::from_utf8_lossy(&bytes));
        return Ok(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad(format!("the body is not a JSON object: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_pauses_too_long_is_given_up() {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("{")]);
        let body = Body::from_stream(first.chain(futures_util::stream::pending()));
        let error = gather(body, SMALL, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(&error, ApiError::BadRequest(_)), "{error}");
        let whole = gather(Body::from("{}"), SMALL, Duration::from_secs(30)).await.unwrap();
        assert_eq!(whole, "{}");
    }
}
