//! What this crate asks of the rest of the server.

use futures_util::future::BoxFuture;

/// The row id of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId(pub i64);

/// Devices as the database knows them.
pub trait DeviceAuth: Send + Sync + 'static {
    /// The device `uuid`, when `key` is its device key.
    fn authenticate<'a>(&'a self, uuid: &'a str, key: &'a str) -> BoxFuture<'a, Option<DeviceId>>;

    /// The device's tunnel is up, or has been down for the grace time. Never called twice at
    /// once for one device. Returns when it is kept: it is not said again.
    fn connected<'a>(&'a self, uuid: &'a str, connected: bool) -> BoxFuture<'a, ()>;
}

/// What a client of `CONNECT` sent in `Proxy-Authorization: Basic`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name, or `root`.
    pub user: String,
    /// A token or an API key.
    pub token: String,
}

/// Whether somebody may reach a port of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// The credentials do not hold (407).
    Unauthorized,
    /// They hold, but not for this (403); also for a device that the caller may not see.
    Forbidden,
}

/// Who may reach which port.
pub trait ConnectAuth: Send + Sync + 'static {
    /// Decides about one `CONNECT`.
    fn may_connect<'a>(
        &'a self,
        credentials: &'a Credentials,
        uuid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Verdict>;
}
