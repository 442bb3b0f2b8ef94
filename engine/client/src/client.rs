//! Calls to an engine over its unix socket, one file per chapter of the API.

mod build;
mod containers;
mod engine;
mod exec;
mod images;
mod networks;
mod system;
mod verify;
mod volumes;

use std::path::Path;
use std::sync::Arc;

use hyper::Method;

use crate::transport::Call;

pub use build::BuildImage;
pub use containers::WaitFor;
pub use exec::ExecOutcome;

/// An engine behind a unix socket. Cheap to clone; every call has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<Path>,
}

impl Client {
    /// The engine whose socket is at `path`. Nothing is connected yet.
    pub fn unix(path: impl AsRef<Path>) -> Client {
        Client { socket: Arc::from(path.as_ref()) }
    }

    /// The engine named by a `unix:///path` address.
    pub fn from_address(address: &str) -> Option<Client> {
        address.strip_prefix("unix://").map(Client::unix)
    }

    /// Where the engine's socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn get(&self, path: String) -> Call {
        Call::new(&self.socket, Method::GET, path)
    }

    fn post(&self, path: String) -> Call {
        Call::new(&self.socket, Method::POST, path)
    }

    fn delete(&self, path: String) -> Call {
        Call::new(&self.socket, Method::DELETE, path)
    }
}

/// `None` for a thing that does not exist.
fn optional<T>(result: Result<T, crate::Error>) -> Result<Option<T>, crate::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
