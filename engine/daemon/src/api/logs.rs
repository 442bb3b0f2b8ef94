//! `/containers/{id}/logs`.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::Response;
use tokio::sync::mpsc;

use super::params::{Params, escape};
use super::reply::Pieces;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::logs::{Follower, Line, Query, Source};
use crate::serve::hijack::frame;
use crate::stamp;

pub(super) async fn logs(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let query = Query {
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        since: params.time("since")?,
        until: params.time("until")?,
        // Anything but a number, `all` say, is all.
        tail: params.text("tail").and_then(|text| text.parse().ok()),
    };
    if !query.stdout && !query.stderr {
        return Err(Error::Invalid(
            "Bad parameters: you must choose at least one stream".to_owned(),
        ));
    }
    let container = daemon.containers.find(&id)?;
    let (tty, kind) = {
        let cell = container.lock();
        (cell.config.config.tty, cell.config.host_config.log_config.kind.clone())
    };
    if kind == "none" {
        return Err(Error::NotImplemented(
            "configured logging driver does not support reading".to_owned(),
        ));
    }
    let phase = container.phase.subscribe();
    let follow = params.flag("follow") && phase.borrow().running;
    let follower = Follower::open_newest(&container.log_path(), query, follow.then_some(phase))
        .await
        .map_err(Error::file("reading the log", container.log_path()))?;
    let form = Form { tty, timestamps: params.flag("timestamps"), details: params.flag("details") };
    let pieces = Pieces::of(|sender| send(follower, form, sender));
    // Before 1.42 there was one name for both forms.
    Ok(pieces.answer(if tty || params.before((1, 42)) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    }))
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
struct Form {
    tty: bool,
    timestamps: bool,
    details: bool,
}

async fn send(mut follower: Follower, form: Form, sender: mpsc::Sender<Bytes>) {
    loop {
        match follower.next().await {
            Ok(Some(lines)) => {
                let mut piece = Vec::new();
                for line in lines {
                    write(&mut piece, &line, form);
                }
                if sender.send(Bytes::from(piece)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "a log cannot be read on");
                return;
            }
        }
    }
}

/// `name=value,…`, written as in a query.
fn details(line: &Line) -> String {
    let pair = |(name, value): (&String, &String)| format!("{}={}", escape(name), escape(value));
    line.marks.iter().map(pair).collect::<Vec<_>>().join(",")
}

fn write(out: &mut Vec<u8>, line: &Line, form: Form) {
    let mut text = String::new();
    if form.timestamps {
        text = stamp::rfc3339(line.time);
        text.push(' ');
    }
    if form.details {
        text.push_str(&details(line));
        text.push(' ');
    }
    text.push_str(&line.text);
    if form.tty {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(&frame(line.source == Source::Stderr, text.as_bytes()));
    }
}
