//! The rows behind credentials: users, their actors, API keys.
//!
//! Invariant: what is secret in them (hashes, the sessions' secret) leaves this crate in no answer.

use minke_cloud_db::{Caller, Tx};
use minke_common_odata::Request;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::{query, rows, secrets};

/// A user.
#[derive(Clone)]
pub struct UserRow {
    /// Row id.
    pub id: i64,
    /// The user's actor.
    pub actor: i64,
    /// Unique, lower case.
    pub username: String,
    /// E-mail address, if known.
    pub email: Option<String>,
    pub(crate) password_hash: Option<String>,
    pub(crate) jwt_secret: String,
}

/// Whom an actor row stands for.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person.
    User { id: i64, username: String, email: Option<String> },
    /// A fleet, an app or a block.
    Application { id: i64, slug: String },
    /// A device.
    Device { id: i64, uuid: String },
}

/// An API key that exists.
pub(crate) struct KeyRow {
    pub(crate) actor: i64,
    pub(crate) role: String,
    pub(crate) expires_ms: Option<i64>,
}

/// An API key to make.
pub(crate) struct NewKey {
    pub(crate) actor: i64,
    pub(crate) hash: String,
    pub(crate) role: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) expires_ms: Option<i64>,
}

const USER: &str = "user?$select=id,actor,username,email,password,jwt_secret&$top=1&$filter=";

fn user_row(row: &Value) -> Option<UserRow> {
    Some(UserRow {
        id: rows::number(row, "id")?,
        actor: rows::target(row, "actor")?,
        username: rows::text(row, "username").to_owned(),
        email: row["email"].as_str().map(str::to_owned),
        password_hash: row["password"].as_str().map(str::to_owned),
        // Without one no session can be the user's.
        jwt_secret: row["jwt_secret"].as_str().filter(|secret| !secret.is_empty())?.to_owned(),
    })
}

impl Api {
    async fn user_where(&self, filter: &str) -> Result<Option<UserRow>, ApiError> {
        let row = self.row(&Caller::root(), &format!("{USER}{filter}")).await?;
        Ok(row.as_ref().and_then(user_row))
    }

    /// The user with this user name or e-mail address, in lower case.
    pub async fn user_by_login(&self, login: &str) -> Result<Option<UserRow>, ApiError> {
        let login = query::literal(login);
        self.user_where(&format!("username eq {login} or email eq {login}")).await
    }

    pub(crate) async fn user_by_id(&self, id: i64) -> Result<Option<UserRow>, ApiError> {
        self.user_where(&format!("id eq {id}")).await
    }

    pub(crate) async fn user_by_actor(&self, actor: i64) -> Result<Option<UserRow>, ApiError> {
        self.user_where(&format!("actor eq {actor}")).await
    }

    /// Whom the actor stands for.
    pub async fn actor_identity(&self, actor: i64) -> Result<Option<Actor>, ApiError> {
        if let Some(user) = self.user_by_actor(actor).await? {
            let UserRow { id, username, email, .. } = user;
            return Ok(Some(Actor::User { id, username, email }));
        }
        let root = Caller::root();
        let query = format!("device?$select=id,uuid&$filter=actor eq {actor}");
        if let Some(row) = self.row(&root, &query).await? {
            let uuid = rows::text(&row, "uuid").to_owned();
            return Ok(rows::number(&row, "id").map(|id| Actor::Device { id, uuid }));
        }
        let query = format!("application?$select=id,slug&$filter=actor eq {actor}");
        let row = self.row(&root, &query).await?;
        Ok(row.and_then(|row| {
            let slug = rows::text(&row, "slug").to_owned();
            rows::number(&row, "id").map(|id| Actor::Application { id, slug })
        }))
    }

