//! What the keeper can do to its host.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use minke_device_store::{Document, StoreError};
use rustix::process::{Pid, Signal, kill_process};
use tracing::warn;

/// How the host is restarted and turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Asks the init process: SIGINT to restart, SIGUSR2 to turn off. So do virtual devices.
    Init,
    /// Asks the kernel, after everything is written to the disk.
    Kernel,
    /// Does nothing; for hosts that must not be touched.
    Refuse,
}

/// Why the host did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum HostError {
    #[error("a hostname has 1 to 63 letters, digits and hyphens, none at its ends")]
    Name,
    #[error("keeping the hostname")]
    Store(#[from] StoreError),
    #[error("{doing}")]
    System { doing: &'static str, source: io::Error },
    #[error("this host may not be restarted or turned off")]
    Refused,
}

/// The host.
#[derive(Debug)]
pub struct Host {
    hostname: Document<String>,
    boot_id: PathBuf,
    power: Power,
}

impl Host {
    /// A host whose keeper has the directory `data`, and whose boot id is in the file `boot_id`.
    /// The name that was set last is set again; that it cannot be is said and no more, for a host
    /// that nobody can restart is worse off than one without its name.
    pub fn open(data: &Path, boot_id: &Path, power: Power) -> Host {
        let hostname = Document::new(data, "hostname");
        let host = Host { hostname, boot_id: boot_id.to_owned(), power };
        if let Err(error) = host.recall_name() {
            let cause = error.source().map(ToString::to_string);
            warn!(%error, cause, "the host keeps the name that it has");
        }
        host
    }

    fn recall_name(&self) -> Result<(), HostError> {
        self.hostname.load()?.value().map_or(Ok(()), |name| set(&name))
    }

    /// Changes with every boot.
    pub fn boot_id(&self) -> Result<String, HostError> {
        let doing = "reading the boot id";
        let text = fs::read_to_string(&self.boot_id)
            .map_err(|source| HostError::System { doing, source })?;
        Ok(text.trim().to_owned())
    }

    /// The host's name.
    pub fn hostname(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// Names the host; durable when this returns.
    pub fn set_hostname(&self, name: &str) -> Result<(), HostError> {
        let is_allowed = !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !is_allowed {
            return Err(HostError::Name);
        }
        self.hostname.save(&name.to_owned())?;
        set(name)
    }

    /// Restarts the host.
    pub fn reboot(&self) -> Result<(), HostError> {
        use rustix::system::RebootCommand;
        self.power(Signal::INT, RebootCommand::Restart)
    }

    /// Turns the host off.
    pub fn shutdown(&self) -> Result<(), HostError> {
        use rustix::system::RebootCommand;
        self.power(Signal::USR2, RebootCommand::PowerOff)
    }

    pub(crate) fn may_power(&self) -> Result<(), HostError> {
        if self.power == Power::Refuse { Err(HostError::Refused) } else { Ok(()) }
    }

    fn power(
        &self,
        signal: Signal,
        command: rustix::system::RebootCommand,
    ) -> Result<(), HostError> {
        self.may_power()?;
        rustix::fs::sync();
        let done = match self.power {
            Power::Init => kill_process(Pid::INIT, signal),
            Power::Kernel => rustix::system::reboot(command),
            Power::Refuse => Ok(()),
        };
        let doing = "asking for the power to be cut";
        done.map_err(|error| HostError::System { doing, source: error.into() })
    }
}

fn set(name: &str) -> Result<(), HostError> {
    rustix::system::sethostname(name.as_bytes())
        .map_err(|error| HostError::System { doing: "setting the hostname", source: error.into() })
}
