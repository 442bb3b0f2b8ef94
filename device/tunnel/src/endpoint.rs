//! Whom to dial and as whom: read from `config.json`. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minke_common_model::config_json::ConfigJson;
use tokio_tungstenite::tungstenite::http::Uri;

/// A server, and this device's identity there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) server: Server,
    pub(crate) uuid: String,
    pub(crate) key: String,
    /// PEM certificates of the server's own CA.
    pub(crate) root_ca: Option<Vec<u8>>,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands between host and `/tunnel`, without a slash at its end.
    pub(crate) path: String,
}

/// Why `config.json` names nobody to dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEndpoint {
    #[error("the device is not provisioned yet")]
    NotProvisioned,
    #[error("config.json names no server")]
    NoServer,
    #[error("apiEndpoint `{0}` is not an http:// or https:// address")]
    Address(String),
    #[error("balenaRootCA in config.json is not base64")]
    RootCa,
}

impl Endpoint {
    /// A key is only used when the server knows it: before, every dial would be refused.
    pub(crate) fn of(config: &ConfigJson) -> Result<Self, NoEndpoint> {
        let address = config.endpoint().ok_or(NoEndpoint::NoServer)?;
        let uuid = config.uuid.as_ref().ok_or(NoEndpoint::NotProvisioned)?;
        let key = config.device_api_key.as_ref().ok_or(NoEndpoint::NotProvisioned)?;
        if !config.is_provisioned() {
            return Err(NoEndpoint::NotProvisioned);
        }
        let root_ca = config.other.get("balenaRootCA").and_then(|value| value.as_str());
        let root_ca = root_ca.filter(|text| !text.is_empty()).map(|text| STANDARD.decode(text));
        Ok(Self {
            server: Server::parse(address)?,
            uuid: uuid.to_string(),
            key: key.clone(),
            root_ca: root_ca.transpose().map_err(|_| NoEndpoint::RootCa)?,
        })
    }
}

impl Server {
    pub(crate) fn parse(address: &str) -> Result<Self, NoEndpoint> {
        let wrong = || NoEndpoint::Address(address.chars().take(200).collect());
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port, as headers and proxies want them.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ConfigJson {
        ConfigJson::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn addresses() {
        let server = Server::parse("https://api.example.com/minke/").unwrap();
        assert_eq!(server.authority(), "api.example.com:443");
        assert_eq!((server.tls, server.path.as_str()), (true, "/minke"));
        let server = Server::parse("http://[fd00::1]:8080").unwrap();
        assert_eq!(server.authority(), "[fd00::1]:8080");
        for wrong in ["", "example.com", "ftp://x", "http://", "http:///x", "http://a b"] {
            assert!(Server::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unprovisioned_device_dials_nobody() {
        let ready = r#"{"apiEndpoint":"http://s:1","uuid":"ab","deviceApiKey":"k","deviceId":1,
                        "registered_at":1}"#;
        let endpoint = Endpoint::of(&config(ready)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((endpoint.uuid.as_str(), endpoint.key.as_str()), ("ab", "k"));
        for (without, error) in [
            (r#"{"apiEndpoint":""}"#, NoEndpoint::NoServer),
            (r#"{"apiEndpoint":"http://s"}"#, NoEndpoint::NotProvisioned),
            (
                r#"{"apiEndpoint":"http://s","uuid":"ab","deviceApiKey":"k"}"#,
                NoEndpoint::NotProvisioned,
            ),
        ] {
            assert_eq!(Endpoint::of(&config(without)).err(), Some(error), "{without}");
        }
    }
}
