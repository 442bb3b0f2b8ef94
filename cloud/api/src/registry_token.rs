//! Tokens for the registry: `GET /auth/v1/token`.
//!
//! A client names what it wants to do; the token lists the part of it that the caller may do. Nothing
//! asked or nothing granted gives a token that allows nothing, which is what `docker login` wants.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minke_cloud_fleet::{Role, Verb};
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::{Identity, credential};
use crate::ports::RegistryAccess;
use crate::{image_location, query, rows};

/// Repositories in one request; a release of 200 services and its predecessor's fit.
const MAX_SCOPES: usize = 512;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    repository: String,
    pull: bool,
    push: bool,
}

impl Scope {
    /// Reads `repository:<name>:<action>,…`; `None` for what is no repository.
    fn read(text: &str) -> Option<Scope> {
        let rest = text.strip_prefix("repository:")?;
        let (repository, actions) = rest.rsplit_once(':')?;
        let asks = |action| actions.split(',').any(|asked| asked == action || asked == "*");
        (repository.len() <= 255).then(|| Scope {
            repository: repository.to_owned(),
            pull: asks("pull"),
            push: asks("push"),
        })
    }
}

/// The scopes of a query string: `scope` may repeat, be numbered, and hold several with spaces.
fn scopes(raw: &str) -> Result<Vec<Scope>, ApiError> {
    let mut scopes: Vec<Scope> = Vec::new();
    for (name, value) in query::pairs(raw) {
        if name == "scope" || (name.starts_with("scope[") && name.ends_with(']')) {
            scopes.extend(value.split_whitespace().filter_map(Scope::read));
        }
    }
    if scopes.len() > MAX_SCOPES {
        return Err(ApiError::bad(format!("a token is for at most {MAX_SCOPES} repositories")));
    }
    Ok(scopes)
}

/// Name and password of a `Basic` header.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || text.len() > 16 * 1024 {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// `GET /auth/v1/token`.
pub(crate) async fn token(
    State(api): State<Api>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Result<Json<Value>, ApiError> {
    let scopes = scopes(raw.as_deref().unwrap_or(""))?;
    let identity = match basic(&headers) {
        Some((name, password)) => Some(api.identify_basic(&name, &password).await?),
        None => match credential(&headers, &uri)? {
            Some(credential) => Some(api.identify(&credential).await?),
            None => None,
        },
    };
    let mut access = Vec::new();
    if let Some(identity) = &identity {
        for scope in &scopes {
            access.extend(api.grant(identity, scope).await?);
        }
    }
    let subject = identity.map_or_else(String::new, |identity| identity.actor.to_string());
    let token = api
        .ports
        .signer
        .sign(&subject, access)
        .map_err(|error| ApiError::internal("signing a registry token", error))?;
    Ok(Json(json!({"token": token, "access_token": token})))
}

impl Api {
    /// A device as `d_<uuid>` with its key, or anybody's name with a token or key of theirs.
    async fn identify_basic(&self, name: &str, password: &str) -> Result<Identity, ApiError> {
        let identity = self.identify(password).await?;
        if let Some(uuid) = name.strip_prefix("d_") {
            let device = self.device(&identity.caller, uuid).await?;
            if identity.role != Role::Device || device.actor != identity.actor {
                return Err(ApiError::unauthorized());
            }
        }
        Ok(identity)
    }

    /// The part of `scope` that the caller may do.
    async fn grant(
        &self,
        identity: &Identity,
        scope: &Scope,
    ) -> Result<Option<RegistryAccess>, ApiError> {
        let Some(place) = image_location::path(&scope.repository) else {
            return self.grant_alias(identity, scope).await;
        };
        let query = format!(
            "image?$select=id&$top=1&$filter=is_stored_at__image_location eq {}",
            query::literal(place)
        );
        let mut actions = Vec::new();
        if scope.pull && self.row(&identity.caller, &query).await?.is_some() {
            actions.push("pull".to_owned());
        }
        // A device runs images and never makes one.
        if scope.push
            && identity.role == Role::User
            && self.row(&identity.who_may(Verb::Update), &query).await?.is_some()
        {
            actions.push("push".to_owned());
        }
        let name = scope.repository.clone();
        Ok((!actions.is_empty()).then_some(RegistryAccess { name, actions, alias: None }))
    }

    /// Second names of images, to pull only: `<org>/<fleet>`, which may be followed by `/latest`,
    /// `/current` or a commit, for releases of one service.
    async fn grant_alias(
        &self,
        identity: &Identity,
        scope: &Scope,
    ) -> Result<Option<RegistryAccess>, ApiError> {
        let parts: Vec<&str> = scope.repository.split('/').collect();
        let (slug, which) = match parts[..] {
            [organization, fleet] => (format!("{organization}/{fleet}"), "latest"),
            [organization, fleet, which] => (format!("{organization}/{fleet}"), which),
            _ => return Ok(None),
        };
        if !scope.pull {
            return Ok(None);
        }
        let release = match which {
            "current" | "default" => {
                format!(
                    "should_be_running_on__application/any(a:a/slug eq {})",
                    query::literal(&slug)
                )
            }
            _ => format!("belongs_to__application/any(a:a/slug eq {})", query::literal(&slug)),
        };
        let commit = match which {
            "latest" | "current" | "default" => String::new(),
            commit => format!(" and commit eq {}", query::literal(commit)),
        };
        let query = format!(
            "release?$select=id&$top=1&$orderby=start_timestamp desc&$filter={release} and status eq 'success'{commit}&$expand=release_image($expand=image($select=is_stored_at__image_location))"
        );
        let Some(release) = self.row(&identity.caller, &query).await? else { return Ok(None) };
        let images = release["release_image"].as_array().map_or(&[][..], Vec::as_slice);
        let [image] = images else { return Ok(None) };
        let place = rows::text(&image["image"][0], "is_stored_at__image_location");
        Ok(Some(RegistryAccess {
            name: scope.repository.clone(),
            actions: vec!["pull".to_owned()],
            alias: Some(place.to_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn scopes_come_in_three_spellings() {
        let expected = |name: &str| Scope { repository: name.to_owned(), pull: true, push: false };
        let read = scopes("service=s&scope=repository:a:pull&scope[1]=repository:b:pull%20repository:c:pull&scope=registry:catalog:*").unwrap();
        assert_eq!(read, [expected("a"), expected("b"), expected("c")]);
        let push = Scope::read("repository:h:5000/x:pull,push").unwrap();
        assert_eq!((push.repository.as_str(), push.push), ("h:5000/x", true));
        let many = "scope=repository:a:pull&".repeat(200);
        assert_eq!(scopes(&many).unwrap().len(), 200);
        let long = format!("scope={}", "repository:a:pull+".repeat(600));
        assert!(scopes(&long).unwrap_err().to_string().contains("512"));
    }

    #[test]
    fn a_basic_header_is_a_name_and_a_password() {
        let headers = |value| {
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])
        };
        assert_eq!(
            basic(&headers("Basic ZF9hYjprZXk6MQ==")),
            Some(("d_ab".to_owned(), "key:1".to_owned()))
        );
        assert_eq!(basic(&headers("Basic !!")), None);
        assert_eq!(basic(&headers("Bearer ZF9hYjprZXk6MQ==")), None);
    }
}
