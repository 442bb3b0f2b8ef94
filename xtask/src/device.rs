//! The programs as they ship to devices: smallest code, static, at a fixed address (decision 0003).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// Package and program.
const PROGRAMS: [(&str, &str); 2] =
    [("minke-device-device", "minke-device"), ("minke-engine-shim", "minke-shim")];

/// With link-time optimisation all code is made at the end: only that step needs these flags.
const FLAGS: [&str; 4] = [
    "relocation-model=static",
    "target-feature=+crt-static",
    // Functions with the same instructions are one.
    "link-arg=-Wl,--icf=all",
    "link-arg=-Wl,--no-eh-frame-hdr",
];

/// The compressors of zstd that are left out: those for levels above 3, which nothing here uses. Where a small
/// input would get one of them, zstd takes the next faster one.
const ZSTD_WITHOUT: [&str; 6] = ["GREEDY", "LAZY", "LAZY2", "BTLAZY2", "BTOPT", "BTULTRA"];

/// Builds them and says how large they are.
pub fn run() -> Result<()> {
    let folder = build()?;
    for (_, program) in PROGRAMS {
        let path = folder.join(program);
        println!("{:>7.2} MB  {}", megabytes(&path)?, path.display());
    }
    Ok(())
}

/// Builds them; the folder that they are in.
pub fn build() -> Result<PathBuf> {
    let sections = crate::root().join("xtask/device-sections.ld");
    let flags = short_paths()?.join("\x1f");
    let c_flags = ZSTD_WITHOUT.map(|name| format!("-DZSTD_EXCLUDE_{name}_BLOCK_COMPRESSOR"));
    for (package, program) in PROGRAMS {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(crate::root()).args(["rustc", "--locked", "--profile", "device"]);
        cargo.args(["-p", package, "--bin", program, "--"]);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", &flags).env("CFLAGS", c_flags.join(" "));
        cargo.args(FLAGS.iter().flat_map(|flag| ["-C", flag]));
        cargo.arg("-C").arg(format!("link-arg=-Wl,-T,{}", sections.display()));
        command::run(&mut cargo)?;
    }
    Ok(crate::target().join("device"))
}

/// Flags that take the folders of the libraries' sources out of their paths. A program names each source file
/// that can panic: where it was on the machine that built it says nothing to a device, and takes 80 kB.
fn short_paths() -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let sources = home.context("there is no home directory")?.join("registry/src");
    let entries = std::fs::read_dir(&sources)
        .with_context(|| format!("cannot read {}", sources.display()))?;
    let folders = entries.flatten().map(|entry| entry.path());
    Ok(folders.map(|folder| format!("--remap-path-prefix={}/=", folder.display())).collect())
}

fn megabytes(path: &Path) -> Result<f64> {
    let size =
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(size.len() as f64 / 1e6)
}
