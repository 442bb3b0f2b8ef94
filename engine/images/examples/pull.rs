//! Pulls an image into a fresh store and says what it cost: time, processor time, peak memory, syncs.
//!
//! `cargo run --release -p minke-engine-images --example pull -- DIR REFERENCE [MIRROR]`

use std::path::PathBuf;
use std::time::Instant;

use minke_engine_images::{Error, Options, PullOptions, Store, chain};

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let usage = "pull DIR REFERENCE [MIRROR]";
    let dir = PathBuf::from(arguments.next().ok_or(usage)?);
    let reference = arguments.next().ok_or(usage)?;
    let mirrors = arguments.collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(run(dir, reference, mirrors)).map_err(|error| chain(&error))
}

async fn run(dir: PathBuf, reference: String, mirrors: Vec<String>) -> Result<(), Error> {
    let store = Store::open(dir, Options::default()).await?;
    let options = PullOptions { mirrors, ..PullOptions::default() };
    let (started, written) = (Instant::now(), written_bytes());
    let id = store.pull(&reference.parse()?, &options, |_| {}).await?;
    let elapsed = started.elapsed();
    let image = store.image_by_id(&id)?;
    let writes = store.writes();
    println!("image          {id}, {} layers, {} bytes", image.layers().len(), image.size);
    println!("time           {:.2} s", elapsed.as_secs_f64());
    println!("processor      {:.2} s", processor_seconds());
    println!("peak memory    {} kB", peak_kilobytes());
    println!("syncs          {} of the file system, {} of files", writes.syncfs, writes.fsyncs);
    println!("bytes to disk  {}", written_bytes().saturating_sub(written));
    println!("memory now     {} kB", field("/proc/self/status", "VmRSS:"));
    let started = Instant::now();
    let report = store.verify().await?;
    println!("verified       {} bytes in {:.2} s", report.bytes, started.elapsed().as_secs_f64());
    for damage in report.damaged {
        println!("damaged        {}: {}", damage.part, damage.why);
    }
    Ok(())
}

/// User and system time of this process, from `/proc/self/stat` in hundredths of a second.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_kilobytes() -> u64 {
    field("/proc/self/status", "VmHWM:")
}

/// Bytes given to the disk; what was deleted before it got there does not count.
fn written_bytes() -> u64 {
    let file = "/proc/self/io";
    field(file, "write_bytes:").saturating_sub(field(file, "cancelled_write_bytes:"))
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
