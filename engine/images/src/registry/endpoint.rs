//! Where the images of a registry are: mirrors first, then the registry itself, with or without TLS.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use minke_common_model::image_reference::{DEFAULT_REGISTRY, ImageReference};

use crate::registry::RegistryError;

/// Docker Hub's registry answers under another name than its images carry.
const DOCKER_HUB: &str = "https://registry-1.docker.io";

/// One address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme, host and port, without a slash at the end.
    pub base: String,
    /// It only copies the registry: no credentials go there and its failures do not matter.
    pub is_mirror: bool,
    /// Certificates are not checked.
    pub any_certificate: bool,
}

/// Where to ask for `reference`, in order.
pub fn endpoints(
    reference: &ImageReference,
    mirrors: &[String],
    insecure: &[String],
) -> Vec<Endpoint> {
    let registry = reference.registry();
    let real = |base: String, any_certificate| Endpoint { base, is_mirror: false, any_certificate };
    if registry == DEFAULT_REGISTRY {
        let mirrors = mirrors.iter().map(|mirror| Endpoint {
            base: with_scheme(mirror),
            is_mirror: true,
            any_certificate: false,
        });
        return mirrors.chain([real(DOCKER_HUB.to_owned(), false)]).collect();
    }
    if insecure.iter().any(|host| host == registry) || is_loopback(registry) {
        vec![real(format!("https://{registry}"), true), real(format!("http://{registry}"), true)]
    } else {
        vec![real(format!("https://{registry}"), false)]
    }
}

fn with_scheme(mirror: &str) -> String {
    let mirror = mirror.trim_end_matches('/');
    if mirror.contains("://") { mirror.to_owned() } else { format!("https://{mirror}") }
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The HTTP clients of a store, made when first needed: certificates take time and memory to load.
#[derive(Default)]
pub struct Clients {
    checking: OnceLock<reqwest::Client>,
    trusting: OnceLock<reqwest::Client>,
}

impl Clients {
    /// The client for `endpoint`.
    pub fn get(
        &self,
        endpoint: &Endpoint,
        connect: Duration,
    ) -> Result<reqwest::Client, RegistryError> {
        let cell = if endpoint.any_certificate { &self.trusting } else { &self.checking };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let client = build(endpoint.any_certificate, connect)?;
        Ok(cell.get_or_init(|| client).clone())
    }
}

fn build(any_certificate: bool, connect: Duration) -> Result<reqwest::Client, RegistryError> {
    // Fails only if a provider was installed before: that one is used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > 10 {
            attempt.error("more than 10 redirects")
        } else if from_tls && attempt.url().scheme() != "https" {
            attempt.error("a redirect leads away from TLS")
        } else {
            attempt.follow()
        }
    });
    reqwest::Client::builder()
        .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(4)
        .redirect(redirects)
        .tls_danger_accept_invalid_certs(any_certificate)
        .build()
        .map_err(RegistryError::Client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(name: &str, mirrors: &[&str], insecure: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let found = endpoints(&name.parse().unwrap(), &owned(mirrors), &owned(insecure));
        found.into_iter().map(|endpoint| endpoint.base).collect()
    }

    #[test]
    fn mirrors_come_first_and_only_for_docker_hub() {
        assert_eq!(bases("busybox", &["http://m:1/"], &[]), ["http://m:1", DOCKER_HUB]);
        assert_eq!(bases("r.example/x", &["http://m:1"], &[]), ["https://r.example"]);
    }

    #[test]
    fn plain_http_needs_leave_or_loopback() {
        assert_eq!(bases("10.1.2.3:80/x", &[], &[]), ["https://10.1.2.3:80"]);
        let both = ["https://10.1.2.3:80", "http://10.1.2.3:80"];
        assert_eq!(bases("10.1.2.3:80/x", &[], &["10.1.2.3:80"]), both);
        assert_eq!(bases("[::1]:5000/x", &[], &[]).len(), 2);
        assert_eq!(bases("localhost:5000/x", &[], &[]).len(), 2);
        assert_eq!(bases("127.example:5000/x", &[], &[]).len(), 1);
    }
}
