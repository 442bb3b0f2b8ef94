//! What `minke` can be told; a file per word.

mod account;
mod config;
mod device;
mod env;
mod fleet;
mod logs;
mod push;
mod release;
mod tail;

use anyhow::Result;
use clap::Subcommand;

use crate::session::Global;

/// The first word after `minke`. A line here would hide the longer text that a command has in its own
/// file, so those with such a text have none.
#[derive(Subcommand)]
pub enum Command {
    Login(account::Login),
    /// Forget the login.
    Logout,
    /// Show who is logged in, and where.
    Whoami,
    /// List, show and create fleets.
    #[command(alias = "fleets", alias = "app")]
    Fleet(fleet::Fleet),
    /// List, show, register, rename and remove devices.
    #[command(alias = "devices")]
    Device(device::Device),
    Push(push::Push),
    Logs(logs::Logs),
    /// List, set and remove variables of fleets, devices and services.
    #[command(alias = "envs")]
    Env(env::Env),
    /// List and show releases.
    #[command(alias = "releases")]
    Release(release::Release),
    /// Make the config.json with which a device joins a fleet.
    Config(config::Config),
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<()> {
        match self {
            Command::Login(login) => login.run(global).await,
            Command::Logout => account::logout(global),
            Command::Whoami => account::whoami(global).await,
            Command::Fleet(fleet) => fleet.run(global).await,
            Command::Device(device) => device.run(global).await,
            Command::Push(push) => push.run(global).await,
            Command::Logs(logs) => logs.run(global).await,
            Command::Env(env) => env.run(global).await,
            Command::Release(release) => release.run(global).await,
            Command::Config(config) => config.run(global).await,
        }
    }
}
