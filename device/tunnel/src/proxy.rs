//! Proxies named by the environment, as other programs read it. Pure but for [`Proxies::from_env`].
//!
//! `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`; the upper-case spellings count
//! where the lower-case one is absent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::endpoint::Server;

/// The environment's proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    all: Option<String>,
    none_for: String,
}

/// One HTTP proxy that understands `CONNECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of `Proxy-Authorization`.
    pub(crate) authorization: Option<String>,
}

impl Proxies {
    pub(crate) fn from_env() -> Self {
        let read = |name: &str| {
            let value = std::env::var(name).or_else(|_| std::env::var(name.to_uppercase()));
            value.ok().filter(|value| !value.is_empty())
        };
        Self {
            http: read("http_proxy"),
            https: read("https_proxy"),
            all: read("all_proxy"),
            none_for: read("no_proxy").unwrap_or_default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_all(address: &str) -> Self {
        Self { all: Some(address.to_owned()), ..Self::default() }
    }

    /// The proxy through which `server` is reached; `None` to go straight there.
    pub(crate) fn proxy_for(&self, server: &Server) -> Option<Proxy> {
        if self.none_for.split(',').any(|rule| excludes(rule.trim(), &server.host)) {
            return None;
        }
        let named = if server.tls { &self.https } else { &self.http };
        let address = named.as_ref().or(self.all.as_ref())?;
        let proxy = parse(address);
        if proxy.is_none() {
            tracing::warn!("a proxy in the environment is not an http:// address; it is ignored");
        }
        proxy
    }
}

fn excludes(rule: &str, host: &str) -> bool {
    let domain = rule.trim_start_matches("*.").trim_start_matches('.');
    rule == "*"
        || (!domain.is_empty()
            && (host == domain
                || host.strip_suffix(domain).is_some_and(|before| before.ends_with('.'))))
}

fn parse(address: &str) -> Option<Proxy> {
    let with_scheme = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let uri: Uri = with_scheme.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let authority = uri.authority()?.as_str();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    Some(Proxy {
        host: uri.host()?.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(80),
        authorization: user.map(|user| format!("Basic {}", STANDARD.encode(user))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> Server {
        Server::parse(address).unwrap()
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = Proxies {
            http: Some("proxy:3128".to_owned()),
            https: None,
            all: Some("http://user:pw@other".to_owned()),
            none_for: "localhost, .internal,10.0.0.1".to_owned(),
        };
        let plain = proxies.proxy_for(&server("http://server")).unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.authorization), ("proxy", 3128, None));
        let tls = proxies.proxy_for(&server("https://server")).unwrap();
        let expected = Some("Basic dXNlcjpwdw==".to_owned());
        assert_eq!((tls.host.as_str(), tls.port, tls.authorization), ("other", 80, expected));
        for direct in
            ["http://localhost", "https://a.internal", "http://internal", "http://10.0.0.1"]
        {
            assert_eq!(proxies.proxy_for(&server(direct)), None, "{direct}");
        }
        assert!(proxies.proxy_for(&server("http://notinternal")).is_some());
    }

    #[test]
    fn a_proxy_of_another_kind_is_ignored() {
        let proxies = Proxies { all: Some("socks5://x".to_owned()), ..Proxies::default() };
        assert_eq!(proxies.proxy_for(&server("http://server")), None);
    }
}
