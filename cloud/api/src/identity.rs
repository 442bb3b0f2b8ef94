//! Who sends a request, as its credential shows.
//!
//! A credential is a session's token or an API key, in the `Authorization` header or in `?apikey=`.
//! One that does not hold is always answered 401, also where none would be needed.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use minke_cloud_db::Caller;
use minke_cloud_fleet::{Role, Verb};

use crate::api::{Api, now_ms};
use crate::error::ApiError;
use crate::session::{self, Claims, SUDO_WINDOW};
use crate::{query, secrets};

/// Longest credential that is looked at, in bytes.
const MAX_CREDENTIAL: usize = 8192;

/// A caller who showed a credential that holds.
#[derive(Clone)]
pub struct Identity {
    /// What the caller may see and write.
    pub caller: Caller,
    /// The caller's actor row.
    pub actor: i64,
    /// The kind of caller.
    pub role: Role,
    /// The session, unless the credential is a key.
    pub session: Option<Claims>,
    /// When the key that was shown expires, in milliseconds since the epoch.
    pub expires_ms: Option<i64>,
}

impl Identity {
    /// The same caller, whose reads show only what they may do `verb` to.
    pub fn who_may(&self, verb: Verb) -> Caller {
        self.caller.who_may(verb)
    }
}

/// A caller without a credential.
pub(crate) fn anybody() -> Caller {
    Caller::anonymous()
}

/// The credential of a request, if there is one.
pub(crate) fn credential(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, ApiError> {
    let found = match headers.get(header::AUTHORIZATION) {
        None => query::value(uri.query(), "apikey"),
        Some(value) => {
            let text = value.to_str().map_err(|_| ApiError::unauthorized())?;
            let (scheme, rest) = text.split_once(' ').ok_or_else(ApiError::unauthorized)?;
            let is_known = ["bearer", "apikey", "token"].contains(&scheme.to_lowercase().as_str());
            if !is_known {
                return Err(ApiError::unauthorized());
            }
            Some(rest.trim().to_owned())
        }
    };
    match found {
        Some(text) if text.len() > MAX_CREDENTIAL => Err(ApiError::unauthorized()),
        found => Ok(found.filter(|text| !text.is_empty())),
    }
}

impl Api {
    /// Who showed this session token or API key; 401 if it does not hold.
    pub async fn identify(&self, credential: &str) -> Result<Identity, ApiError> {
        if session::is_token(credential) {
            return self.identify_session(credential).await;
        }
        let hash = secrets::key_hash(credential);
        let key = self.db.api_key_by_hash(&hash).await?.ok_or_else(ApiError::unauthorized)?;
        if key.expires_at.is_some_and(|expires| expires <= now_ms()) {
            return Err(ApiError::unauthorized());
        }
        let role = key.roles.iter().find_map(|name| Role::from_name(name));
        let role = role.ok_or_else(ApiError::unauthorized)?;
        let caller = Caller::with_role(Some(key.actor), role);
        Ok(Identity {
            caller: Caller { is_fresh: key.expires_at.is_none(), ..caller },
            actor: key.actor,
            role,
            session: None,
            expires_ms: key.expires_at,
        })
    }

    async fn identify_session(&self, token: &str) -> Result<Identity, ApiError> {
        let claims = self.sessions.verify(token).ok_or_else(ApiError::unauthorized)?;
        let user = self.db.user_by_id(claims.id).await?.ok_or_else(ApiError::unauthorized)?;
        if user.jwt_secret.as_ref() != Some(&claims.jwt_secret) {
            return Err(ApiError::unauthorized());
        }
        let caller = Caller::with_role(Some(user.actor), Role::User);
        Ok(Identity {
            caller: Caller { is_fresh: now_ms() - claims.auth_time <= SUDO_WINDOW, ..caller },
            actor: user.actor,
            role: Role::User,
            session: Some(claims),
            expires_ms: None,
        })
    }
}

impl FromRequestParts<Api> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Identity, ApiError> {
        match credential(&parts.headers, &parts.uri)? {
            Some(credential) => api.identify(&credential).await,
            None => Err(ApiError::unauthorized()),
        }
    }
}

impl OptionalFromRequestParts<Api> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        api: &Api,
    ) -> Result<Option<Identity>, ApiError> {
        match credential(&parts.headers, &parts.uri)? {
            Some(credential) => api.identify(&credential).await.map(Some),
            None => Ok(None),
        }
    }
}
