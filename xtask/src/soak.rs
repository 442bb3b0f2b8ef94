//! `cargo xtask soak`: the long forms of tests, run whole, with their results in `docs/soak/`.
//!
//! A long test is a test of the suite that runs a fixed sample by default and as much as an environment
//! variable says otherwise; what it finds it appends to the file that `MINKE_SOAK_REPORT` names. So
//! there is one form of each check, and what CI runs is what the soak runs.

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
    #[arg(long, global = true, default_value = suite::DEFAULT)]
    profile: String,
}

/// The soaks. To add one: a variant here, and its row in [`What::long`].
#[derive(clap::Subcommand, Clone, Copy)]
enum What {
    /// Create, start, wait and remove containers, over and over: nothing grows, nothing leaks.
    Cycles,
    /// kill -9 of the daemon at random points: containers, ports, names, logs and codes stay.
    Kills,
    /// kill -9 of a device's engine, supervisor and shims at random points of an update.
    UpdateKills,
    /// Many containers at once: what they weigh, and how long a new daemon takes to have them.
    Crowd,
    /// `.dockerignore` files, generated, beside what the docker CLI makes of them.
    Ignore,
    /// Dockerfile instructions, generated, beside what dockerd makes of them.
    Instructions,
    /// The whole Dockerfile corpus beside dockerd.
    Corpus,
    /// Cut the power at points spread over pull, build, create and remove; dockerd beside it.
    PowerCut,
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
            What::Kills => Long {
                name: "kills",
                title: "The daemon killed at random points",
                package: "minke-engine-daemon",
                test: "soak::kills::containers_outlive_a_daemon_that_is_killed_at_any_point",
                variable: "MINKE_SEEDS",
                count: 200,
            },
            What::UpdateKills => Long {
                name: "update-kills",
                title: "A device's processes killed at random points of an update",
                package: "minke-tests-e2e",
                test: "an_update_survives_kills_at_any_point",
                variable: "MINKE_SEEDS",
                count: 20,
            },
            What::Crowd => Long {
                name: "crowd",
                title: "500 containers at once",
                package: "minke-engine-daemon",
                test: "soak::crowd::many_containers_run_at_once_and_outlive_the_daemon",
                variable: "MINKE_CROWD",
                count: 500,
            },
            What::Ignore => Long {
                name: "ignore",
                title: "Generated .dockerignore files beside the docker CLI",
                package: "minke-engine-daemon",
                test: "ignore::generated_ignore_files_leave_out_what_the_docker_cli_leaves_out",
                variable: "MINKE_SEEDS",
                count: 3000,
            },
            What::Instructions => Long {
                name: "instructions",
                title: "Generated Dockerfile instructions beside dockerd 20.10",
                package: "minke-engine-daemon",
                test: "instructions::generated_instructions_make_the_configuration_that_dockerd_makes",
                variable: "MINKE_SEEDS",
                count: 1000,
            },
            What::Corpus => Long {
                name: "corpus",
                title: "The Dockerfile corpus beside dockerd 20.10",
                package: "minke-engine-daemon",
                test: "corpus::dockers_own_classic_builder_makes_the_same",
                variable: "MINKE_CORPUS",
                count: 1,
            },
            What::PowerCut => Long {
                name: "power-cut",
                title: "Power cuts while an engine works",
                package: "minke-engine-daemon",
                test: "power_cut::",
                variable: "MINKE_POINTS",
                count: 240,
            },
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("engines need root; start `cargo xtask soak` as root");
    }
    tools::ensure(&[tools::DEMO, tools::TEST])?;
    tools::ensure_nextest(true)?;
    let long = options.what.long();
    suite::run(&long, options.count.unwrap_or(long.count), &options.profile)
}
