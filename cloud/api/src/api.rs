//! The API as one value: what every endpoint shares.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minke_cloud_db::Db;
use minke_cloud_fleet::device_state;
use minke_cloud_logs::Logs;
use tokio::sync::Semaphore;

use crate::ports::Ports;
use crate::rate_limit::RateLimit;
use crate::session::Sessions;

/// What a server is told about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The one address of the server, such as `http://10.0.0.1:8080`, without a slash at its end.
    pub public_url: String,
    /// What signs the sessions: 32 random bytes or more that stay the same over restarts.
    pub session_secret: Vec<u8>,
    /// The shortest poll interval that devices are told.
    pub min_poll_interval: Duration,
    /// The server's own certificate authority in PEM, where it has one.
    pub root_certificate: Option<String>,
}

/// Why an address cannot be the one of a server.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not the address of a server: it must be http:// or https://, a host, and nothing behind it but a port"
)]
pub struct PublicUrlError(String);

impl Settings {
    /// Settings for a server at `public_url`.
    pub fn new(public_url: &str, session_secret: Vec<u8>) -> Result<Settings, PublicUrlError> {
        let settings = Settings {
            public_url: public_url.trim_end_matches('/').to_owned(),
            session_secret,
            min_poll_interval: Duration::from_secs(10),
            root_certificate: None,
        };
        let host = settings.host_and_port();
        let is_host = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        let has_scheme =
            ["http://", "https://"].iter().any(|scheme| settings.public_url.starts_with(scheme));
        if is_host && has_scheme {
            Ok(settings)
        } else {
            Err(PublicUrlError(public_url.to_owned()))
        }
    }

    /// Whether clients reach the server without TLS.
    pub fn is_plain_http(&self) -> bool {
        self.public_url.starts_with("http://")
    }

    fn host_and_port(&self) -> &str {
        self.public_url.split_once("://").map_or("", |(_, rest)| rest)
    }

    /// The host without its port.
    pub fn host(&self) -> &str {
        let host = self.host_and_port();
        match host.rfind(':') {
            Some(colon) if !host[colon..].contains(']') => &host[..colon],
            _ => host,
        }
    }

    /// What stands before an image's place: the host, with its port unless that is the scheme's own.
    pub fn registry_host(&self) -> String {
        let host = self.host_and_port();
        let own = if self.is_plain_http() { ":80" } else { ":443" };
        host.strip_suffix(own).unwrap_or(host).to_owned()
    }
}

/// The API; cheap to clone.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

/// What the clones share.
pub struct Inner {
    pub(crate) db: Db,
    pub(crate) logs: Logs,
    pub(crate) settings: Settings,
    pub(crate) ports: Ports,
    pub(crate) sessions: Sessions,
    pub(crate) registry_host: String,
    pub(crate) login_limit: RateLimit,
    pub(crate) log_limit: RateLimit,
    /// Hashing a password takes 19 MB: at most so many at once.
    pub(crate) hashing: Semaphore,
    /// When metrics of a device were last written.
    pub(crate) metrics: Mutex<HashMap<i64, Instant>>,
}

impl Deref for Api {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Tries to log in to one account within [`LOGIN_WINDOW`].
const LOGIN_TRIES: u32 = 10;
const LOGIN_WINDOW: Duration = Duration::from_secs(2 * 60 * 60);
/// Batches of log lines of one device within ten seconds.
const LOG_BATCHES: u32 = 15;

impl Api {
    /// Brings the parts together.
    pub fn new(db: Db, logs: Logs, settings: Settings, ports: Ports) -> Api {
        let inner = Inner {
            sessions: Sessions::new(&settings.session_secret),
            registry_host: settings.registry_host(),
            login_limit: RateLimit::new("logging in", LOGIN_TRIES, LOGIN_WINDOW),
            log_limit: RateLimit::new("sending logs", LOG_BATCHES, Duration::from_secs(10)),
            hashing: Semaphore::new(2),
            metrics: Mutex::default(),
            db,
            logs,
            settings,
            ports,
        };
        Api { inner: Arc::new(inner) }
    }

    /// The rows.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What the server was told about itself.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn state_options(&self) -> device_state::Options {
        device_state::Options {
            registry_host: self.registry_host.clone(),
            min_poll_interval: self.settings.min_poll_interval.as_millis() as u64,
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_a_host() {
        let settings = |url| Settings::new(url, vec![0; 32]);
        assert_eq!(settings("http://10.0.0.1:8080/").unwrap().registry_host(), "10.0.0.1:8080");
        assert_eq!(settings("https://fleet.example").unwrap().registry_host(), "fleet.example");
        assert_eq!(settings("https://f.example:443").unwrap().registry_host(), "f.example");
        assert_eq!(settings("http://[::1]:80").unwrap().host(), "[::1]");
        for bad in ["", "10.0.0.1:8080", "http://", "ftp://x", "http://a/b", "http://a b"] {
            assert!(settings(bad).is_err(), "{bad:?} was taken");
        }
    }
}
