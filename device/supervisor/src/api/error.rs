//! What a request is answered with when it cannot be done.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minke_common_model::ids::AppId;
use serde_json::json;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("Unauthorized")]
    Unauthorized,
    #[error("Missing or invalid {0}")]
    Missing(&'static str),
    #[error("App not found: an app needs to be installed for this endpoint to work (app {0})")]
    NoApp(AppId),
    #[error("App not found: an app needs to be installed for its state to be known (app {0})")]
    NoStateOf(AppId),
    #[error("Service not found, a container must exist for this endpoint to work")]
    NoService,
    #[error("This endpoint is for apps with one service; use /v2")]
    ManyServices,
    #[error("Updates are locked by a service of app {0}")]
    Locked(AppId),
    #[error("{0}")]
    NotDone(String),
}

impl ApiError {
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Unauthorized => StatusCode::UNAUTHORIZED,
            ApiError::Missing(_) | ApiError::ManyServices => StatusCode::BAD_REQUEST,
            ApiError::NoApp(_) | ApiError::NoService => StatusCode::NOT_FOUND,
            ApiError::NoStateOf(_) => StatusCode::CONFLICT,
            ApiError::Locked(_) => StatusCode::LOCKED,
            ApiError::NotDone(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if matches!(self, ApiError::Unauthorized) {
            return (StatusCode::UNAUTHORIZED, self.to_string()).into_response();
        }
        let body = json!({ "status": "failed", "message": self.to_string() });
        (self.status(), Json(body)).into_response()
    }
}
