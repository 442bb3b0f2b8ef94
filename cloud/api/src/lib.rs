//! The server's API: the resources at `/v7/*` and the plain endpoints.
//!
//! The whole surface is [`router`]. An endpoint reads its request, asks the database on the caller's
//! behalf, and answers; what other parts of the server do for it comes in by [`ports`].
//!
//! Invariants:
//! - Every row is read and written with the caller's permissions. Where an endpoint must see more (a
//!   secret, a row's hidden column), it has asked before, as the caller, whether the row is theirs.
//! - A row that a caller may not see does not exist: plain endpoints answer 401 for it.
//! - Every body has a limit, which an error says.
//! - Rows hold image places without a host; answers have the host before them.

mod accounts;
mod api;
mod body;
mod config;
mod connections;
mod credentials;
mod device_tags;
mod device_types;
mod download_config;
mod error;
mod identity;
mod image_location;
mod keys;
mod logs_in;
mod logs_out;
pub mod ports;
mod query;
mod rate_limit;
mod register;
mod registry_token;
mod report;
mod resources;
pub mod rows;
mod secrets;
mod session;
mod supervisor_proxy;
mod target_changes;
mod target_state;

pub use api::{Api, PublicUrlError, Settings};
pub use error::ApiError;
pub use identity::Identity;
pub use query::literal;
pub use secrets::{random_hex, random_text};

use axum::Router;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::routing::{any, get, patch, post};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

/// The whole surface on a page.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/ping", get(config::ping))
        .route("/connectivity-check", get(config::connectivity))
        // Accounts, sessions, keys.
        .route("/login_", post(accounts::login))
        .route("/actor/v1/whoami", get(accounts::actor_whoami))
        .route("/user/v1/whoami", get(accounts::user_whoami))
        .route("/user/v1/refresh-token", get(accounts::refresh).post(accounts::refresh))
        .route("/auth/v1/public-keys/{username}", get(config::public_keys))
        .route("/auth/v1/token", get(registry_token::token))
        .route("/api-key/user/full", post(keys::user_full))
        .route("/api-key/v1", post(keys::for_actor))
        .route("/api-key/v1/", post(keys::for_actor))
        .route("/api-key/v2", post(keys::for_actor))
        .route("/api-key/v2/", post(keys::for_actor))
        .route("/api-key/device/{id}/device-key", post(keys::device_key))
        .route("/api-key/application/{id}/provisioning", post(keys::provisioning))
        .route("/application/{id}/generate-api-key", post(keys::provisioning))
        // Devices.
        .route("/device/register", post(register::register))
        .route("/device/v3/state", patch(report::version_3))
        .route("/device/v3/tags", patch(device_tags::patch))
        .route("/device/v3/{uuid}/state", get(target_state::version_3))
        .route("/device/v3/fleet/{uuid}/state", get(target_state::of_fleet))
        .route("/device/v3/fleet/{uuid}/state/", get(target_state::of_fleet))
        .route("/device/v2/{uuid}/state", get(target_state::version_2).patch(report::version_2))
        .route("/device/v2/{uuid}/logs", get(logs_out::logs).post(logs_in::batch))
        .route("/device/v2/{uuid}/log-stream", post(logs_in::stream))
        .route("/supervisor/{*path}", post(supervisor_proxy::call))
        .route("/application/{id}/restart", post(supervisor_proxy::restart_fleet))
        // As the official Python SDK spells it.
        .route("/applcation/{id}/restart", post(supervisor_proxy::restart_fleet))
        .route("/services/vpn/auth/{uuid}", get(config::vpn_auth))
        .route("/access/v1/hostos/{uuid}", get(config::host_access))
        // The server and its catalogue.
        .route("/config", get(config::config))
        .route("/config/vars", get(config::vars))
        .route("/os/v1/config", get(config::os_config))
        .route("/os/v1/config/", get(config::os_config))
        .route("/device-types/v1", get(device_types::all))
        .route("/device-types/v1/{slug}", get(device_types::one))
        .route("/download-config", get(download_config::download).post(download_config::download))
        // The resources.
        .route("/v7/{*request}", any(resources::version_7))
        .route("/v6/{*request}", any(resources::other_version))
        .route("/resin/{*request}", any(resources::other_version))
        .layer(cors())
        .with_state(api)
}

/// Browsers of any origin may call: a credential is never a cookie.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_credentials(true)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list([
            RETRY_AFTER,
            HeaderName::from_static("content-type"),
            HeaderName::from_static("etag"),
        ]))
}
