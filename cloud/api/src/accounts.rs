//! Logging in, and who one is.

use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use minke_cloud_db::{Account, Identity as Actor};
use minke_cloud_fleet::Role;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, now_ms};
use crate::body;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::secrets;
use crate::session::{Claims, LIFETIME};

/// Longest name that somebody logs in by, in bytes: an e-mail address has no more.
const MAX_NAME: usize = 254;

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// `POST /login_`: e-mail address or user name, and password → a session's token as text.
pub(crate) async fn login(State(api): State<Api>, body: Body) -> Result<String, ApiError> {
    let login: Login = body::json(body, body::SMALL).await?;
    let name = login.username.trim().to_lowercase();
    if name.len() > MAX_NAME {
        return Err(ApiError::bad(format!(
            "the user name is longer than {MAX_NAME} bytes, the limit"
        )));
    }
    let user = api.db.user_by_login(&name).await?;
    let user = api.check_password(&name, user, login.password).await?;
    let user = user.ok_or_else(ApiError::unauthorized)?;
    api.new_session(&user, now_ms())
}

impl Api {
    /// The user if the password is theirs. As slow for a user that does not exist, so that the time
    /// an answer takes tells nobody who has an account. Counts as a try of `name`, and a right password
    /// ends the count.
    async fn check_password(
        &self,
        name: &str,
        user: Option<Account>,
        password: String,
    ) -> Result<Option<Account>, ApiError> {
        const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$3jvtqFIhuHZgYl9fLCOFXA$JEPYkWv0ypuzjzQEMzDQFvQCmE9MfWqEH1vIHT5iT2Y";
        // A try counts when it is its turn: so names come no faster than passwords are hashed, and
        // nobody can send so many that the tries of another are forgotten.
        let _permit = self.hashing.acquire().await;
        self.login_limit.count(name, Instant::now())?;
        let hash = user
            .as_ref()
            .and_then(|user| user.password.clone())
            .unwrap_or_else(|| NOBODY.to_owned());
        let is_right = tokio::task::spawn_blocking(move || secrets::is_password(&password, &hash))
            .await
            .map_err(|error| ApiError::internal("checking a password", error))?;
        let user = user.filter(|user| is_right && user.password.is_some());
        if user.is_some() {
            self.login_limit.forget(name);
        }
        Ok(user)
    }

    fn new_session(&self, user: &Account, auth_time: i64) -> Result<String, ApiError> {
        let iat = now_ms() / 1000;
        let jwt_secret = user.jwt_secret.clone().ok_or_else(ApiError::unauthorized)?;
        self.sessions.sign(&Claims { id: user.id, jwt_secret, auth_time, iat, exp: iat + LIFETIME })
    }
}

/// `GET /actor/v1/whoami`.
pub(crate) async fn actor_whoami(
    State(api): State<Api>,
    identity: Identity,
) -> Result<Json<Value>, ApiError> {
    let actor = api.db.identity(identity.actor).await?;
    let id = identity.actor;
    Ok(Json(match actor.ok_or_else(ApiError::unauthorized)? {
        Actor::User { id: user, username, email } => json!({
            "id": id, "actorType": "user", "actorTypeId": user, "username": username, "email": email,
        }),
        Actor::Application { id: application, slug } => json!({
            "id": id, "actorType": "application", "actorTypeId": application, "slug": slug,
        }),
        Actor::Device { id: device, uuid } => json!({
            "id": id, "actorType": "device", "actorTypeId": device, "uuid": uuid,
        }),
    }))
}

/// `GET /user/v1/whoami`.
pub(crate) async fn user_whoami(
    State(api): State<Api>,
    identity: Identity,
) -> Result<Json<Value>, ApiError> {
    let user = user_of(&api, &identity).await?;
    Ok(Json(json!({"id": user.id, "username": user.username, "email": user.email})))
}

/// The user behind the credential; 401 if it is not one.
pub(crate) async fn user_of(api: &Api, identity: &Identity) -> Result<Account, ApiError> {
    if identity.role != Role::User {
        return Err(ApiError::unauthorized());
    }
    let user = api.user_by_actor(identity.actor).await?;
    user.ok_or_else(ApiError::unauthorized)
}

#[derive(Default, Deserialize)]
struct Refresh {
    password: Option<String>,
}

/// `GET` and `POST /user/v1/refresh-token`: a session that lasts anew; with the password, one that may
/// do for a while what needs it.
pub(crate) async fn refresh(
    State(api): State<Api>,
    identity: Identity,
    body: Body,
) -> Result<String, ApiError> {
    let session = identity.session.as_ref().ok_or_else(ApiError::unauthorized)?;
    let mut auth_time = session.auth_time;
    let user = user_of(&api, &identity).await?;
    let bytes = body::bytes(body, body::SMALL).await?;
    let refresh: Refresh = match bytes.is_empty() {
        true => Refresh::default(),
        false => serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?,
    };
    let user = match refresh.password {
        None => user,
        Some(password) => {
            let name = user.username.clone();
            let checked = api.check_password(&name, Some(user), password).await?;
            let user = checked.ok_or_else(ApiError::unauthorized)?;
            auth_time = now_ms();
            user
        }
    };
    api.new_session(&user, auth_time)
}
