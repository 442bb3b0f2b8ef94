//! The command line. Its help is the manual.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Manages fleets of connected Linux devices: takes in code, builds it, and keeps it running on them.
///
/// One process is a whole server. To try it, with an ADDRESS of this machine that others reach:
///
///   minke-cloud serve --data ./minke-data --listen ADDRESS:8080
///
/// It prints the address it listens on and, the first time, the administrator's login. Builds need
/// root: without it the server runs and cannot build. Then, on any machine that reaches the address:
///
///   minke login http://ADDRESS:8080
///   minke fleet create weather --type generic-amd64
///   minke config generate --fleet weather --output config.json    # for a device
///   minke push weather --source FOLDER
#[derive(Debug, Parser)]
#[command(name = "minke-cloud", version, verbatim_doc_comment)]
pub struct Arguments {
    /// Says more on stderr; twice says everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a server: API, registry, builder and tunnel on one listener.
    Serve(Serve),
    /// Runs a registry on its own, without accounts: a place or a mirror for base images.
    Registry(OpenRegistry),
    /// Brings the database to the form that this version uses, and ends.
    ///
    /// `serve` does so too; this is for doing it before, or where many servers share a database.
    Migrate(Migrate),
    /// Looks after accounts.
    Admin(Admin),
}

/// Where a server keeps its rows.
#[derive(Debug, Clone, Args)]
pub struct Storage {
    /// Directory for everything the server keeps: database, images, logs, keys.
    ///
    /// Made if missing. One server at a time uses a directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Keeps the rows in PostgreSQL: postgres://USER:PASSWORD@HOST/DATABASE.
    ///
    /// Without it they are in the file minke.db in the data directory.
    #[arg(long, value_name = "URL", env = "MINKE_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

impl Storage {
    /// The address of the database.
    pub fn database(&self) -> String {
        match &self.database_url {
            Some(url) => url.clone(),
            None => {
                let data = std::path::absolute(&self.data).unwrap_or_else(|_| self.data.clone());
                format!("sqlite://{}", data.join("minke.db").display())
            }
        }
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub storage: Storage,
    /// Address and port to listen on; port 0 takes any free one, which is then printed.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The one name of the server, under which people, devices and builders reach it.
    ///
    /// Default: http:// and the address it listens on. Devices keep working when it changes: nothing
    /// of it is stored.
    #[arg(long, value_name = "URL", env = "MINKE_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Answers under balena's host names (api.D, registry2.D, …) with TLS of its own.
    ///
    /// Not in this version, which says so and ends: put a TLS proxy before the server and give its
    /// address as --public-url.
    #[arg(long, value_name = "D")]
    pub domain: Option<String>,
    /// Keeps images in S3: s3://BUCKET/PREFIX.
    ///
    /// Not in this version, which says so and ends: images are in the data directory.
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,
    /// Where builds fetch base images of Docker Hub instead of there: http(s)://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub registry_mirror: Option<String>,
    /// A registry that builds reach by plain HTTP. May be given more than once.
    #[arg(long, value_name = "HOST:PORT")]
    pub insecure_registry: Vec<String>,
    /// The program minke-device, whose engine does the builds.
    ///
    /// Default: the file minke-device beside this program. Without one the server runs and refuses
    /// pushes.
    #[arg(long, value_name = "PATH")]
    pub device_binary: Option<PathBuf>,
    /// Days after which goes what builds left and no build used again: results of steps, directories of
    /// RUN --mount=type=cache, base images.
    ///
    /// It is looked after at the start and once a day. When the disk has little room left, what was not
    /// used for longest goes at once.
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub build_cache_days: u16,
    /// How much of what builds left may stay, base images aside: bytes, or with KiB, MiB, GiB or TiB.
    #[arg(long, value_name = "SIZE", default_value = "20GiB", value_parser = size)]
    pub build_cache_size: u64,
}

/// A number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (number, bits) = unit.unwrap_or((text, 0));
    let bytes = number.trim_end().parse::<u64>().ok().and_then(|it| it.checked_mul(1 << bits));
    bytes.ok_or_else(|| "expected a whole number of bytes, KiB, MiB, GiB or TiB".to_owned())
}

#[derive(Debug, Args)]
pub struct OpenRegistry {
    /// Directory for the images. Made if missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Address and port to listen on; port 0 takes any free one, which is then printed.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
    /// Lets everybody who reaches it pull, push and delete. There is no other way yet, so this must be
    /// said.
    #[arg(long, required = true)]
    pub open: bool,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub storage: Storage,
}

#[derive(Debug, Args)]
pub struct Admin {
    #[command(flatten)]
    pub storage: Storage,
    #[command(subcommand)]
    pub action: AdminAction,
}

#[derive(Debug, Subcommand)]
pub enum AdminAction {
    /// Makes an account with an organization of its own.
    ///
    /// The password is read from MINKE_PASSWORD; without it one is generated and printed.
    CreateUser {
        /// E-mail address, with which one logs in.
        #[arg(long)]
        email: String,
        /// Name, with which one logs in too. Default: what stands before the @.
        #[arg(long)]
        username: Option<String>,
    },
    /// Gives an account a new password and ends its sessions.
    ///
    /// The password is read from MINKE_PASSWORD; without it one is generated and printed.
    ResetPassword {
        /// E-mail address or name of the account.
        #[arg(long, value_name = "EMAIL")]
        user: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [("0", 0), ("7", 7), ("20GiB", 20 << 30), ("1 KiB", 1024)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "-1", "1.5GiB", "1GB", "99999999TiB"] {
            size(bad).unwrap_err();
        }
        let arguments = Arguments::parse_from(["minke-cloud", "serve", "--data", "d"]);
        let Command::Serve(serve) = arguments.command else { panic!("{arguments:?}") };
        assert_eq!((serve.build_cache_days, serve.build_cache_size), (7, 20 << 30));
    }
}
