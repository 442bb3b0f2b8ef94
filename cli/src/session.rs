//! Which server commands talk to, and with which token.
//!
//! Looked for in this order: `--server`, `MINKE_SERVER`, the file that `minke login` wrote;
//! the token in `MINKE_TOKEN`, then in that file (which holds it for one server only).

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use minke_sdk_rust::Client;
use serde::{Deserialize, Serialize};

/// Options that every command takes.
#[derive(clap::Args)]
pub struct Global {
    /// Print JSON for programs.
    #[arg(long, short = 'j', global = true)]
    pub json: bool,
    /// The server's address, as http://192.0.2.1:8080.
    #[arg(long, env = "MINKE_SERVER", global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Where the login is kept; by default the folder `minke` among your configuration files.
    #[arg(
        long,
        env = "MINKE_CONFIG_DIR",
        global = true,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub config_dir: Option<PathBuf>,
    /// An API key or session token to use instead of the stored login.
    #[arg(
        long,
        env = "MINKE_TOKEN",
        global = true,
        value_name = "TOKEN",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub api_token: Option<String>,
}

/// What `minke login` stores.
#[derive(Serialize, Deserialize)]
struct Session {
    server: String,
    token: String,
}

impl Global {
    /// A client with a token; an error says how to get one.
    pub fn client(&self) -> Result<Client> {
        let session = self.load()?;
        let server = self
            .server
            .clone()
            .or_else(|| session.as_ref().map(|session| session.server.clone()))
            .context("no server is known; start with `minke login http://SERVER:PORT`")?;
        let client = Client::new(&server)?;
        let stored = session
            .filter(|session| session.server.trim_end_matches('/') == client.server())
            .map(|session| session.token);
        let token = self.api_token.clone().or(stored).with_context(|| {
            format!("not logged in to {}; start with `minke login {0}`", client.server())
        })?;
        Ok(client.with_token(token))
    }

    /// The server that was named or logged in to last.
    pub fn known_server(&self) -> Result<Option<String>> {
        Ok(match &self.server {
            Some(server) => Some(server.clone()),
            None => self.load()?.map(|session| session.server),
        })
    }

    /// Keeps the client's server and token, readable by this user only.
    pub fn store(&self, client: &Client) -> Result<PathBuf> {
        let token = client.token().context("there is no token to store")?.to_owned();
        let session = Session { server: client.server().to_owned(), token };
        let path = self.path()?;
        let folder = path.parent().context("the login file has no folder")?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let store = || -> Result<()> {
            // Files of tempfile are 0600 from their first moment on.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, &session)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        store().with_context(|| format!("cannot store the login in {}", path.display()))?;
        Ok(path)
    }

    /// Forgets the login; `false` if there was none.
    pub fn forget(&self) -> Result<bool> {
        let path = self.path()?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    fn load(&self) -> Result<Option<Session>> {
        let path = self.path()?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let session = serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; `minke login` writes it anew", path.display())
        })?;
        Ok(Some(session))
    }

    fn path(&self) -> Result<PathBuf> {
        let folder = match &self.config_dir {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        Ok(folder.join("session.json"))
    }
}

fn default_folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("XDG_CONFIG_HOME").or_else(|| variable("APPDATA")) {
        return Ok(folder.join("minke"));
    }
    match variable("HOME") {
        Some(home) => Ok(home.join(".config/minke")),
        None => bail!("neither HOME nor MINKE_CONFIG_DIR is set, so the login has no place"),
    }
}
