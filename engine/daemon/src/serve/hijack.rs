//! Calls that take their connection over: attach and exec.
//!
//! The answer's head is 101 when the client asked for an upgrade, else 200; after it both directions
//! carry raw bytes. The end of the client's input (half-close) ends the container's stdin and nothing
//! else: output goes on.

mod keys;
mod pump;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use minke_engine_client::wire::{ErrorBody, StartExec};
use minke_engine_shim::protocol::{Request, Size, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::gate::Gate;
use super::head::Head;
use super::socket::Socket;
use crate::api::params::Params;
use crate::api::versions;
use crate::containers::container::Container;
use crate::containers::{document::Status, exec, start};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::logs::{Follower, Query, Source};
use crate::shim::Connection;
pub(crate) use keys::DetachKeys;
pub(crate) use pump::{Outcome, Terminal, frame, pump};

/// Longest body of an exec's start, bytes.
const LONGEST_BODY: usize = 64 * 1024;
/// How often it is looked whether a client has read the answer's head, a millisecond apart.
const HEAD_LOOKS: u32 = 20;
/// How long a client may take to close its end after the last of the answer.
const PARTING: Duration = Duration::from_secs(5);

/// What a hijacking call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Attach { container: String },
    Exec { exec: String },
}

/// Whether a request takes its connection over.
pub(crate) fn target(head: &Head) -> Option<Target> {
    if head.method != "POST" {
        return None;
    }
    let path = head.target.split('?').next()?;
    let (_, path) = versions::split(path);
    let mut parts = path.split('/').skip(1);
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        ("containers", id, "attach", None) => {
            Some(Target::Attach { container: crate::api::params::unescape(id) })
        }
        ("exec", id, "start", None) => Some(Target::Exec { exec: id.to_owned() }),
        _ => None,
    }
}

/// A connection that is being taken over.
pub(super) struct Call {
    stream: Socket,
    head: Head,
    /// What was read of the body, and of what comes behind it.
    rest: Vec<u8>,
    params: Params,
}

/// Answers a hijacking call.
pub(super) async fn serve(stream: Socket, head: Head, bytes: Vec<u8>, target: Target, gate: Gate) {
    let (daemon, _) = gate.ready().await;
    let query = head.target.split_once('?').map_or("", |(_, query)| query);
    let params = Params::parse(query);
    let rest = bytes[head.end..].to_vec();
    let mut call = Call { stream, head, rest, params };
    let path = call.head.target.split('?').next().unwrap_or_default();
    let (version, path) = versions::split(path);
    let result = match versions::check(version, path) {
        Ok(()) => match target {
            Target::Attach { container } => attach(&daemon, &mut call, &container).await,
            Target::Exec { exec } => start_exec(&daemon, &mut call, &exec).await,
        },
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        call.refuse(&error).await;
    }
    call.part().await;
}

impl Call {
    /// Answers with an error. A client that has gone does not hear it.
    async fn refuse(&mut self, error: &Error) {
        let status = error.status();
        let body = serde_json::to_vec(&ErrorBody { message: error.message() }).unwrap_or_default();
        self.answer(status, &body).await;
    }

