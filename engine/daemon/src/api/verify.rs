//! `POST /minke/verify`: a call of this engine only. Looks for damage in the image store.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use minke_engine_client::wire::VerifyLine;
use tokio::sync::mpsc;

use super::params::Params;
use super::reply::{Pieces, line};
use crate::daemon::Daemon;
use crate::documents::Kept;
use crate::error::Result;

/// Lines that wait for a slow client; beyond, lines that only say how far it is are left out.
const WAITING: usize = 64;

pub(super) async fn verify(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let repair = params.flag("repair").then(|| daemon.pull_options());
    let pieces = Pieces::of(|sender| async move {
        let (lines, mut queue) = mpsc::channel(WAITING);
        let kept = Kept { data: &daemon.options.data, daemon: Some(&daemon) };
        let work = crate::verify::run(&daemon.images, kept, repair, move |told| {
            let _ = lines.try_send(line(&told));
        });
        let send = async {
            while let Some(line) = queue.recv().await {
                // A client that is gone ends all of this: it is dropped.
                let _ = sender.send(line).await;
            }
        };
        let (result, ()) = tokio::join!(work, send);
        let last = match result {
            Ok(report) => VerifyLine { report: Some(report), ..VerifyLine::default() },
            Err(error) => {
                let error = Some(minke_engine_images::chain(&error));
                VerifyLine { error, ..VerifyLine::default() }
            }
        };
        let _ = sender.send(line(&last)).await;
    });
    Ok(pieces.answer("application/json"))
}
