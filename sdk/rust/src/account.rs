//! Who is calling.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Client, Error};

/// Who a token belongs to.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// The actor's id, which permissions are given to.
    pub id: i64,
    /// `user`, `application` or `device`.
    pub actor_type: String,
    /// The id of that user, fleet or device.
    pub actor_type_id: i64,
    /// The name of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The address of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The slug of a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// The uuid of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// A person's account.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct User {
    /// The user's id.
    pub id: i64,
    /// The user's name.
    pub username: String,
    /// The user's address.
    pub email: Option<String>,
}

impl Client {
    /// Logs in with an address (or name) and a password, and keeps the session's token.
    pub async fn login(&mut self, email: &str, password: &str) -> Result<(), Error> {
        let what = "log in";
        let body = json!({ "username": email, "password": password });
        let response = self.request(what, Method::POST, "login_", Some(&body)).await?;
        let token = self.text(what, response).await?;
        self.set_token(token.trim().to_owned());
        Ok(())
    }

    /// Who the token belongs to.
    pub async fn whoami(&self) -> Result<Actor, Error> {
        let what = "ask who is logged in";
        let response = self.request(what, Method::GET, "actor/v1/whoami", None::<&Value>).await?;
        self.json(what, response).await
    }
}