    pub(crate) async fn key_by_hash(&self, hash: &str) -> Result<Option<KeyRow>, ApiError> {
        let query = format!(
            "api_key?$select=id,expiry_date,is_of__actor&$expand=api_key__has__role($expand=role($select=name))&$filter=key eq {}",
            query::literal(hash)
        );
        let Some(row) = self.row(&Caller::root(), &query).await? else { return Ok(None) };
        let broken = || ApiError::internal("reading an API key", "its row is not whole");
        let expires_ms = match row["expiry_date"].as_str() {
            None => None,
            Some(text) => {
                Some(text.parse::<jiff::Timestamp>().map_err(|_| broken())?.as_millisecond())
            }
        };
        Ok(Some(KeyRow {
            actor: rows::target(&row, "is_of__actor").ok_or_else(broken)?,
            role: rows::text(&row["api_key__has__role"][0]["role"][0], "name").to_owned(),
            expires_ms,
        }))
    }

    pub(crate) async fn create_key(&self, key: NewKey) -> Result<(), ApiError> {
        let mut tx = self.db.begin().await?;
        create_key(&mut tx, key).await?;
        tx.commit().await?;
        Ok(())
    }

    /// How many users there are.
    pub async fn count_users(&self) -> Result<u64, ApiError> {
        let request = parse("user/$count")?;
        let count = self.db.get(&Caller::root(), &request).await?;
        count.as_u64().ok_or_else(|| ApiError::internal("counting users", count.to_string()))
    }

    /// Makes a user with an organization of their own. The password is hashed here.
    pub async fn create_user(
        &self,
        username: &str,
        email: &str,
        password: &str,
    ) -> Result<UserRow, ApiError> {
        let hash = self.hash(password).await?;
        let username = username.to_lowercase();
        let root = Caller::root();
        let mut tx = self.db.begin().await?;
        let user = object(json!({
            "username": username, "email": email.to_lowercase(),
            "password": hash, "jwt_secret": secrets::random_text(32),
        }));
        let user = tx.post(&root, "user", &user).await?;
        let handle = minke_cloud_fleet::names::handle_from(&username);
        let organization = object(json!({"name": username, "handle": handle}));
        let organization = tx.post(&root, "organization", &organization).await?;
        let roles = "organization_membership_role?$select=id&$filter=name eq 'administrator'";
        let role = first(tx.get(&root, &parse(roles)?).await?);
        let membership = object(json!({
            "user": user.id, "is_member_of__organization": organization.id,
            "organization_membership_role": rows::number(&role, "id"),
        }));
        tx.post(&root, "organization_membership", &membership).await?;
        tx.commit().await?;
        let made = self.user_by_id(user.id).await?;
        made.ok_or_else(|| ApiError::internal("making a user", "the row is not there"))
    }

    /// Sets a user's password and ends all sessions.
    pub async fn set_password(&self, user: i64, password: &str) -> Result<(), ApiError> {
        let hash = self.hash(password).await?;
        let row = object(json!({"password": hash, "jwt_secret": secrets::random_text(32)}));
        self.db.patch(&Caller::root(), &parse(&format!("user({user})"))?, &row).await?;
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

/// Makes a key with its one role.
pub(crate) async fn create_key(tx: &mut Tx, key: NewKey) -> Result<(), ApiError> {
    let root = Caller::root();
    let row = object(json!({
        "is_of__actor": key.actor, "key": key.hash, "name": key.name,
        "description": key.description, "expiry_date": key.expires_ms,
    }));
    let made = tx.post(&root, "api_key", &row).await?;
    let roles = format!("role?$select=id&$filter=name eq {}", query::literal(&key.role));
    let role = first(tx.get(&root, &parse(&roles)?).await?);
    let role = rows::number(&role, "id").ok_or_else(|| {
        ApiError::internal("making an API key", "its role is not in the database")
    })?;
    let row = object(json!({"api_key": made.id, "role": role}));
    tx.post(&root, "api_key__has__role", &row).await?;
    Ok(())
}

fn parse(text: &str) -> Result<Request, ApiError> {
    minke_common_odata::parse(text).map_err(|error| ApiError::internal("reading a query", error))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn first(rows: Value) -> Value {
    match rows {
        Value::Array(rows) => rows.into_iter().next().unwrap_or_default(),
        _ => Value::Null,
    }
}
