//! What `cargo metadata` says, as far as the rules look at it.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

/// All packages that a Linux build may use.
#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    workspace_members: Vec<String>,
    workspace_root: String,
}

/// One package of the lock file.
#[derive(Deserialize)]
pub struct Package {
    id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub license_file: Option<String>,
    pub dependencies: Vec<Dependency>,
    manifest_path: String,
}

/// One line of a package's `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]`.
#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub kind: Option<String>,
}

impl Metadata {
    pub fn load() -> Result<Metadata> {
        let json =
            crate::command::output(Command::new(env!("CARGO")).current_dir(crate::root()).args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--filter-platform=x86_64-unknown-linux-gnu",
            ]))?;
        serde_json::from_str(&json).context("cannot read the answer of `cargo metadata`")
    }

    /// The packages of this workspace with their folders, relative to its root.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Package)> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id)).map(
            |package| {
                let folder = package
                    .manifest_path
                    .trim_start_matches(&self.workspace_root)
                    .trim_start_matches('/')
                    .trim_end_matches("Cargo.toml")
                    .trim_end_matches('/');
                (folder, package)
            },
        )
    }
}
