//! Users, keys and who speaks for whom: what the API needs beside OData.
//!
//! Passwords, session secrets and keys come in as hashes and are compared by the API; no OData
//! request can name them.

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::cell::Cell;
use crate::database::{Db, Tx};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::rules::check_account;
use crate::store::{Session, list};
use crate::write::{Changes, insert_row};

/// Somebody who can log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Row id.
    pub id: i64,
    /// Their actor.
    pub actor: i64,
    /// Unique name.
    pub username: String,
    /// Address, if known.
    pub email: Option<String>,
    /// Hash of the password; `None`: nobody logs in with one.
    pub password: Option<String>,
    /// What the sessions' tokens are bound to.
    pub jwt_secret: Option<String>,
}

/// A new account.
#[derive(Debug, Clone)]
pub struct NewAccount<'a> {
    /// Unique name of at most 73 characters.
    pub username: &'a str,
    /// Unique address.
    pub email: Option<&'a str>,
    /// Hash of the password.
    pub password: Option<&'a str>,
    /// What the sessions' tokens are bound to.
    pub jwt_secret: &'a str,
}

/// What an actor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A person.
    User {
        /// Row id.
        id: i64,
        /// Unique name.
        username: String,
        /// Address, if known.
        email: Option<String>,
    },
    /// A fleet.
    Application {
        /// Row id.
        id: i64,
        /// Unique name with its organization.
        slug: String,
    },
    /// A device.
    Device {
        /// Row id.
        id: i64,
        /// Unique name for ever.
        uuid: String,
    },
}

/// A key that was found by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Row id.
    pub id: i64,
    /// For whom it speaks.
    pub actor: i64,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Milliseconds since the epoch after which it means nothing.
    pub expires_at: Option<i64>,
}

/// A new key.
#[derive(Debug, Clone)]
pub struct NewApiKey<'a> {
    /// For whom it speaks.
    pub actor: i64,
    /// Its hash; unique.
    pub hash: &'a str,
    /// Names of its roles; each must be known.
    pub roles: &'a [&'a str],
    /// What people call it.
    pub name: Option<&'a str>,
    /// What it is for.
    pub description: Option<&'a str>,
    /// Milliseconds since the epoch after which it means nothing.
    pub expires_at: Option<i64>,
}

const ACCOUNT: &str = "\"id\", \"actor\", \"username\", \"email\", \"password\", \"jwt_secret\"";

fn account(row: &[Value]) -> Option<Account> {
    let text = |at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
    Some(Account {
        id: row.first()?.as_i64()?,
        actor: row.get(1)?.as_i64()?,
        username: text(2)?,
        email: text(3),
        password: text(4),
        jwt_secret: text(5),
    })
}

impl Db {
    async fn account(&self, rest: &str, value: Cell) -> Result<Option<Account>> {
        let mut session = self.store.read().await?;
        let rest = format!("FROM \"user\" WHERE {rest} ORDER BY \"id\" LIMIT 1");
        let rows = session.rows("finding an account", ACCOUNT, &rest, [value]).await?;
        Ok(rows.first().and_then(|row| account(row)))
    }

    /// The account with this name or address.
    pub async fn user_by_login(&self, login: &str) -> Result<Option<Account>> {
        if login.contains('\0') {
            return Ok(None);
        }
        // No name can hold an '@'. Rows of before that was seen to must not stand for an address.
        let column = if login.contains('@') { "email" } else { "username" };
        self.account(&format!("\"{column}\" = $1"), login.into()).await
    }

    /// The account of this row.
    pub async fn user_by_id(&self, id: i64) -> Result<Option<Account>> {
        self.account("\"id\" = $1", id.into()).await
    }

    /// The key with this hash, whether or not it has expired.
    pub async fn api_key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>> {
        let mut session = self.store.read().await?;
        let columns = "k.\"id\", k.\"is_of__actor\", k.\"expiry_date\", r.\"name\"";
        let rest = "FROM \"api_key\" k LEFT JOIN \"api_key__has__role\" h ON h.\"api_key\" = \
                    k.\"id\" LEFT JOIN \"role\" r ON r.\"id\" = h.\"role\" WHERE k.\"key\" = $1 \
                    ORDER BY r.\"name\"";
        let rows = session.rows("finding a key", columns, rest, [hash.into()]).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let number = |at: usize| first.get(at).and_then(Value::as_i64);
        let roles = rows.iter().filter_map(|row| Some(row.get(3)?.as_str()?.to_owned())).collect();
        Ok(match (number(0), number(1)) {
            (Some(id), Some(actor)) => Some(ApiKey { id, actor, roles, expires_at: number(2) }),
            _ => None,
        })
    }

    /// What an actor is; `None`: nobody any more.
    pub async fn identity(&self, actor: i64) -> Result<Option<Identity>> {
        let mut session = self.store.read().await?;
        let columns = "x.kind, x.id, x.name, x.email";
        let rest = "FROM (SELECT 1 AS kind, \"id\", \"username\" AS name, \"email\" FROM \"user\" \
                    WHERE \"actor\" = $1 UNION ALL SELECT 2, \"id\", \"slug\", NULL FROM \
                    \"application\" WHERE \"actor\" = $1 UNION ALL SELECT 3, \"id\", \"uuid\", \
                    NULL FROM \"device\" WHERE \"actor\" = $1) x";
        let rows = session.rows("finding an actor", columns, rest, [actor.into()]).await?;
        Ok(rows.first().and_then(|row| {
            let id = row.get(1)?.as_i64()?;
            let name = row.get(2)?.as_str()?.to_owned();
            let email = row.get(3).and_then(Value::as_str).map(str::to_owned);
            Some(match row.first()?.as_i64()? {
                1 => Identity::User { id, username: name, email },
                2 => Identity::Application { id, slug: name },
                _ => Identity::Device { id, uuid: name },
            })
        }))
    }

