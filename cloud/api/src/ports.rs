//! What the API asks of other parts of the server; the binary brings them together.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future; the traits are used as objects.
pub type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;

/// An error of another part.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection to a port of a device.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The connected devices.
pub trait Notify: Send + Sync + 'static {
    /// Tells those of the devices that are connected to look at their target now. Does not wait.
    fn target_changed(&self, device_uuids: Vec<String>);
    /// The row of the device that has the tunnel of `uuid` open to this server. A tunnel may be older
    /// than the row that now has its uuid: it is of the row that its device showed the key of.
    fn device(&self, uuid: &str) -> Option<i64>;
    /// Connects to a TCP port of the device with that row.
    fn open_tcp<'a>(
        &'a self,
        device: i64,
        uuid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, BoxError>>;
}

/// What a registry token allows on one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAccess {
    /// The repository as the client names it.
    pub name: String,
    /// `pull`, `push`.
    pub actions: Vec<String>,
    /// The repository meant, where `name` is a second name for it.
    pub alias: Option<String>,
}

/// Signs tokens for the registry.
pub trait TokenSigner: Send + Sync + 'static {
    /// A token for `subject` with exactly this access.
    fn sign(&self, subject: &str, access: Vec<RegistryAccess>) -> Result<String, BoxError>;
}

/// All that the API is handed by the binary.
#[derive(Clone)]
pub struct Ports {
    /// The tunnel.
    pub notify: Arc<dyn Notify>,
    /// The registry's tokens.
    pub signer: Arc<dyn TokenSigner>,
}
