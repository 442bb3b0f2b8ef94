//! The programs as they ship to devices: smallest code, at a fixed address (decision 0003).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// Package and program.
const PROGRAMS: [(&str, &str); 2] =
    [("minke-device-device", "minke-device"), ("minke-engine-shim", "minke-shim")];

/// Builds them and says how large they are.
pub fn run() -> Result<()> {
    for (package, program) in PROGRAMS {
        // With link-time optimisation all code is made at the end: only that step needs the flag.
        command::run(Command::new(env!("CARGO")).current_dir(crate::root()).args([
            "rustc",
            "--locked",
            "--profile",
            "device",
            "-p",
            package,
            "--bin",
            program,
            "--",
            "-C",
            "relocation-model=static",
        ]))?;
    }
    for (_, program) in PROGRAMS {
        let path = crate::target().join("device").join(program);
        println!("{:>7.2} MB  {}", megabytes(&path)?, path.display());
    }
    Ok(())
}

fn megabytes(path: &Path) -> Result<f64> {
    let size =
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(size.len() as f64 / 1e6)
}
