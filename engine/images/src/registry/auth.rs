//! Answering `WWW-Authenticate`: basic, or a bearer token fetched from the server that the challenge names.

use std::collections::HashMap;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use crate::options::Credentials;
use crate::registry::RegistryError;

/// The largest token answer accepted, in bytes.
pub(crate) const MAX_TOKEN: u64 = 256 << 10;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// What goes into `Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Authorization {
    Basic { username: String, password: String },
    Bearer(String),
}

/// A request with what is to go into its `Authorization`.
pub(crate) fn sign(request: RequestBuilder, with: Option<Authorization>) -> RequestBuilder {
    match with {
        Some(Authorization::Bearer(token)) => request.bearer_auth(token),
        Some(Authorization::Basic { username, password }) => {
            request.basic_auth(username, Some(password))
        }
        None => request,
    }
}

/// Whether an address is on the registry at `base`: same scheme, host and port.
pub(crate) fn is_own(base: &str, url: &Url) -> bool {
    Url::parse(base).is_ok_and(|base| base.origin() == url.origin())
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The challenge of a 401 answer; bearer wins if there are several.
pub(crate) fn challenge(headers: &HeaderMap) -> Result<Challenge, RegistryError> {
    let all: Vec<&str> = headers
        .get_all(reqwest::header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let parsed: Vec<Challenge> = all.iter().filter_map(|text| parse(text)).collect();
    let bearer = parsed.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    match bearer.or(parsed.first()) {
        Some(challenge) => Ok(challenge.clone()),
        None => Err(RegistryError::Challenge(all.join(", ").chars().take(200).collect())),
    }
}

fn parse(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

/// `key="value", key=value`; a quoted value may hold commas and escaped quotes.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let mut value = String::new();
        let mut characters = after.char_indices();
        let quoted = after.starts_with('"');
        if quoted {
            characters.next();
        }
        let mut end = after.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' if quoted => value.extend(characters.next().map(|(_, escaped)| escaped)),
                '"' if quoted => {
                    end = at + 1;
                    break;
                }
                ',' if !quoted => {
                    end = at;
                    break;
                }
                other => value.push(other),
            }
        }
        found.insert(key, value.trim().to_owned());
        rest = &after[end..];
    }
    found
}

/// The request that fetches a token, or what to send without asking anybody.
pub(crate) enum Answer {
    Ready(Authorization),
    Ask(Box<RequestBuilder>),
}

/// How to answer `challenge` for these `scopes`.
pub(crate) fn answer(
    client: &reqwest::Client,
    base: &str,
    challenge: Challenge,
    credentials: Option<&Credentials>,
    scopes: &[String],
) -> Result<Answer, RegistryError> {
    let (realm, service, scope) = match (challenge, credentials) {
        (_, Some(Credentials::RegistryToken(token))) => {
            return Ok(Answer::Ready(Authorization::Bearer(token.clone())));
        }
        (Challenge::Basic, Some(Credentials::Basic { username, password })) => {
            let (username, password) = (username.clone(), password.clone());
            return Ok(Answer::Ready(Authorization::Basic { username, password }));
        }
        (Challenge::Basic, _) => {
            return Err(RegistryError::Denied {
                what: base.to_owned(),
                detail: "no basic auth credentials".to_owned(),
            });
        }
        (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
    };
    let wrong = |why: &str| RegistryError::Challenge(format!("{why}: {realm}"));
    let mut url = Url::parse(&realm).map_err(|_| wrong("the realm is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("the realm is no web address"));
    }
    if base.starts_with("https:") && url.scheme() != "https" {
        return Err(wrong("the realm leads away from TLS"));
    }
    let mut all: Vec<String> = scopes.to_vec();
    all.extend(scope.into_iter().filter(|scope| !scopes.contains(scope)));
    if let Some(Credentials::IdentityToken(token)) = credentials {
        let scope = all.join(" ");
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "minke"),
            ("refresh_token", token),
            ("service", service.as_deref().unwrap_or_default()),
            ("scope", &scope),
        ];
        let request = client.post(url).header("content-type", "application/x-www-form-urlencoded");
        return Ok(Answer::Ask(Box::new(request.body(encode_form(&form)))));
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &service {
            query.append_pair("service", service);
        }
        for scope in &all {
            query.append_pair("scope", scope);
        }
        if let Some(Credentials::Basic { username, .. }) = credentials {
            query.append_pair("account", username);
        }
    }
    let request = client.get(url);
    Ok(Answer::Ask(Box::new(match credentials {
        Some(Credentials::Basic { username, password }) => {
            request.basic_auth(username, Some(password))
        }
        _ => request,
    })))
}

fn encode_form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("form:/").unwrap_or_else(|_| unreachable!("a constant URL"));
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// The token in a token server's answer.
pub(crate) fn token(body: &[u8]) -> Result<Authorization, RegistryError> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|error| {
        RegistryError::Document { what: "the token".to_owned(), why: error.to_string() }
    })?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
    token.map(Authorization::Bearer).ok_or_else(|| RegistryError::Document {
        what: "the token".to_owned(),
        why: "it has neither `token` nor `access_token`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        let text = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse(text),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".to_owned(),
                service: Some("reg".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse("Digest realm=\"x\""), None);
        assert_eq!(parse("Bearer service=x"), None);
    }

    #[test]
    fn reads_unquoted_and_escaped_parameters() {
        let found = parameters(r#"a=b, c="d\"e,f" ,g="#);
        assert_eq!(found["a"], "b");
        assert_eq!(found["c"], "d\"e,f");
        assert_eq!(found["g"], "");
    }
}
