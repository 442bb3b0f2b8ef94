//! `cargo xtask demo`: the whole loop on this machine, for somebody who sees Minke first.
//!
//! The caller builds; what needs root (a bridge, namespaces, containers) happens in this same
//! program, started again through sudo where the caller is not root.

mod caller;
mod progress;
mod report;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use minke_tests_testkit::{
    Binaries, FLEET, Options as SiteOptions, Site, Stages, Weather, give_up_when,
};

use crate::{command, tools};
use caller::Caller;

/// Begins as the engine's own bridges do, so that a firewall can let all of them through by one rule.
const BRIDGE: &str = "mk-demo";
const PORT: u16 = 8080;
const DEVICE: &str = "demo";

/// How the demo ends.
#[derive(clap::Args)]
pub struct Options {
    /// End by itself after the second release has answered.
    #[arg(long, conflicts_with_all = ["detach", "stop"])]
    exit: bool,
    /// Return after the second release has answered and leave everything running.
    #[arg(long, conflicts_with = "stop")]
    detach: bool,
    /// Remove everything that a demo left running, also after a crash.
    #[arg(long)]
    stop: bool,
    /// The part that needs root; the binaries are built already.
    #[arg(long, hide = true)]
    built: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let folder = crate::target().join("demo");
    if !options.built {
        if !options.stop || Binaries::beside_this_program().is_err() {
            prepare()?;
        }
        if !rustix::process::geteuid().is_root() {
            return again_as_root(options);
        }
    }
    if options.stop {
        let was_there = folder.exists();
        stop(&folder)?;
        println!("{}", if was_there { "The demo is removed." } else { "There is no demo here." });
        return Ok(());
    }
    stop(&folder).context("an earlier demo is in the way")?;
    let interrupted = interrupt_flag()?;
    let outcome = show(options, &folder, &interrupted);
    if outcome.is_err() && interrupted.load(Ordering::Relaxed) {
        stop(&folder)?;
        bail!("interrupted; nothing of the demo is left on this machine");
    }
    outcome
}

/// Installs what is missing and builds the binaries.
fn prepare() -> Result<()> {
    tools::ensure(&[tools::DEMO])?;
    println!("Building the binaries (the first time this takes some minutes)");
    command::run(Command::new(env!("CARGO")).current_dir(crate::root()).args([
        "build",
        "--workspace",
        "--bins",
        "--locked",
    ]))
}

fn again_as_root(options: &Options) -> Result<()> {
    println!("The demo makes a bridge, namespaces and containers; that needs root (sudo asks).");
    let program = std::env::current_exe().context("cannot find the running program")?;
    let mut sudo = Command::new("sudo");
    sudo.arg(program).args(["demo", "--built"]);
    for (said, flag) in
        [(options.exit, "--exit"), (options.detach, "--detach"), (options.stop, "--stop")]
    {
        if said {
            sudo.arg(flag);
        }
    }
    Err(sudo.exec()).context("cannot start sudo")
}

/// Removes what a demo in `folder` has made, and the folder.
fn stop(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    Site::clean(folder)?;
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn show(options: &Options, folder: &Path, interrupted: &AtomicBool) -> Result<()> {
    let begun = Instant::now();
    let mut say = |text: &str| println!("[{:5.1} s] {text}", begun.elapsed().as_secs_f64());
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let site_options = SiteOptions {
        folder: folder.to_owned(),
        binaries: Binaries::beside_this_program()?,
        bridge: BRIDGE.to_owned(),
        port: PORT,
        base_images: crate::target().join("base-images"),
    };
    let base_images = site_options.base_images.clone();
    let mut site = Site::start(site_options, &mut say)?;
    let caller = Caller::who_called_sudo();
    caller.own(&base_images)?;
    let second = tell(&mut site, folder, &mut say)?;
    println!();
    report::stages(&second);
    report::memory(&site.memory());
    report::next_steps(&site, DEVICE, folder, caller.is_root())?;
    // The login and the project are there to be used.
    caller.own(&folder.join("cli"))?;
    caller.own(&folder.join("weather"))?;
    if options.detach {
        println!("\nEverything goes on running; `cargo xtask demo --stop` removes it.");
        site.leave();
        return Ok(());
    }
    if !options.exit {
        println!("\nCtrl-C ends the demo and removes everything.");
        while !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        println!();
    }
    say("removing everything");
    site.stop()?;
    stop(folder)?;
    say("nothing of the demo is left on this machine");
    Ok(())
}

/// The loop itself: a fleet, a device, a release, a change, a second release (measured).
fn tell(site: &mut Site, folder: &Path, say: &mut dyn FnMut(&str)) -> Result<Stages> {
    say("creating the fleet");
    site.cli().run(&["fleet", "create", FLEET])?;
    say("starting a virtual device, provisioned from a config.json");
    let device = site.add_device(FLEET, DEVICE)?;
    say(&format!("device {} runs at {}", &device.uuid[..7], device.address));
    let mut weather =
        Weather::copy(&crate::root().join("examples/weather"), &folder.join("weather"))?;
    let mut line = progress::Line::default();
    say("pushing examples/weather (three services, built by the server)");
    let first = weather.push_and_measure(site, DEVICE, &mut |event| line.show(event))?;
    line.clear();
    say(&format!("the page answers, {:.1} s after the push began", first.total.as_secs_f64()));
    if let Some(note) = site.firewall_note() {
        say(&format!("note: {note}"));
    }
    say("changing one line of api/api.pl and pushing again");
    weather.change_greeting("Hello from the second release")?;
    let second = weather.push_and_measure(site, DEVICE, &mut |event| line.show(event))?;
    line.clear();
    say(&format!(
        "the new answer is here, {:.1} s after the push began",
        second.total.as_secs_f64()
    ));
    Ok(second)
}

/// Becomes true on Ctrl-C and on an orderly end, so that what was made is removed.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).context("cannot watch for Ctrl-C")?;
    }
    give_up_when(flag.clone());
    Ok(flag)
}
