//! The rows behind credentials: accounts and API keys.
//!
//! Invariant: what is secret in them (hashes, the sessions' secret) leaves this crate in no answer.

use minke_cloud_db::{Account, NewAccount, NewApiKey, Tx};
use minke_cloud_fleet::names;

use crate::api::Api;
use crate::error::ApiError;
use crate::secrets;

/// An API key to make.
pub(crate) struct NewKey {
    pub(crate) actor: i64,
    pub(crate) hash: String,
    pub(crate) role: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) expires_ms: Option<i64>,
}

/// Makes a key with its one role.
pub(crate) async fn create_key(tx: &mut Tx, key: &NewKey) -> Result<(), ApiError> {
    let roles = [key.role.as_str()];
    let key = NewApiKey {
        actor: key.actor,
        hash: &key.hash,
        roles: &roles,
        name: key.name.as_deref(),
        description: key.description.as_deref(),
        expires_at: key.expires_ms,
    };
    tx.create_api_key(&key).await?;
    Ok(())
}

impl Api {
    pub(crate) async fn create_key(&self, key: NewKey) -> Result<(), ApiError> {
        let mut tx = self.db.begin().await?;
        create_key(&mut tx, &key).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The user of an actor.
    pub(crate) async fn user_by_actor(&self, actor: i64) -> Result<Option<Account>, ApiError> {
        match self.db.identity(actor).await? {
            Some(minke_cloud_db::Identity::User { id, .. }) => Ok(self.db.user_by_id(id).await?),
            _ => Ok(None),
        }
    }

    /// Makes an account with an organization of its own. The password is hashed here.
    pub async fn create_user(
        &self,
        username: &str,
        email: &str,
        password: &str,
    ) -> Result<Account, ApiError> {
        let (username, email) = (username.to_lowercase(), email.to_lowercase());
        let hash = self.hash(password).await?;
        let mut tx = self.db.begin().await?;
        let account = NewAccount {
            username: &username,
            email: Some(&email),
            password: Some(&hash),
            jwt_secret: &secrets::random_text(32),
        };
        let account = tx.create_user(&account).await?;
        tx.create_organization(&account, &username, &names::handle_from(&username)).await?;
        tx.commit().await?;
        Ok(account)
    }

    /// Sets a user's password and ends all sessions.
    pub async fn set_password(&self, user: i64, password: &str) -> Result<(), ApiError> {
        let hash = self.hash(password).await?;
        let mut tx = self.db.begin().await?;
        tx.set_password(user, &hash, &secrets::random_text(32)).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn hash(&self, password: &str) -> Result<String, ApiError> {
        let _permit = self.hashing.acquire().await;
        let password = password.to_owned();
        tokio::task::spawn_blocking(move || secrets::password_hash(&password))
            .await
            .map_err(|error| ApiError::internal("hashing a password", error))?
    }
}
