//! A container as Docker describes it, turned into an OCI runtime specification.
//!
//! [`build`] and [`process`] are pure: whatever must be looked up on the host or in the image (users,
//! device numbers, hard limits, the kind of cgroups) is gathered before into [`Facts`].

mod accounts;
pub(crate) mod capabilities;
mod defaults;
mod devices;
mod facts;
mod linux;
mod mounts;
mod options;
mod process;

use std::path::PathBuf;

pub use accounts::{Accounts, Identity};
pub use capabilities::{default_capabilities, is_capability};
pub use defaults::{MASKED_PATHS, READONLY_PATHS};
pub use facts::Facts;
pub use oci_spec::runtime as oci;
pub use options::{
    BlockRate, BlockWeight, ContainerSpec, DeviceRequest, ExecSpec, Mount, MountKind, Namespace,
    NetNamespace, Resources, Seccomp, Shm, Ulimit, UserNamespace,
};

/// Why a description cannot be turned into a specification. The text is shown to users.
#[allow(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("no command specified")]
    NoCommand,
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    #[error("uids and gids must be in range 0-2147483647")]
    IdOutOfRange,
    #[error("invalid capability: {0}")]
    UnknownCapability(String),
    #[error("working directory '{0}' is invalid, it needs to be an absolute path")]
    RelativeWorkingDirectory(String),
    #[error("invalid mount target '{0}': it must be an absolute path other than '/'")]
    MountTarget(String),
    #[error("invalid device mode: {0}")]
    DevicePermissions(String),
    #[error("invalid device cgroup rule: {0}")]
    DeviceRule(String),
    #[error("error gathering device information while adding custom device \"{}\"", .0.display())]
    DeviceMissing(PathBuf),
    #[error("{} is no block device of this host", .0.display())]
    NoBlockDevice(PathBuf),
    #[error("unknown ulimit: {0}")]
    UnknownUlimit(String),
    #[error("ulimit soft limit must be less than or equal to hard limit: {0}")]
    UlimitOrder(String),
    #[error("invalid {what}: {value}")]
    Invalid { what: &'static str, value: String },
    #[error("assembling the runtime specification")]
    Assemble(#[from] oci_spec::OciSpecError),
}

/// The OCI specification of a container: the content of its bundle's `config.json`.
pub fn build(container: &ContainerSpec, facts: &Facts) -> Result<oci::Spec, SpecError> {
    let mut root = oci::Root::default();
    root.set_path(container.rootfs.clone());
    root.set_readonly(Some(container.readonly_rootfs));
    let mut spec = oci::Spec::default();
    spec.set_version("1.2.0".to_owned())
        .set_root(Some(root))
        .set_hostname(container.hostname_of_namespace())
        .set_domainname(container.domainname_of_namespace())
        .set_mounts(Some(mounts::build(container, facts)?))
        .set_process(Some(process::build(container, facts)?))
        .set_linux(Some(linux::build(container, facts)?))
        .set_hooks(None)
        .set_annotations(None);
    Ok(spec)
}

/// Limits alone: what a change of a running container has.
pub fn limits(resources: &Resources, facts: &Facts) -> Result<oci::LinuxResources, SpecError> {
    Ok(linux::limits(resources, facts)?.build()?)
}

/// Refuses limits of processes that [`build`] would refuse.
pub fn check_ulimits(ulimits: Vec<Ulimit>) -> Result<(), SpecError> {
    let container = ContainerSpec { ulimits, ..ContainerSpec::default() };
    process::limits(&container, &Facts::default()).map(drop)
}

/// The OCI process of an exec in a container: the `process` of the shim's `Exec` request, as JSON.
pub fn process(
    exec: &ExecSpec,
    container: &ContainerSpec,
    facts: &Facts,
) -> Result<oci::Process, SpecError> {
    process::build_exec(exec, container, facts)
}
