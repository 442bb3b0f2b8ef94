//! Sending blobs and manifests.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use minke_common_model::digest::{Digest, Hasher};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Client, Response, StatusCode, Url};

use crate::registry::RegistryError;
use crate::registry::session::Session;

/// Bytes in one PATCH.
pub(crate) const CHUNK: usize = 4 << 20;

/// What became of the wish to take a blob from another repository of the same registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// The registry has it here now.
    Yes,
    /// It must be sent; an upload may be open already.
    No(Option<String>),
}

/// The bytes to send, in order.
pub type UploadSource = Box<dyn Read + Send>;

impl Session {
    /// Whether the repository has the blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let what = format!("blob {digest}");
        let url = self.url(&format!("blobs/{digest}"));
        let good = [StatusCode::OK, StatusCode::NOT_FOUND];
        let answer = self.send(&what, &|client: &Client| client.head(&url), &good).await?;
        Ok(answer.status() == StatusCode::OK)
    }

    /// Asks the registry to take the blob over from the repository `from`.
    pub(crate) async fn mount(
        &self,
        digest: &Digest,
        from: &str,
    ) -> Result<Mounted, RegistryError> {
        self.also_read(from);
        let mut url = self.parse(&self.url("blobs/uploads/"))?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let request = |client: &Client| client.post(url.clone()).header(CONTENT_LENGTH, "0");
        let good = [StatusCode::CREATED, StatusCode::ACCEPTED];
        match self.send("mounting a blob", &request, &good).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(Mounted::Yes),
            Ok(answer) => Ok(Mounted::No(self.location(&answer).ok())),
            // No right to read there, or no such thing: it is sent instead.
            Err(
                RegistryError::Denied { .. }
                | RegistryError::NotFound { .. }
                | RegistryError::Status { .. },
            ) => Ok(Mounted::No(None)),
            Err(error) => Err(error),
        }
    }

    /// Sends a blob in chunks; `sent` counts the bytes that arrived.
    ///
    /// Returns the digest and length of what was read. With `digest` given the registry is asked to store
    /// it under that name, else under the name found at the end.
    pub(crate) async fn upload(
        &self,
        open: Option<String>,
        source: UploadSource,
        sent: &Arc<AtomicU64>,
    ) -> Result<(Digest, u64), RegistryError> {
        let mut location = match open {
            Some(location) => location,
            None => self.begin_upload().await?,
        };
        let mut reader = ChunkReader::new(source);
        loop {
            let (chunk, next) = reader.chunk().await?;
            reader = next;
            if chunk.is_empty() {
                break;
            }
            location = self.chunk(location, reader.sent, chunk.clone()).await?;
            reader.sent += chunk.len() as u64;
            sent.store(reader.sent, Ordering::Relaxed);
        }
        let digest = reader.digest();
        let mut url = self.parse(&location)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let request = |client: &Client| client.put(url.clone()).header(CONTENT_LENGTH, "0");
        let good = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        self.send("finishing an upload", &request, &good).await?;
        Ok((digest, reader.sent))
    }

    async fn begin_upload(&self) -> Result<String, RegistryError> {
        let url = self.url("blobs/uploads/");
        let request = |client: &Client| client.post(&url).header(CONTENT_LENGTH, "0");
        let answer = self.send("beginning an upload", &request, &[StatusCode::ACCEPTED]).await?;
        self.location(&answer)
    }

    /// Sends one chunk, again if the registry did not get it.
    async fn chunk(
        &self,
        mut location: String,
        at: u64,
        chunk: Bytes,
    ) -> Result<String, RegistryError> {
        let end = at + chunk.len() as u64;
        let mut from = at;
        let mut failures = 0;
        loop {
            let rest = chunk.slice(usize::try_from(from - at).unwrap_or_default()..);
            let url = self.parse(&location)?;
            let request = |client: &Client| {
                client
                    .patch(url.clone())
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_RANGE, format!("{from}-{}", end - 1))
                    .header(CONTENT_LENGTH, rest.len())
                    .body(Body::from(rest.clone()))
            };
            let error = match self.once_authorised(&request).await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    return self.location(&answer);
                }
                Ok(answer) => {
                    let passing = answer.status() == StatusCode::RANGE_NOT_SATISFIABLE
                        || answer.status().is_server_error()
                        || answer.status() == StatusCode::TOO_MANY_REQUESTS;
                    let error = self.refusal("sending a blob", answer).await;
                    if !passing {
                        return Err(error);
                    }
                    error
                }
                Err(error) => error,
            };
            failures += 1;
            if failures >= self.patience.attempts {
                return Err(error);
            }
            self.wait(failures, None).await;
            (location, from) = self.upload_status(&location).await?;
            if from < at || from > end {
                return Err(error);
            }
            if from == end {
                return Ok(location);
            }
        }
    }

    /// Where an upload goes on: its address now and how many bytes the registry has.
    async fn upload_status(&self, location: &str) -> Result<(String, u64), RegistryError> {
        let url = self.parse(location)?;
        let good = [StatusCode::NO_CONTENT, StatusCode::OK];
        let request = |client: &Client| client.get(url.clone());
        let answer = self.send("asking for an upload", &request, &good).await?;
        let range = answer.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let last = range.and_then(|range| range.split('-').nth(1)?.trim().parse::<u64>().ok());
        let location = self.location(&answer).unwrap_or_else(|_| location.to_owned());
        // `0-0` is what registries say of an empty upload as well as of one byte.
        Ok((location, last.filter(|last| *last > 0).map_or(0, |last| last + 1)))
    }

    async fn once_authorised(
        &self,
        request: &(dyn Fn(&Client) -> reqwest::RequestBuilder + Sync),
    ) -> Result<Response, RegistryError> {
        let answer = self.once(request(&self.client)).await?;
        if !self.is_challenge(&answer) {
            return Ok(answer);
        }
        self.authenticate(answer.headers()).await?;
        self.once(request(&self.client)).await
    }

    /// Stores a manifest under a tag or digest.
    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{name}"));
        let request = |client: &Client| {
            client.put(&url).header(CONTENT_TYPE, media_type).body(Body::from(bytes.to_vec()))
        };
        let good = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        self.send("storing the manifest", &request, &good).await.map(|_| ())
    }

    /// `Location` may be a path.
    fn location(&self, answer: &Response) -> Result<String, RegistryError> {
        let header = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let wrong = |why: &str| RegistryError::Document {
            what: "the answer to an upload".to_owned(),
            why: why.to_owned(),
        };
        let joined = header.and_then(|location| answer.url().join(location).ok());
        let location = joined.ok_or_else(|| wrong("it has no usable Location"))?;
        if self.base.starts_with("https:") && location.scheme() != "https" {
            return Err(wrong("its Location leads away from TLS"));
        }
        Ok(location.into())
    }

    fn parse(&self, url: &str) -> Result<Url, RegistryError> {
        Url::parse(url).map_err(|error| RegistryError::Document {
            what: format!("the address {url}"),
            why: error.to_string(),
        })
    }
}

