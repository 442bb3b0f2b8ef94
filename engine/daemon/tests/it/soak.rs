//! Long tests: a fixed sample of each runs by default, as much as an environment variable says in
//! `cargo xtask soak`; those of `checks` and `idle` have one size. What they find goes to the file that
//! `MINKE_SOAK_REPORT` names.

mod checks;
mod crowd;
mod cycles;
mod idle;
mod kills;
mod standing;

use std::io::Write as _;

/// How often, as the environment says, or else the sample.
fn count(variable: &str, sample: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => sample,
    }
}

/// Appends to the report, if somebody wants one.
pub(crate) fn report(text: &str) {
    let Some(path) = std::env::var_os("MINKE_SOAK_REPORT") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
