//! Pushes pass a gate, so that it can be known that none runs.
//!
//! A push looks for its base images long before it uses them: whoever removes images closes the gate
//! first, and a push that comes meanwhile waits.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::sync::{RwLock, RwLockWriteGuard};

/// The gate in front of a builder. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    /// Read by every push that is answered.
    passing: Arc<RwLock<()>>,
    /// Where every push has a directory until its end; some go on after their answer.
    projects: Arc<PathBuf>,
}

impl Gate {
    /// A gate for the builder that unpacks projects in this directory.
    pub fn new(projects: PathBuf) -> Gate {
        Gate { passing: Arc::default(), projects: Arc::new(projects) }
    }

    /// The same routes, behind the gate.
    pub fn before(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), pass))
    }

    /// Closes the gate until the guard is dropped; `None` while a push runs.
    pub async fn close(&self) -> io::Result<Option<RwLockWriteGuard<'_, ()>>> {
        let Ok(closed) = self.passing.try_write() else { return Ok(None) };
        let mut running = tokio::fs::read_dir(&*self.projects).await?;
        Ok(running.next_entry().await?.is_none().then_some(closed))
    }
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let passing = gate.passing.read_owned().await;
    next.run(request).await.map(|body| {
        let pieces = body.into_data_stream().map(move |piece| {
            let _until_the_last = &passing;
            piece
        });
        Body::from_stream(pieces)
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use axum::body::Bytes;
    use axum::routing::post;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// An answer that has as many pieces as the test sends.
    fn route(pieces: mpsc::Receiver<&'static str>) -> Router {
        let pieces = futures_util::stream::unfold(pieces, async |mut pieces| {
            Some((Ok::<_, Infallible>(Bytes::from(pieces.recv().await?)), pieces))
        });
        let body = Arc::new(std::sync::Mutex::new(Some(Body::from_stream(pieces))));
        let answer = move || {
            let body = body.lock().unwrap().take();
            std::future::ready(body.unwrap_or_default())
        };
        Router::new().route("/v3/build", post(answer))
    }

    #[tokio::test]
    async fn the_gate_closes_only_when_no_push_runs_and_a_push_waits_at_it() {
        // The client wants one, though nothing here speaks TLS; another test may have been faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let projects = tempfile::tempdir().unwrap();
        let gate = Gate::new(projects.path().to_owned());
        let (pieces, receiver) = mpsc::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v3/build", listener.local_addr().unwrap());
        let routes = gate.before(route(receiver));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let push = async || reqwest::Client::new().post(&url).send().await.unwrap();

        let mut first = push().await;
        pieces.send("one").await.unwrap();
        assert_eq!(first.chunk().await.unwrap().unwrap(), "one");
        assert!(gate.close().await.unwrap().is_none(), "an answer is on its way");
        drop(pieces);
        assert_eq!(first.chunk().await.unwrap(), None);

        // One that was answered at its start has its directory still.
        let project = tempfile::tempdir_in(&projects).unwrap();
        // The server lets go of an answer after its last byte.
        while gate.passing.try_write().is_err() {
            tokio::task::yield_now().await;
        }
        assert!(gate.close().await.unwrap().is_none(), "a project is there");
        project.close().unwrap();

        let closed = gate.close().await.unwrap().expect("nothing runs");
        let waited = tokio::time::timeout(Duration::from_millis(300), push()).await;
        assert!(waited.is_err(), "a push passed the closed gate");
        drop(closed);
        assert!(push().await.status().is_success());
    }
}
