//! What moves images: pull, push, load and save.
//!
//! A transfer's first line decides the answer's status: what goes wrong before it is an error with its
//! own status, what goes wrong later is a line with `error`.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use futures_util::StreamExt;
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::{ErrorDetail, ProgressLine, RegistryAuth};
use minke_engine_images::{
    Credentials, ErrorKind, Platform, ProgressEvent, PullOptions, PushOptions,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::images::tell;
use super::params::Params;
use super::reply::{Pieces, line};
use super::unread;
use crate::base64;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Lines that wait for a slow client; beyond, lines that only say how far it is are left out.
const WAITING: usize = 1024;

/// A name and a tag (or digest) as one reference.
pub(super) fn reference(name: &str, tag: &str) -> Result<ImageReference> {
    let text = match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let parsed: ImageReference = text
        .parse()
        .map_err(|error| Error::Images(minke_engine_images::Error::Reference(error)))?;
    Ok(parsed.with_default_tag())
}

pub(super) fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>> {
    let Some(header) = headers.get("x-registry-auth").and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    if header.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::Invalid("invalid X-Registry-Auth header".to_owned());
    let bytes = base64::decode(header).ok_or_else(invalid)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let auth: RegistryAuth = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    Ok(credentials_of(auth))
}

/// The credentials that a client has given, if any.
pub(super) fn credentials_of(auth: RegistryAuth) -> Option<Credentials> {
    match auth {
        RegistryAuth { registrytoken, .. } if !registrytoken.is_empty() => {
            Some(Credentials::RegistryToken(registrytoken))
        }
        RegistryAuth { identitytoken, .. } if !identitytoken.is_empty() => {
            Some(Credentials::IdentityToken(identitytoken))
        }
        RegistryAuth { username, password, .. } if !username.is_empty() => {
            Some(Credentials::Basic { username, password })
        }
        _ => None,
    }
}

/// Runs a transfer whose lines are the answer.
async fn transfer<F, T>(run: F) -> Result<Response<Body>>
where
    F: FnOnce(Lines) -> T,
    T: Future<Output = Result<()>> + Send + 'static,
{
    let (lines, mut queue) = Lines::new();
    let work = run(lines);
    let (verdict, first) = oneshot::channel::<Result<()>>();
    let pieces = Pieces::of(move |sender| async move {
        tokio::pin!(work);
        let mut verdict = Some(verdict);
        let result = loop {
            // Both arms are cancel-safe: the work is polled on, never dropped.
            tokio::select! {
                biased;
                Some(line) = queue.next() => {
                    if let Some(verdict) = verdict.take() {
                        let _ = verdict.send(Ok(()));
                    }
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                result = &mut work => break result,
            }
        };
        while let Some(line) = queue.waiting() {
            if let Some(verdict) = verdict.take() {
                let _ = verdict.send(Ok(()));
            }
            if sender.send(line).await.is_err() {
                return;
            }
        }
        match (verdict.take(), result) {
            (Some(verdict), result) => {
                let _ = verdict.send(result);
            }
            (None, Err(error)) => {
                let _ = sender.send(error_line(&error)).await;
            }
            (None, Ok(())) => {}
        }
    });
    match first.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(pieces.answer("application/json")),
    }
}

fn error_line(error: &Error) -> Bytes {
    let message = error.message();
    line(&ProgressLine {
        error: Some(message.clone()),
        error_detail: Some(ErrorDetail { code: Some(i64::from(error.status().as_u16())), message }),
        ..ProgressLine::default()
    })
}

/// Where a transfer's lines go. They wait in memory for a slow client: what is said at an end is as much
/// as there are layers and names.
#[derive(Clone)]
struct Lines {
    sender: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// The other end of [`Lines`].
struct Queue {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// Cancel-safe.
    async fn next(&mut self) -> Option<Bytes> {
        let line = self.receiver.recv().await?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(line)
    }

    /// The next of the lines that are here already.
    fn waiting(&mut self) -> Option<Bytes> {
        let line = self.receiver.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(line)
    }
}

impl Lines {
    fn new() -> (Lines, Queue) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        (Lines { sender, waiting: waiting.clone() }, Queue { receiver, waiting })
    }

    fn put(&self, line: Bytes) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Nobody hears it: the transfer itself is about to be given up.
        let _ = self.sender.send(line);
    }

    fn event(&self, event: &ProgressEvent) {
        // A client that is this far behind misses how far it is, never what the end is.
        let says_how_far = event.detail.is_some();
        if !says_how_far || self.waiting.load(Ordering::Relaxed) < WAITING {
            self.put(line(&event.to_json()));
        }
    }

    /// An event of a load: what is said in the end goes where a build's output goes.
    fn loading(&self, event: &ProgressEvent, quiet: bool) {
        match (event.id.is_some(), quiet) {
            (true, true) => {}
            (true, false) => self.event(event),
            (false, _) => self.put(line(&json!({ "stream": event.status }))),
        }
    }
}