    /// Whether any account is there yet.
    pub async fn has_users(&self) -> Result<bool> {
        let mut session = self.store.read().await?;
        let rows = session.rows("counting accounts", "COUNT(*)", "FROM \"user\"", []).await?;
        Ok(rows.first().and_then(|row| row.first()?.as_i64()).unwrap_or_default() > 0)
    }
}

impl Tx {
    /// Makes an account; gives it as it is stored.
    pub async fn create_user(&mut self, new: &NewAccount<'_>) -> Result<Account> {
        let done = create_user(&mut self.session, new).await;
        self.note(done)
    }

    /// Makes an organization that an account administers; gives its id.
    pub async fn create_organization(
        &mut self,
        of: &Account,
        name: &str,
        handle: &str,
    ) -> Result<i64> {
        let caller = Caller { actor: Some(of.actor), ..Caller::root() };
        let body = json!({ "name": name, "handle": handle });
        let body = body.as_object().cloned().unwrap_or_default();
        self.post(&caller, "organization", &body).await.map(|created| created.id)
    }

    /// Makes a key; gives its id.
    pub async fn create_api_key(&mut self, new: &NewApiKey<'_>) -> Result<i64> {
        let done = create_api_key(&mut self.session, new).await;
        self.note(done)
    }

    /// Replaces the hash of an account's password and ends its sessions with a new secret.
    pub async fn set_password(
        &mut self,
        user: i64,
        password: &str,
        jwt_secret: &str,
    ) -> Result<()> {
        let sql = "UPDATE \"user\" SET \"password\" = $1, \"jwt_secret\" = $2 WHERE \"id\" = $3";
        let values = [password.into(), jwt_secret.into(), Cell::Integer(user)];
        let done = self.session.run("setting a password", sql, values).await;
        self.note(done).map(drop)
    }

    /// Takes keys away from whoever an actor is, except one.
    pub async fn revoke_api_keys(
        &mut self,
        actor: i64,
        role: &str,
        but: Option<i64>,
    ) -> Result<u64> {
        let keep = list(&but.into_iter().collect::<Vec<_>>());
        let keep =
            if but.is_some() { format!("AND \"id\" NOT IN ({keep})") } else { String::new() };
        let sql = format!(
            "DELETE FROM \"api_key\" WHERE \"is_of__actor\" = $1 {keep} AND \"id\" IN (SELECT \
             h.\"api_key\" FROM \"api_key__has__role\" h JOIN \"role\" r ON r.\"id\" = h.\"role\" \
             WHERE r.\"name\" = $2)"
        );
        let done = self.session.run("revoking keys", &sql, [actor.into(), role.into()]).await;
        self.note(done)
    }
}

async fn create_user(session: &mut Session, new: &NewAccount<'_>) -> Result<Account> {
    check_account(Some(new.username), new.email)?;
    let resource = Model::get()
        .resource("user")
        .ok_or_else(|| Error::Corrupt("the model has no users".to_owned()))?;
    let body = json!({ "username": new.username, "email": new.email });
    let body = body.as_object().cloned().unwrap_or_default();
    let mut changes = Changes::read(resource, &body, &Caller::root())?;
    changes.set("password", new.password.map(Cell::from));
    changes.set("jwt_secret", new.jwt_secret);
    let id = insert_row(session, &Caller::root(), resource, changes).await?;
    let rest = "FROM \"user\" WHERE \"id\" = $1";
    let rows = session.rows("reading a new account", ACCOUNT, rest, [id.into()]).await?;
    let made = rows.first().and_then(|row| account(row));
    made.ok_or_else(|| Error::Corrupt("a new account is not there".to_owned()))
}

async fn create_api_key(session: &mut Session, new: &NewApiKey<'_>) -> Result<i64> {
    let resource = Model::get()
        .resource("api_key")
        .ok_or_else(|| Error::Corrupt("the model has no keys".to_owned()))?;
    let body = json!({
        "is_of__actor": new.actor, "name": new.name, "description": new.description,
        "expiry_date": new.expires_at,
    });
    let body = body.as_object().cloned().unwrap_or_default();
    let mut changes = Changes::read(resource, &body, &Caller::root())?;
    changes.set("key", new.hash);
    let id = insert_row(session, &Caller::root(), resource, changes).await?;
    for role in new.roles {
        let sql = "INSERT INTO \"api_key__has__role\" (\"created_at\", \"modified_at\", \
                   \"api_key\", \"role\") SELECT CAST($1 AS BIGINT), CAST($1 AS BIGINT), \
                   CAST($2 AS BIGINT), \"id\" FROM \"role\" WHERE \"name\" = $3";
        let values = [session.now.into(), id.into(), Cell::from(*role)];
        if session.run("giving a key its role", sql, values).await? == 0 {
            return Err(Error::invalid(format!("there is no role {role:?}")));
        }
    }
    Ok(id)
}
