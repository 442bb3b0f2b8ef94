//! The loop from a changed line to its answer, stage by stage, and what a whole device weighs.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use minke_tests_testkit::{Binaries, FLEET, Options, ProcessMemory, Site, Weather};

use super::table::{Table, Value};

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
        let budget = if name == "total" { "≤ 5 s" } else { "" };
        table.add(&format!("push of one line: {name}"), None, Value::Time(time), budget);
    }
    say(&format!("waiting {} s: what an idle device weighs", IDLE.as_secs()));
    std::thread::sleep(IDLE);
    let memory = site.memory();
    let sum = |rows: &[ProcessMemory], names: &[&str]| {
        rows.iter()
            .filter(|row| names.iter().any(|name| row.name.ends_with(name)))
            .map(|row| row.pss_kib)
            .sum()
    };
    let agent = sum(&memory.devices, &[" engine", " supervisor", " tunnel", " keeper"]);
    table.add("whole agent, idle after two updates, PSS", None, Value::Kib(agent), "≤ 20 MB");
    let supervisor: u64 = memory
        .devices
        .iter()
        .filter(|row| row.name.ends_with(" supervisor"))
        .map(|row| row.rss_kib)
        .sum();
    table.add("supervisor, idle after two updates, RSS", None, Value::Kib(supervisor), "≤ 8 MB");
    let server: u64 = memory
        .server
        .iter()
        .filter(|row| row.name.ends_with(" serve"))
        .map(|row| row.rss_kib)
        .sum();
    table.add("server with one device, RSS", None, Value::Kib(server), "≤ 80 MB");
    site.stop()
}