    async fn answer(&mut self, status: StatusCode, body: &[u8]) {
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\nApi-Version: {}\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
            crate::API_VERSION,
        );
        let _ = self.stream.write_all(&[head.as_bytes(), body].concat()).await;
    }

    /// Ends the connection so that the client reads all of the answer: closing while something of the
    /// client's is unread would make its next read fail.
    async fn part(&mut self) {
        let _ = self.stream.shutdown().await;
        let mut rest = [0u8; 4096];
        let drain = async { while matches!(self.stream.read(&mut rest).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(PARTING, drain).await;
    }

    /// Takes the connection over.
    async fn take_over(&mut self, tty: bool) -> std::io::Result<()> {
        let path = self.head.target.split('?').next().unwrap_or_default();
        // Before 1.42 there was one name for both forms.
        let framed = !tty && versions::split(path).0.is_none_or(|version| version >= (1, 42));
        let kind = if framed { "multiplexed-stream" } else { "raw-stream" };
        let head = match self.head.header("upgrade") {
            Some(_) => format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            ),
            None => {
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.{kind}\r\n\r\n")
            }
        };
        self.stream.write_all(head.as_bytes()).await
    }

    /// Waits a little until the client has read the answer's head: some clients read what follows
    /// past the buffer that they read the head into.
    async fn head_was_read(&self) {
        for _ in 0..HEAD_LOOKS {
            if self.stream.unread() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Reads the request's body, and leaves what is behind it.
    async fn body(&mut self) -> Result<Vec<u8>> {
        let broken =
            |error: std::io::Error| Error::Invalid(format!("reading the request's body: {error}"));
        let chunked = self
            .head
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let read = if chunked {
            self.chunked_body().await
        } else {
            let length = self.head.header("content-length").and_then(|text| text.parse().ok());
            self.take(length.unwrap_or(0)).await
        };
        read.map_err(broken)
    }

    async fn take(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        if count > LONGEST_BODY {
            return Err(std::io::Error::other(format!("it is longer than {LONGEST_BODY} bytes")));
        }
        while self.rest.len() < count {
            self.read_more().await?;
        }
        Ok(self.rest.drain(..count).collect())
    }

    async fn read_more(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.rest).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn chunked_body(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(std::io::Error::other)?;
            let whole = body.len().saturating_add(size);
            if whole > LONGEST_BODY {
                return self.take(whole).await;
            }
            body.extend(self.take(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.rest.len() > LONGEST_BODY {
                return Err(std::io::Error::other("a line of it is too long"));
            }
            self.read_more().await?;
        }
    }
}

async fn attach(daemon: &Daemon, call: &mut Call, name: &str) -> Result<()> {
    // Some clients send a body; what follows it is the container's input.
    call.body().await?;
    let container = daemon.containers.find(name)?;
    let params = &call.params;
    let (tty, open_stdin) = {
        let cell = container.lock();
        (cell.config.config.tty, cell.config.config.open_stdin)
    };
    let streams = Streams {
        stdin: params.flag("stdin") && open_stdin,
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
    };
    let keys = DetachKeys::parse(params.text("detachKeys").unwrap_or_default())?;
    let (logs, stream) = (params.flag("logs"), params.flag("stream"));
    if container.status() == Status::Paused {
        return Err(Error::Conflict(format!(
            "container {} is paused, unpause the container before attach",
            container.id
        )));
    }
    let running = container.status().has_process();
    let connected = match (stream, running) {
        (false, _) => None,
        (true, true) => {
            let mut connection = container.connect().await?;
            let bound = connection.attach("", streams).await;
            bound.map_err(Error::system("attaching to the container"))?;
            Some(Ok(connection))
        }
        (true, false) => Some(Err(start::attach_early(&container, streams))),
    };
    daemon.events.publish("container", "attach", &container.id, container.attributes());
    if call.take_over(tty).await.is_err() {
        return Ok(());
    }
    if logs || running {
        call.head_was_read().await;
    }
    if logs && replay(call, &container.log_path(), streams, tty).await.is_err() {
        return Ok(());
    }
    let connection = match connected {
        None => return Ok(()),
        Some(Ok(connection)) => connection,
        Some(Err(mut bound)) => match wait_for_start(call, &mut bound).await {
            Some(connection) => connection,
            None => return Ok(()),
        },
    };
    let terminal = Terminal { raw: tty, stdin: streams.stdin, keys: tty.then_some(keys) };
    let rest = std::mem::take(&mut call.rest);
    let mut connection = connection;
    let over = container.next_end();
    if pump(&mut call.stream, rest, &mut connection, terminal, over).await == Outcome::Detached {
        daemon.events.publish("container", "detach", &container.id, container.attributes());
    }
    Ok(())
}

/// Waits for the container's start; `None` if it fails or the client goes away first.
async fn wait_for_start(
    call: &mut Call,
    bound: &mut tokio::sync::oneshot::Receiver<Connection>,
) -> Option<Connection> {
    let probe = call.stream.probe().ok()?;
    // What the client says early is kept for the container.
    tokio::select! {
        connection = bound => connection.ok(),
        () = pump::hung_up(probe) => None,
    }
}

async fn replay(
    call: &mut Call,
    log: &std::path::Path,
    streams: Streams,
    tty: bool,
) -> std::io::Result<()> {
    let query = Query { stdout: streams.stdout, stderr: streams.stderr, ..Query::default() };
    let mut follower = Follower::open(log, query, None)?;
    while let Some(lines) = follower.next().await? {
        for line in lines {
            let bytes = line.text.into_bytes();
            if tty {
                call.stream.write_all(&bytes).await?;
            } else {
                let stderr = line.source == Source::Stderr;
                call.stream.write_all(&frame(stderr, &bytes)).await?;
            }
        }
    }
    Ok(())
}

async fn start_exec(daemon: &Daemon, call: &mut Call, id: &str) -> Result<()> {
    let body = call.body().await?;
    let body: StartExec = if body.iter().all(u8::is_ascii_whitespace) {
        StartExec::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Error::Invalid(format!("invalid JSON: {error}")))?
    };
    let container = daemon.containers.of_exec(id)?;
    let details = exec::show(&container, id)?;
    let keys = DetachKeys::parse(&details.detach_keys)?;
    let keys = details.process_config.tty.then_some(keys);
    // Whether there are frames is up to who starts it, whatever the exec was made with.
    let raw = body.tty;
    let size = body.console_size.filter(|_| raw).map(|[rows, columns]| Size { rows, columns });
    if body.detach {
        let streams = Streams::default();
        let connection = exec::start(daemon, &container, id, streams, size).await?;
        go_on_without(daemon, &container, id, connection);
        call.answer(StatusCode::OK, b"").await;
        return Ok(());
    }
    let streams = Streams {
        stdin: details.open_stdin,
        stdout: details.open_stdout,
        stderr: details.open_stderr,
    };
    let claimed = exec::claim(&container, id)?;
    // The head goes first: clients that read the stream past their HTTP library's buffer would lose
    // what comes together with it.
    let taken = call.take_over(raw).await;
    let mut connection = match exec::start_claimed(daemon, &container, claimed, streams, size).await
    {
        Ok(connection) => connection,
        // As Docker does: the stream says why, inspect says the exit code.
        Err(error) => {
            let text = format!("{}\r\n", error.message());
            let bytes = text.as_bytes();
            let framed = if raw { bytes.to_vec() } else { frame(false, bytes) };
            let _ = call.stream.write_all(&framed).await;
            return Ok(());
        }
    };
    call.head_was_read().await;
    let terminal = Terminal { raw, stdin: streams.stdin, keys };
    let rest = std::mem::take(&mut call.rest);
    let outcome = match taken {
        Ok(()) => {
            // An exec's shim goes on, and waits for whoever reads.
            let over = std::future::pending();
            pump(&mut call.stream, rest, &mut connection, terminal, over).await
        }
        Err(_) => Outcome::Gone,
    };
    match outcome {
        // Before the client sees the end: it asks for the exit code next.
        Outcome::Exited(code) => exec::ended(daemon, &container, id, code),
        Outcome::Detached => {
            exec::tell(daemon, &container, "exec_detach", id, None);
            go_on_without(daemon, &container, id, connection);
        }
        Outcome::Gone => {
            // The end of a client is the end of its input.
            let _ = connection.writer.send(&Request::StdinEnd).await;
            go_on_without(daemon, &container, id, connection);
        }
    }
    Ok(())
}

/// Waits in the background for the end of an exec that no client is bound to, so that its exit code is
/// known.
fn go_on_without(daemon: &Daemon, container: &Arc<Container>, id: &str, connection: Connection) {
    let (daemon, container, id) = (daemon.clone(), container.clone(), id.to_owned());
    tokio::spawn(async move {
        let code = pump::drain(connection).await;
        exec::ended(&daemon, &container, &id, code);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attach_and_exec_take_over() {
        let of = |method: &str, path: &str| {
            let text = format!("{method} {path} HTTP/1.1\r\n\r\n");
            let mut bytes = text.as_bytes();
            let read = futures_util::FutureExt::now_or_never(super::super::head::read(&mut bytes));
            match read {
                Some(super::super::head::Heard::Head(head, _)) => target(&head),
                _ => panic!("{text} is a head"),
            }
        };
        let attach = Some(Target::Attach { container: "a b".to_owned() });
        assert_eq!(of("POST", "/v1.41/containers/a%20b/attach?stream=1"), attach);
        assert_eq!(of("POST", "/exec/x/start"), Some(Target::Exec { exec: "x".to_owned() }));
        assert_eq!(of("GET", "/containers/x/attach/ws"), None);
        assert_eq!(of("POST", "/containers/x/start"), None);
    }
}
