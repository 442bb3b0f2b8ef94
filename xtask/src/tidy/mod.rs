//! Rules of the tree that no compiler checks. Each file here is one rule.
//!
//! A rule returns the sentences to print; none means that it holds.

mod edges;
mod licences;
mod metadata;
mod text;

use anyhow::{Result, bail};

use metadata::Metadata;

/// Checks every rule and prints every breach before it fails.
pub fn run() -> Result<()> {
    let metadata = Metadata::load()?;
    let breaches: Vec<String> =
        [edges::check(&metadata), licences::check(&metadata), text::check(&crate::root())?]
            .concat();
    for breach in &breaches {
        eprintln!("tidy: {breach}");
    }
    if !breaches.is_empty() {
        bail!("tidy found {} breach(es)", breaches.len());
    }
    println!("tidy: arrows, licences, banned crates, file sizes and words are in order");
    Ok(())
}
