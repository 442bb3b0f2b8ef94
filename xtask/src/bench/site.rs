//! The loop from a changed line to its answer, stage by stage, and what a whole device weighs.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use minke_tests_testkit::{Binaries, FLEET, Options, ProcessMemory, Site, SiteMemory, Weather};

use super::table::{Budget, Table, Value};

const DEVICE: &str = "bench";
/// A device at rest gives memory back every two minutes.
const IDLE: Duration = Duration::from_secs(130);

pub fn measure_loop(binaries: &Binaries, work: &Path, table: &mut Table) -> Result<()> {
    let folder = work.join("site");
    let options = Options {
        folder: folder.clone(),
        binaries: binaries.clone(),
        bridge: "mk-bench".to_owned(),
        port: 0,
        base_images: crate::target().join("base-images"),
    };
    let mut say = |text: &str| println!("loop: {text}");
    let mut site = Site::start(options, &mut say)?;
    site.cli().run(&["fleet", "create", FLEET])?;
    site.add_device(FLEET, DEVICE)?;
    let mut weather =
        Weather::copy(&crate::root().join("examples/weather"), &folder.join("weather"))?;
    say("first release");
    weather.push_and_measure(&site, DEVICE, &mut |_| {})?;
    say("second release, one line changed");
    weather.change_greeting("Hello from the second release")?;
    let stages = weather.push_and_measure(&site, DEVICE, &mut |_| {})?;
    for (name, time) in stages.rows() {
        let budget = (name == "total").then_some(Budget::Seconds(5));
        table.add(&format!("push of one line: {name}"), Value::Time(time), budget);
    }
    say(&format!("waiting {} s: what an idle device weighs", IDLE.as_secs()));
    std::thread::sleep(IDLE);
    weigh(&site.memory(), table);
    site.stop()
}

/// Rows with what the parts of an idle site weigh.
fn weigh(memory: &SiteMemory, table: &mut Table) {
    let sum = |rows: &[ProcessMemory], names: &[&str], field: fn(&ProcessMemory) -> u64| {
        let wanted = rows.iter().filter(|row| names.iter().any(|name| row.name.ends_with(name)));
        Value::Kib(wanted.map(field).sum())
    };
    let agent = [" engine", " supervisor", " tunnel", " keeper"];
    table.add(
        "whole agent, idle after two updates, PSS",
        sum(&memory.devices, &agent, |row| row.pss_kib),
        Some(Budget::Megabytes(20.0)),
    );
    table.add(
        "supervisor, idle after two updates, RSS",
        sum(&memory.devices, &[" supervisor"], |row| row.rss_kib),
        Some(Budget::Megabytes(8.0)),
    );
    table.add(
        "server with one device, RSS",
        sum(&memory.server, &[" serve"], |row| row.rss_kib),
        Some(Budget::Megabytes(80.0)),
    );
}
