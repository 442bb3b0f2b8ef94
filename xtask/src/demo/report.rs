//! What the demo prints at its end.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use minke_tests_testkit::{FLEET, ProcessMemory, Site, SiteMemory, Stages};

/// One row per stage, with a bar of its share.
pub fn stages(stages: &Stages) {
    println!("From a changed line to its answer:");
    let total = stages.total.as_secs_f64().max(0.001);
    for (name, time) in stages.rows() {
        let width = (time.as_secs_f64() / total * 40.0).round() as usize;
        let bar = if name == "total" { String::new() } else { "█".repeat(width.min(40)) };
        println!("  {name:8}{:>9}  {bar}", milliseconds(time));
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// One row per program.
pub fn memory(memory: &SiteMemory) {
    println!("\nMemory (MiB)              processes     RSS     PSS");
    println!("  (programs without optimisation; those that ship to devices are smaller)");
    for (place, rows) in [("server", &memory.server), ("device", &memory.devices)] {
        println!("  {place}");
        for row in rows {
            print_row(row);
        }
    }
}

fn print_row(row: &ProcessMemory) {
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "    {:24}{:>5}{:>8.1}{:>8.1}",
        row.name,
        row.count,
        mib(row.rss_kib),
        mib(row.pss_kib)
    );
}

/// Addresses and commands to go on with.
pub fn next_steps(site: &Site, device: &str, folder: &Path, is_root: bool) -> Result<()> {
    let (email, password) = site.login();
    let device = site.device(device)?;
    let minke = site.binaries().path("minke");
    let config = folder.join("cli");
    let project = folder.join("weather");
    let uuid = &device.uuid[..7];
    println!("\nGo on with:");
    println!("  the page          http://{}/", device.address);
    println!("  the server        {}   ({email}, password {password})", site.url());
    let sudo = if is_root { "" } else { "sudo " };
    println!("  its containers    {sudo}docker -H unix://{} ps", device.engine_socket);
    println!("  in a shell:");
    println!("    export MINKE_CONFIG_DIR={}", config.display());
    println!("    alias minke={}", minke.display());
    println!("    minke device {uuid}");
    println!("    minke logs {uuid} --tail");
    println!("    minke env set COLOUR=blue --fleet {FLEET}");
    println!("    minke push {FLEET} --source {}", project.display());
    println!("  logs of the processes are in {}", site.logs().display());
    Ok(())
}
