//! `/auth`, `/distribution` and `/images/search`: questions that are passed on to registries.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use minke_engine_client::wire::RegistryAuth;
use minke_engine_images::{ErrorKind, Found, Platform};
use serde_json::{Value, json};

use super::filters::{Filters, invalid};
use super::params::{JsonBody, Params};
use super::reply::json as reply;
use super::transfer::{credentials, credentials_of, reference};
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// What Docker Hub is called in names of images.
const HUB: &str = "docker.io";
/// Results of a search, unless the client says another number; and the most.
const SEARCH_RESULTS: u32 = 25;
const MOST_RESULTS: u32 = 100;

/// `POST /auth`: asks the registry whether it knows these credentials.
pub(super) async fn auth(
    State(daemon): State<Daemon>,
    JsonBody(body): JsonBody<RegistryAuth>,
) -> Result<Response<Body>> {
    let registry = registry_of(&body.serveraddress);
    let credentials = credentials_of(body);
    let options = daemon.pull_options();
    match daemon.images.check_login(&registry, credentials.as_ref(), &options).await {
        Ok(()) => Ok(reply(&json!({ "IdentityToken": "", "Status": "Login Succeeded" }))),
        Err(error) if error.kind() == ErrorKind::Denied => {
            let why = minke_engine_images::chain(&error);
            Err(Error::Unauthorized(format!("login attempt to {registry} failed: {why}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// The host of an address that clients write in many ways; Docker Hub's is that of its images.
fn registry_of(address: &str) -> String {
    let plain = address.split_once("://").map_or(address, |(_, rest)| rest);
    match plain.split('/').next().unwrap_or_default() {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// `GET /distribution/{name}/json`; the name may have slashes.
pub(super) async fn distribution(
    State(daemon): State<Daemon>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>> {
    let Some(name) = rest.strip_suffix("/json") else {
        return Err(Error::NotFound(format!("GET /distribution/{rest} is not a call")));
    };
    let reference = reference(name, "")?;
    let mut options = daemon.pull_options();
    options.auth = credentials(&headers)?;
    let offer = match daemon.images.offer(&reference, &options).await {
        Err(error) if error.kind() == ErrorKind::Denied => {
            return Err(Error::Unauthorized(minke_engine_images::chain(&error)));
        }
        offer => offer?,
    };
    let platforms: Vec<Value> = offer.platforms.iter().map(platform).collect();
    Ok(reply(&json!({
        "Descriptor": {
            "mediaType": offer.media_type,
            "digest": offer.digest,
            "size": offer.size,
        },
        "Platforms": platforms,
    })))
}

fn platform(platform: &Platform) -> Value {
    let mut value = json!({ "architecture": platform.architecture, "os": platform.os });
    if let Some(variant) = &platform.variant {
        value["variant"] = variant.as_str().into();
    }
    value
}

/// `GET /images/search`.
pub(super) async fn search(
    State(daemon): State<Daemon>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response<Body>> {
    let term = params.text("term").unwrap_or_default();
    if term.is_empty() {
        return Err(Error::Invalid("the parameter term is missing".to_owned()));
    }
    let limit = params.number::<u32>("limit")?.filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(SEARCH_RESULTS);
    if limit > MOST_RESULTS {
        return Err(Error::Invalid(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let filters = params.filters()?;
    filters.check(&["is-automated", "is-official", "stars"])?;
    let wanted = Wanted::read(&filters)?;
    let (registry, words) = split_term(term);
    let mut options = daemon.pull_options();
    options.auth = credentials(&headers)?;
    let mut found = daemon.images.search(registry, words, limit, &options).await?;
    found.retain(|one| wanted.takes(one));
    found.truncate(limit as usize);
    Ok(reply(&found))
}

/// `host:port/words` asks that registry, everything else Docker Hub.
fn split_term(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, words)) if host == "localhost" || host.contains(['.', ':']) => match host {
            "docker.io" | "index.docker.io" => (HUB, words),
            host => (host, words),
        },
        _ => (HUB, term),
    }
}

/// The filters of a search.
struct Wanted {
    official: Option<bool>,
    automated: Option<bool>,
    stars: i64,
}

impl Wanted {
    fn read(filters: &Filters) -> Result<Wanted> {
        let mut stars = 0;
        for text in filters.all("stars") {
            stars = stars.max(text.parse::<i64>().map_err(|_| invalid("stars", text))?);
        }
        let (official, automated) =
            (filters.switch("is-official")?, filters.switch("is-automated")?);
        Ok(Wanted { official, automated, stars })
    }

    fn takes(&self, found: &Found) -> bool {
        self.official.is_none_or(|wanted| wanted == found.is_official)
            && self.automated.is_none_or(|wanted| wanted == found.is_automated)
            && found.star_count >= self.stars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_registries_are_hosts() {
        for hub in ["", "https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
            assert_eq!(registry_of(hub), "docker.io");
        }
        assert_eq!(registry_of("http://127.0.0.1:5000/v2/"), "127.0.0.1:5000");
        assert_eq!(registry_of("registry.example"), "registry.example");
    }

    #[test]
    fn a_search_says_its_registry_in_front() {
        assert_eq!(split_term("busybox"), ("docker.io", "busybox"));
        assert_eq!(split_term("team/app"), ("docker.io", "team/app"));
        assert_eq!(split_term("localhost:5000/app"), ("localhost:5000", "app"));
        let wanted = |text: &str| Wanted::read(&Filters::parse(text).unwrap());
        assert!(wanted(r#"{"stars":["x"]}"#).is_err());
        let wanted = wanted(r#"{"is-official":["true"]}"#).unwrap();
        assert!(!wanted.takes(&Found::default()));
        assert!(wanted.takes(&Found { is_official: true, ..Found::default() }));
    }
}
