//! The rows behind credentials: accounts and API keys.
//!
//! Invariant: what is secret in them (hashes, the sessions' secret) leaves this crate in no answer.

use minke_cloud_db::{Account, NewAccount, NewApiKey, Tx};
use minke_cloud_fleet::names;

use crate::api::Api;
use crate::error::ApiError;
use crate::secrets;

/// Longest user name, in characters.
const MAX_USERNAME: usize = 73;
/// Longest e-mail address, in characters.
const MAX_EMAIL: usize = 254;

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
        check_account(&username, &email)?;
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

fn check_account(username: &str, email: &str) -> Result<(), ApiError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if username.is_empty() || username.len() > MAX_USERNAME || !username.chars().all(is_plain) {
        return Err(ApiError::bad(format!(
            "a user name must have 1 to {MAX_USERNAME} letters, digits and '_'"
        )));
    }
    let has_form = email.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !email.contains(char::is_whitespace)
    });
    if !has_form || email.chars().count() > MAX_EMAIL {
        return Err(ApiError::bad(format!("{email:?} is not an e-mail address")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_a_name_and_an_address() {
        assert!(check_account("ann", "ann@example.org").is_ok());
        for (name, email) in [
            ("", "a@b"),
            ("an n", "a@b"),
            ("a/b", "a@b"),
            ("ann", "nowhere"),
            ("ann", "@b"),
            ("ann", "a b@c"),
        ] {
            assert!(check_account(name, email).is_err(), "{name} {email}");
        }
    }
}