/// `POST /images/create`: a pull, or an import.
pub(super) async fn create(
    State(daemon): State<Daemon>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>> {
    if params.text("fromSrc").is_some_and(|source| !source.is_empty()) {
        return super::commit::import(daemon, params, body).await;
    }
    let name = params.text("fromImage").unwrap_or_default();
    if name.is_empty() {
        return Err(Error::Invalid("neither fromImage nor fromSrc says what to take".to_owned()));
    }
    let tag = params.text("tag").unwrap_or_default();
    let whole = reference(name, tag)?;
    // A bare name stands for every tag of it.
    let all = tag.is_empty()
        && name.parse::<ImageReference>().is_ok_and(|reference| reference.is_name_only());
    let platform = match params.text("platform").unwrap_or_default() {
        "" => None,
        text => Some(
            Platform::parse(text)
                .ok_or_else(|| Error::Invalid(format!("invalid platform {text:?}")))?,
        ),
    };
    let options = PullOptions { auth: credentials(&headers)?, platform, ..daemon.pull_options() };
    transfer(move |lines| async move {
        daemon.removals.settled().await;
        daemon.volumes.settled().await;
        let wanted = match all {
            true => {
                let tags = daemon.images.tags(&whole, &options).await;
                tags.map_err(|error| denied(&whole, error))?
            }
            false => vec![whole],
        };
        for reference in wanted {
            let progress = lines.clone();
            let pulled =
                daemon.images.pull(&reference, &options, move |event| progress.event(&event));
            pulled.await.map_err(|error| denied(&reference, error))?;
            let name = reference.familiar();
            tell(&daemon, "pull", &name, &reference.familiar_name());
        }
        Ok(())
    })
    .await
}

/// An image that may not be read is answered as one that is not there, as the API says.
fn denied(reference: &ImageReference, error: minke_engine_images::Error) -> Error {
    match error.kind() {
        ErrorKind::Denied => Error::NotFound(format!(
            "pull access denied for {}, repository does not exist or may require 'docker login': {}",
            reference.familiar_name(),
            minke_engine_images::chain(&error)
        )),
        _ => error.into(),
    }
}

/// `POST /images/{name}/push`.
pub(super) async fn push(
    daemon: &Daemon,
    name: &str,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    let tag = params.text("tag").unwrap_or_default();
    let references = match tag {
        "" => all_tags(daemon, name)?,
        tag => vec![reference(name, tag)?],
    };
    let options = PushOptions {
        auth: credentials(headers)?,
        insecure: daemon.options.insecure_registries.clone(),
        ..PushOptions::default()
    };
    let daemon = daemon.clone();
    transfer(move |lines| async move {
        for (at, reference) in references.into_iter().enumerate() {
            let progress = lines.clone();
            // Where all tags go is said once.
            let is_new = move |event: &ProgressEvent| {
                at == 0 || !event.status.starts_with("The push refers to repository")
            };
            let tell_of = move |event| {
                if is_new(&event) {
                    progress.event(&event)
                }
            };
            let pushed = daemon.images.push(&reference, &options, tell_of).await?;
            let digest = pushed.reference.digest().map(ToString::to_string).unwrap_or_default();
            let tag = reference.tag().unwrap_or_default();
            let aux = json!({ "Tag": tag, "Digest": digest, "Size": pushed.manifest_size });
            lines.put(line(&json!({ "progressDetail": {}, "aux": aux })));
            tell(&daemon, "push", &reference.familiar(), &reference.familiar_name());
        }
        Ok(())
    })
    .await
}

/// What a push without a tag sends: every tag of the repository, unless the name itself has one.
fn all_tags(daemon: &Daemon, name: &str) -> Result<Vec<ImageReference>> {
    let whole = reference(name, "")?;
    if !name.parse::<ImageReference>().is_ok_and(|reference| reference.is_name_only()) {
        return Ok(vec![whole]);
    }
    let tags = daemon.images.images().into_iter().flat_map(|image| image.tags);
    let mut tags: Vec<ImageReference> = tags.filter(|tag| tag.name() == whole.name()).collect();
    if tags.is_empty() {
        let repository = whole.familiar_name();
        return Err(Error::NotFound(format!(
            "An image does not exist locally with the tag: {repository}"
        )));
    }
    tags.sort_by_key(ToString::to_string);
    Ok(tags)
}

/// `POST /images/load`: an archive of images.
pub(super) async fn load(
    State(daemon): State<Daemon>,
    params: Params,
    body: Body,
) -> Result<Response<Body>> {
    let quiet = params.flag("quiet");
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    transfer(move |lines| async move {
        daemon.removals.settled().await;
        daemon.volumes.settled().await;
        let mut feed = tokio::spawn(async move {
            let mut pieces = body.into_data_stream();
            let mut wanted = true;
            // What is not wanted any more is heard out: a client that cannot send all of it shows that,
            // and not the answer.
            while let Some(piece) = pieces.next().await {
                let broken = piece.is_err();
                wanted = wanted && sender.send(piece.map_err(io::Error::other)).await.is_ok();
                if broken {
                    return;
                }
            }
        });
        let progress = lines.clone();
        let reader = crate::build::ForStore::new(ChannelReader::new(receiver));
        let loaded = daemon.images.load(reader, move |event| progress.loading(&event, quiet)).await;
        if tokio::time::timeout(unread::LONGEST, &mut feed).await.is_err() {
            feed.abort();
        }
        let loaded = match loaded {
            Ok(loaded) => loaded,
            // As Docker: whatever is wrong with an archive is said in the answer's body.
            Err(error) => {
                lines.put(error_line(&error.into()));
                return Ok(());
            }
        };
        for image in loaded {
            let names: Vec<String> = image.tags.iter().map(ImageReference::familiar).collect();
            let id = image.id.to_string();
            tell(&daemon, "load", &id, names.first().unwrap_or(&id));
        }
        Ok(())
    })
    .await
}

/// `GET /images/get?names=…`.
pub(super) async fn get_many(
    State(daemon): State<Daemon>,
    params: Params,
) -> Result<Response<Body>> {
    save(&daemon, params.all("names").map(str::to_owned).collect())
}

/// An archive of images.
pub(super) fn save(daemon: &Daemon, names: Vec<String>) -> Result<Response<Body>> {
    for name in &names {
        daemon.images.image(name)?;
    }
    let daemon = daemon.clone();
    let pieces = Pieces::whole(|sender| async move {
        let writer = ChannelWriter { sender: Arc::new(sender) };
        daemon.images.save(&names, writer).await.map_err(|error| {
            let error: Error = error.into();
            tracing::warn!(error = error.message(), "saving images broke off");
            io::Error::other(error)
        })
    });
    Ok(pieces.answer("application/x-tar"))
}

/// A body as blocking code reads it.
pub(super) struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl ChannelReader {
    pub(super) fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> ChannelReader {
        ChannelReader { receiver, piece: Bytes::new() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A body as blocking code writes it.
pub(super) struct ChannelWriter {
    pub(super) sender: Arc<mpsc::Sender<Bytes>>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(256 * 1024)];
        self.sender
            .blocking_send(Bytes::copy_from_slice(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_a_digest_and_latest_goes_without_saying() {
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        assert_eq!(reference("busybox", "").unwrap().familiar(), "busybox:latest");
        assert_eq!(reference("a/b", "v1").unwrap().to_string(), "docker.io/a/b:v1");
        assert_eq!(reference("a/b", digest).unwrap().familiar(), format!("a/b@{digest}"));
        assert!(reference("A B", "").is_err());
    }

    #[test]
    fn credentials_come_from_the_header() {
        let header = |json: &str| {
            let mut headers = HeaderMap::new();
            let text = json.to_owned();
            headers.insert("x-registry-auth", encode(text.as_bytes()).parse().unwrap());
            credentials(&headers).unwrap()
        };
        let token = Some(Credentials::RegistryToken("t".to_owned()));
        assert_eq!(header(r#"{"registrytoken":"t","username":"u"}"#), token);
        let basic = Credentials::Basic { username: "u".to_owned(), password: "p".to_owned() };
        assert_eq!(header(r#"{"username":"u","password":"p"}"#), Some(basic));
        assert_eq!(header("{}"), None);
    }

    #[test]
    fn a_client_that_is_behind_misses_only_how_far_it_is() {
        let (lines, mut queue) = Lines::new();
        for at in 0..WAITING as u64 + 100 {
            lines.event(&ProgressEvent::at("layer", "Downloading", at, 1 << 20));
        }
        lines.event(&ProgressEvent::of("layer", "Pull complete"));
        lines.event(&ProgressEvent::message("Status: Downloaded newer image for x"));
        lines.loading(&ProgressEvent::message("Loaded image: x"), true);
        let all: Vec<Bytes> = std::iter::from_fn(|| queue.waiting()).collect();
        assert_eq!(all.len(), WAITING + 3);
        let last: Vec<_> = all[WAITING..].iter().map(|l| String::from_utf8_lossy(l)).collect();
        for (line, says) in last.iter().zip(["Pull complete", "Status: ", "Loaded image: x"]) {
            assert!(line.contains(says), "{line}");
        }
        lines.event(&ProgressEvent::at("layer", "Downloading", 1, 1 << 20));
        assert!(queue.waiting().is_some(), "what was taken makes room");
    }

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: Vec<u8> =
            bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
        let digit = |six: &[u8]| {
            let value = (0..6).fold(0, |v, i| v << 1 | six.get(i).copied().unwrap_or(0));
            DIGITS[usize::from(value)] as char
        };
        bits.chunks(6).map(digit).collect()
    }
}
