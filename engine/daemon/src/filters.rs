//! The compiled filters of system calls, kept for the next container that needs the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minke_engine_runtime::seccomp::{Context, Profile, SeccompError};
use minke_engine_runtime::spec::{ContainerSpec, Seccomp};

use crate::error::{Error, Result};

/// Most filters that are kept: there are as many as there are sets of capabilities and own profiles.
const MAX_KEPT: usize = 32;

type Key = (String, Vec<String>);

/// Filters by profile (empty: the default one) and capabilities.
#[derive(Default)]
pub(crate) struct Filters {
    kept: Mutex<BTreeMap<Key, Arc<Vec<u8>>>>,
}

impl Filters {
    /// The stored form of a container's filter; `None`: it has none. `capabilities` is its bounding set,
    /// as `CAP_…`.
    pub(crate) fn of(
        &self,
        container: &ContainerSpec,
        capabilities: impl Iterator<Item = String>,
    ) -> Result<Option<Arc<Vec<u8>>>> {
        let text = match &container.seccomp {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default if container.privileged || !available() => return Ok(None),
            Seccomp::Default => "",
            Seccomp::Profile(text) => text.as_str(),
        };
        let mut capabilities: Vec<String> = capabilities.collect();
        capabilities.sort_unstable();
        let key = (text.to_owned(), capabilities);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = kept.get(&key) {
            return Ok(Some(filter.clone()));
        }
        let Some(profile) = read(text)? else { return Ok(None) };
        let context =
            Context { capabilities: key.1.iter().cloned().collect(), kernel: kernel_version() };
        let program = profile.select(&context).compile().map_err(invalid)?;
        let filter = Arc::new(program.to_bytes());
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, filter.clone());
        Ok(Some(filter))
    }
}

/// Checks a profile before a container is made with it.
pub(crate) fn check(text: &str) -> Result<()> {
    let Some(profile) = read(text)? else { return Ok(()) };
    if !available() {
        return Err(Error::Invalid(
            "seccomp is not enabled in your kernel, cannot run a custom seccomp profile".to_owned(),
        ));
    }
    let everything = Context { kernel: kernel_version(), ..Context::default() };
    profile.select(&everything).compile().map_err(invalid)?;
    Ok(())
}

/// Whether this kernel can filter system calls.
pub(crate) fn available() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    minke_engine_runtime::seccomp::available(&status)
}

fn read(text: &str) -> Result<Option<Profile>> {
    match text {
        "" => Ok(Some(Profile::builtin())),
        text => Profile::parse(text).map_err(invalid),
    }
}

fn invalid(error: SeccompError) -> Error {
    Error::Invalid(error.to_string())
}

/// Major and minor version of the kernel.
fn kernel_version() -> (u32, u32) {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