/// Reads chunks on a blocking thread, hashing them on the way.
struct ChunkReader {
    source: UploadSource,
    hasher: Hasher,
    sent: u64,
}

impl ChunkReader {
    fn new(source: UploadSource) -> Self {
        Self { source, hasher: Hasher::new(), sent: 0 }
    }

    async fn chunk(mut self) -> Result<(Bytes, Self), RegistryError> {
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            (&mut self.source).take(CHUNK as u64).read_to_end(&mut chunk)?;
            self.hasher.update(&chunk);
            Ok((Bytes::from(chunk), self))
        });
        match read.await {
            Ok(read) => read.map_err(RegistryError::Source),
            Err(error) => Err(RegistryError::Source(std::io::Error::other(error))),
        }
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::ResponseBuilderExt;

    use super::*;
    use crate::options::Patience;
    use crate::registry::{Access, Clients, Endpoint};

    #[test]
    fn an_upload_does_not_lead_away_from_tls() {
        let base = "https://r.example".to_owned();
        let endpoint = Endpoint { base: base.clone(), is_mirror: false, any_certificate: false };
        let clients = Clients::default();
        let session =
            Session::new(&clients, &endpoint, "app", None, Access::Push, Patience::default());
        let session = session.unwrap();
        let location = |to: &str| {
            let url: Url = format!("{base}/v2/app/blobs/uploads/").parse().unwrap();
            let answer = axum::http::Response::builder().url(url).header(LOCATION, to).body("");
            session.location(&Response::from(answer.unwrap()))
        };
        assert_eq!(location("/up/1").unwrap(), "https://r.example/up/1");
        assert_eq!(location("https://s.example/up/1").unwrap(), "https://s.example/up/1");
        for to in ["http://r.example/up/1", "http://s.example/up/1"] {
            let error = location(to).unwrap_err();
            assert!(error.to_string().contains("away from TLS"), "{to}: {error}");
        }
    }
}
