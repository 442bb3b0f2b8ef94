//! `cargo xtask soak`: the long forms of tests, run whole, with their results in `docs/soak/`.
//!
//! A long test is a test of the suite that runs a fixed sample by default and as much as an environment
//! variable says otherwise; what it finds it appends to the file that `MINKE_SOAK_REPORT` names. So
//! there is one form of each check, and what CI runs is what the soak runs.

mod machine;
mod suite;

use anyhow::{Result, bail};

use crate::tools;
use suite::Long;

/// What to soak, and for how long.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
    /// How often (cycles, seeds, containers, points); each soak has its own default.
    #[arg(long, global = true)]
    count: Option<u32>,
    /// The cargo profile of tests and programs.
    #[arg(long, global = true, default_value = "release")]
    profile: String,
}

/// The soaks. To add one: a variant here, and its row in [`What::long`].
#[derive(clap::Subcommand, Clone, Copy)]
enum What {
    /// Create, start, wait and remove containers, over and over: nothing grows, nothing leaks.
    Cycles,
}

impl What {
    fn long(self) -> Long {
        match self {
            What::Cycles => Long {
                name: "cycles",
                title: "10,000 containers, one after the other",
                package: "minke-engine-daemon",
                test: "soak::cycles::cycles_leave_nothing_behind",
                variable: "MINKE_CYCLES",
                count: 10_000,
            },
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("engines need root; start `cargo xtask soak` as root");
    }
    tools::ensure(&[tools::DEMO, tools::TEST])?;
    let long = options.what.long();
    suite::run(&long, options.count.unwrap_or(long.count), &options.profile)
}
