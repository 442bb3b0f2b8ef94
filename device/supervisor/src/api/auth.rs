//! Who may ask: the device's key for everything, a service's key for its own app.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use minke_common_model::ids::AppId;

use super::Api;
use super::error::ApiError;
use crate::api_keys::Scope;

/// Lets a request through with its [`Scope`], or answers 401.
pub(super) async fn check(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_open = !api.is_managed || api.view.borrow().config.local_mode;
    let scope = if is_open {
        Some(Scope::Device)
    } else {
        key(&request).and_then(|key| api.keys.scope(&key))
    };
    match scope {
        Some(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        None => ApiError::Unauthorized.into_response(),
    }
}

fn key(request: &Request) -> Option<String> {
    let in_query = request.uri().query().and_then(|query| {
        query.split('&').find_map(|pair| pair.strip_prefix("apikey=")).map(str::to_owned)
    });
    let in_header = || {
        let value = request.headers().get("authorization")?.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        let is_known =
            scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("apikey");
        is_known.then(|| key.trim().to_owned())
    };
    in_query.or_else(in_header)
}

impl Scope {
    /// Refuses an app that the key is not for.
    pub(super) fn allow(self, app: AppId) -> Result<(), ApiError> {
        match self {
            Scope::Device => Ok(()),
            Scope::App(own) if own == app => Ok(()),
            Scope::App(_) => Err(ApiError::Unauthorized),
        }
    }

    /// Refuses a key that is not for the whole device.
    pub(super) fn allow_device(self) -> Result<(), ApiError> {
        if self == Scope::Device { Ok(()) } else { Err(ApiError::Unauthorized) }
    }

    /// Whether the key may see an app.
    pub(super) fn sees(self, app: AppId) -> bool {
        self.allow(app).is_ok()
    }
}
