//! Rules about the text of the tree's own files: sizes, and words that mean "not done".

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

const MAX_LINES: usize = 600;

/// Files that are one concept although they are long, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// Words that have no place in committed code. Written in halves so that this file passes.
const WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
];

const CODE: &[&str] = &["rs", "sh", "ts", "svelte", "py", "mjs", "js", "md", "toml", "yml"];

pub fn check(root: &Path) -> Result<Vec<String>> {
    let listing = crate::command::output(Command::new("git").current_dir(root).args([
        "ls-files",
        "-co",
        "--exclude-standard",
    ]))?;
    let mut breaches = Vec::new();
    for name in listing.lines() {
        let path = root.join(name);
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if !CODE.contains(&extension) || !path.is_file() || name.contains("/corpus/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        breaches.extend(file_breaches(name, extension, &text));
    }
    Ok(breaches)
}

fn file_breaches(name: &str, extension: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if extension == "rs" && lines > MAX_LINES && !LONG.iter().any(|(file, _)| *file == name) {
        breaches
            .push(format!("{name} has {lines} lines; above {MAX_LINES} it holds several concepts"));
    }
    for (number, line) in text.lines().enumerate() {
        for word in WORDS.iter().filter(|word| line.contains(*word)) {
            breaches.push(format!("{name}:{} says {word}", number + 1));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_unfinished_work_are_named() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(file_breaches("a.rs", "rs", &long).len(), 1);
        assert!(file_breaches("a.md", "md", &long).is_empty());
        let unfinished = format!("fn main() {{}} // {}: later", WORDS[0]);
        assert_eq!(file_breaches("a.rs", "rs", &unfinished), [format!("a.rs:1 says {}", WORDS[0])]);
    }
}
