//! `minke-device engine verify`: what is damaged in an engine's images, for people or as JSON.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use minke_engine_client::wire::{VerifyLine, VerifyReport};
use minke_engine_daemon::{EngineOptions, VerifyTarget};

/// Options of `engine verify`.
#[derive(Args)]
pub struct Verify {
    /// The data directory of an engine that does not run.
    #[arg(long, value_name = "DIR", required_unless_present = "socket", conflicts_with = "socket")]
    data: Option<PathBuf>,
    /// The socket of an engine that runs.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Fetch what is damaged again, from where it came.
    #[arg(long)]
    repair: bool,
    /// One JSON document on stdout instead of text.
    #[arg(long)]
    json: bool,
    /// Asked for images of docker.io before Docker Hub; a running engine asks its own.
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// A registry that may be asked without TLS; a running engine has its own.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
}

impl Verify {
    /// Verifies and prints; an error if something is damaged still.
    pub fn run(self) -> anyhow::Result<()> {
        let target = match (self.socket, self.data) {
            (Some(socket), _) => VerifyTarget::Running(socket),
            (None, data) => VerifyTarget::Stopped(Box::new(EngineOptions {
                data: data.unwrap_or_default(),
                registry_mirrors: self.registry_mirror,
                insecure_registries: self.insecure_registry,
                ..EngineOptions::default()
            })),
        };
        let is_terminal = std::io::stderr().is_terminal();
        let report = minke_engine_daemon::verify(target, self.repair, |line| {
            if is_terminal {
                progress(line);
            }
        })?;
        if is_terminal {
            eprint!("\r\x1b[K");
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print(&report, self.repair);
        }
        let left = report.damaged.iter().filter(|part| !part.repaired).count();
        match left {
            0 => Ok(()),
            1 => bail!("1 part is damaged"),
            _ => bail!("{left} parts are damaged"),
        }
    }
}

/// How far it is, on one line that is written over.
fn progress(line: &VerifyLine) {
    let text = match (&line.verifying, &line.repairing) {
        (Some(at), _) => {
            let percent = (at.done * 100).checked_div(at.total).unwrap_or(0);
            format!("verifying {percent:3} % {}", at.layer)
        }
        (None, Some(line)) => format!("repairing {line}"),
        (None, None) => return,
    };
    eprint!("\r\x1b[K{text}");
    // Progress that cannot be shown is no failure.
    let _ = std::io::stderr().flush();
}

fn print(report: &VerifyReport, repair: bool) {
    for part in &report.damaged {
        println!("{}: {}", part.part, part.why);
        for image in &part.images {
            println!("  image {image} is not whole without it");
        }
        match (&part.failure, part.repaired) {
            (_, true) => println!("  repaired"),
            (Some(failure), false) => println!("  not repaired: {failure}"),
            (None, false) => {}
        }
    }
    let (images, layers, bytes) = (report.images, report.layers, report.bytes);
    println!(
        "{images} images, {layers} layers, {bytes} bytes read; {} damaged",
        report.damaged.len()
    );
    if !repair && !report.is_good() {
        println!("--repair fetches what is damaged again");
    }
}
