//! `minke login`, `logout` and `whoami`.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use minke_sdk_rust::Client;
use serde_json::json;

use crate::output;
use crate::session::Global;

/// Log in to a server
///
/// Without options it asks for an e-mail address and a password. For scripts: `--token` with an API
/// key, or `--email` and `--password`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Login {
    /// The server's address, as http://192.0.2.1:8080 (or a token, where a server is known).
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Log in with an API key or session token.
    #[arg(long, short = 't', num_args = 0..=1, default_missing_value = "", value_name = "TOKEN")]
    token: Option<String>,
    /// Your e-mail address.
    #[arg(long, short = 'e', alias = "user", short_alias = 'u', conflicts_with = "token")]
    email: Option<String>,
    /// Your password; `MINKE_PASSWORD` keeps it out of the list of processes.
    #[arg(long, short = 'p', env = "MINKE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Log in with e-mail address and password (what happens anyway).
    #[arg(long, short = 'c', hide = true)]
    credentials: bool,
}

impl Login {
    pub async fn run(self, global: &Global) -> Result<()> {
        let (url, token) = match (self.url, self.token) {
            // `login --token TOKEN` and `login TOKEN`, as balena's CLI spells them.
            (Some(word), None) if !word.contains("://") => (None, Some(word)),
            (Some(word), Some(flag)) if flag.is_empty() && !word.contains("://") => {
                (None, Some(word))
            }
            (url, token) => (url, token.filter(|token| !token.is_empty())),
        };
        let server = match url {
            Some(url) => url,
            None => global
                .known_server()?
                .context("which server? Say `minke login http://SERVER:PORT`")?,
        };
        let mut client = Client::new(&server)?;
        match token {
            Some(token) => client = client.with_token(token),
            None => {
                let email =
                    answer(self.email, "--email", || inquire::Text::new("Email:").prompt())?;
                let password = answer(self.password, "--password", || {
                    inquire::Password::new("Password:").without_confirmation().prompt()
                })?;
                client.login(&email, &password).await.with_context(|| {
                    format!("{server} did not accept this e-mail address and password")
                })?;
            }
        }
        let actor =
            client.whoami().await.with_context(|| format!("{server} did not accept the login"))?;
        let file = global.store(&client)?;
        if global.json {
            return output::json(
                &json!({ "server": client.server(), "actor": actor, "file": file }),
            );
        }
        let name = actor.username.or(actor.slug).or(actor.uuid).unwrap_or_default();
        output::line(&format!("Logged in to {} as {name}", client.server()))
    }
}

/// What was said, or what the person at the terminal says.
fn answer(
    said: Option<String>,
    flag: &str,
    ask: impl FnOnce() -> inquire::error::InquireResult<String>,
) -> Result<String> {
    match said {
        Some(said) => Ok(said),
        None if std::io::stdin().is_terminal() => Ok(ask()?),
        None => bail!("{flag} is needed where nobody can be asked"),
    }
}

pub fn logout(global: &Global) -> Result<()> {
    let was_logged_in = global.forget()?;
    if global.json {
        return output::json(&json!({ "loggedOut": was_logged_in }));
    }
    output::line(if was_logged_in { "Logged out" } else { "Nobody was logged in" })
}

pub async fn whoami(global: &Global) -> Result<()> {
    let client = global.client()?;
    let actor = client.whoami().await?;
    if global.json {
        return output::json(&json!({ "server": client.server(), "actor": actor }));
    }
    output::fields(&[
        ("server", Some(client.server().to_owned())),
        ("kind", Some(actor.actor_type)),
        ("name", actor.username.or(actor.slug).or(actor.uuid)),
        ("email", actor.email),
    ])
}
