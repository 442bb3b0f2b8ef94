//! A blob as a stream of pieces that goes on where it broke off.
//!
//! The digest is checked by whoever reads the pieces; here only the length is kept.

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::mpsc;

use crate::registry::RegistryError;
use crate::registry::documents::Descriptor;
use crate::registry::session::{Session, transport};

/// A connection that brought at least this many bytes counts as progress.
const PROGRESS: u64 = 64 << 10;
/// A blob is given up after this many connections, however much each brought.
const MAX_CONNECTIONS: u32 = 1000;

/// How one connection ended.
enum Ended {
    Whole,
    /// The reader is gone: nobody wants the rest.
    Unwanted,
    Broken(RegistryError),
}

impl Session {
    /// Sends the bytes of `blob` from `from` on into `pieces`, over as many connections as it takes.
    ///
    /// Returns when all is sent or nobody reads any more.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        from: u64,
        pieces: mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let mut at = from;
        let mut failures = 0;
        for _ in 0..MAX_CONNECTIONS {
            if at == blob.size {
                return Ok(());
            }
            let before = at;
            match self.connection(blob, &mut at, &pieces).await? {
                Ended::Whole | Ended::Unwanted => return Ok(()),
                Ended::Broken(error) => {
                    failures = if at - before >= PROGRESS { 1 } else { failures + 1 };
                    if failures >= self.patience.attempts {
                        return Err(error);
                    }
                    tracing::debug!(blob = %blob.digest, at, %error, "the download broke off");
                    self.wait(failures, None).await;
                }
            }
        }
        Err(RegistryError::TooLong {
            what: format!("the number of connections for blob {}", blob.digest),
            limit: MAX_CONNECTIONS.into(),
        })
    }

    async fn connection(
        &self,
        blob: &Descriptor,
        at: &mut u64,
        pieces: &mpsc::Sender<Bytes>,
    ) -> Result<Ended, RegistryError> {
        let what = format!("blob {}", blob.digest);
        let url = self.url(&format!("blobs/{}", blob.digest));
        let from = *at;
        let request = |client: &Client| {
            let request = client.get(&url);
            if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request }
        };
        let good = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let answer = self.send(&what, &request, &good).await?;
        // A registry without ranges begins at the beginning: what we have is read again and dropped.
        let mut skip = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                if range_start(answer.headers()) != Some(from) {
                    let why = "its range is not the one asked for".to_owned();
                    return Err(RegistryError::Document { what, why });
                }
                0
            }
            _ => from,
        };
        Ok(self.receive(answer, blob, at, &mut skip, pieces).await)
    }

    async fn receive(
        &self,
        answer: Response,
        blob: &Descriptor,
        at: &mut u64,
        skip: &mut u64,
        pieces: &mpsc::Sender<Bytes>,
    ) -> Ended {
        let mut stream = answer.bytes_stream();
        loop {
            let next = tokio::time::timeout(self.patience.stall, stream.next()).await;
            let mut piece = match next {
                Err(_) => return Ended::Broken(self.stalled(self.patience.stall)),
                Ok(Some(Err(error))) => {
                    return Ended::Broken(transport("reading from", &self.base, error));
                }
                Ok(Some(Ok(piece))) => piece,
                Ok(None) if *at == blob.size => return Ended::Whole,
                Ok(None) => {
                    let what = format!("blob {}", blob.digest);
                    let why = format!("it ends after {at} of {} bytes", blob.size);
                    return Ended::Broken(RegistryError::Document { what, why });
                }
            };
            if *skip > 0 {
                let dropped = piece.len().min(usize::try_from(*skip).unwrap_or(usize::MAX));
                *skip -= dropped as u64;
                piece = piece.slice(dropped..);
            }
            if piece.is_empty() {
                continue;
            }
            if *at + piece.len() as u64 > blob.size {
                // More than announced: the end is cut off and the digest decides.
                piece.truncate(usize::try_from(blob.size - *at).unwrap_or(usize::MAX));
            }
            *at += piece.len() as u64;
            if !piece.is_empty() && pieces.send(piece).await.is_err() {
                return Ended::Unwanted;
            }
            if *at == blob.size {
                return Ended::Whole;
            }
        }
    }
}

/// `bytes 100-199/200` → 100.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
