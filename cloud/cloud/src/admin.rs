//! Accounts, from the command line of the server's machine.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use minke_cloud_api::ports::Ports;
use minke_cloud_api::{Api, Settings};
use minke_cloud_db::Db;
use minke_cloud_logs::Logs;

use crate::arguments::{Admin, AdminAction, Migrate, Storage};
use crate::data_directory::DataDirectory;
use crate::glue::{RegistryTokens, Tunnels};

const PASSWORD: &str = "MINKE_PASSWORD";

pub async fn migrate(options: Migrate) -> Result<()> {
    let _data = DataDirectory::open(&options.storage.data)?;
    open_database(&options.storage).await?;
    println!("The database is up to date.");
    Ok(())
}

/// Opens the database and brings it up to date.
pub async fn open_database(storage: &Storage) -> Result<Db> {
    let place = match &storage.database_url {
        // The address may hold a password.
        Some(_) => "given by --database-url".to_owned(),
        None => format!("in {}", storage.data.display()),
    };
    Db::open(&storage.database()).await.with_context(|| format!("opening the database {place}"))
}

pub async fn run(options: Admin) -> Result<()> {
    // Rows of a running server may be changed beside it: no lock is taken here.
    std::fs::create_dir_all(&options.storage.data)
        .with_context(|| format!("making the directory {}", options.storage.data.display()))?;
    let api = bare_api(&options.storage).await?;
    let given = std::env::var(PASSWORD).ok().filter(|password| !password.is_empty());
    let is_given = given.is_some();
    let password = given.unwrap_or_else(|| minke_cloud_api::random_text(20));
    let name = match options.action {
        AdminAction::CreateUser { email, username } => {
            let username = username.unwrap_or_else(|| username_of(&email));
            api.create_user(&username, &email, &password).await?.username
        }
        AdminAction::ResetPassword { user } => {
            let Some(row) = api.db().user_by_login(&user.to_lowercase()).await? else {
                bail!("there is no account {user}");
            };
            api.set_password(row.id, &password).await?;
            row.username
        }
    };
    match is_given {
        true => println!("Account {name}: the password is the one in {PASSWORD}."),
        false => println!("Account {name}: the password is {password}"),
    }
    Ok(())
}

/// A user name from an e-mail address.
pub fn username_of(email: &str) -> String {
    let name = email.split('@').next().unwrap_or(email);
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect::<String>()
        .to_lowercase()
}

/// An API that serves nobody: only what it does with accounts is wanted.
async fn bare_api(storage: &Storage) -> Result<Api> {
    let db = open_database(storage).await?;
    let logs = Logs::open(&storage.data.join("logs"), Default::default())?;
    let secret = minke_cloud_api::random_text(64).into_bytes();
    let settings = Settings::new("http://localhost", secret)?;
    let signer = minke_cloud_registry::token::Signer::ephemeral("http://localhost")?;
    let ports = Ports {
        notify: Arc::new(Tunnels::default()),
        signer: Arc::new(RegistryTokens { signer, service: "localhost".to_owned() }),
    };
    Ok(Api::new(db, logs, settings, ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_comes_of_an_address() {
        assert_eq!(username_of("Ann.Smith+x@example.org"), "annsmithx");
        assert_eq!(username_of("admin"), "admin");
    }
}
