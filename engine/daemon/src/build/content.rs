//! What `COPY` and `ADD` take: words to files of a tree, and the digest of what they hold.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use minke_common_dockerfile::Glob;
use minke_common_dockerfile::ignore::Ignore;
use minke_common_model::digest::{Digest, Hasher};
use rustix::fs::FileType;

use crate::build::archive::{self, Packing};
use crate::build::hash;
use crate::build::tree::{self, MAX_DEPTH, Tree};
use crate::build::walk::{From, Manner};

/// Most files that one pattern may find.
const MAX_FOUND: usize = 100_000;

/// A file or directory to copy.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) tree: Arc<Tree>,
    /// In the tree, without a leading `/`.
    pub(crate) path: String,
    /// What it is called at its destination, if that is a directory.
    pub(crate) name: String,
    /// `--parents`: the directories that it keeps at its destination.
    pub(crate) parents: String,
    pub(crate) directory: bool,
    /// An archive to unpack instead.
    pub(crate) packing: Option<Packing>,
    /// What stands for its content in a key, where that is known without reading it.
    pub(crate) known: Option<String>,
}

impl Item {
    /// A file of this name, to be copied as it is.
    pub(crate) fn file(tree: Arc<Tree>, path: &str, name: &str) -> Item {
        let (path, name) = (path.to_owned(), name.to_owned());
        let parents = String::new();
        Item { tree, path, name, parents, directory: false, packing: None, known: None }
    }

    pub(crate) fn source(&self) -> From<'_> {
        From { tree: &self.tree, path: self.path.clone() }
    }
}

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// `--parents`: what is before a part `.` is not kept, and `**` is any number of directories.
    pub(crate) parents: bool,
    /// Files and directories of these names are left out.
    pub(crate) exclude: &'a Ignore,
}

/// Files that a word names; `None` for a pattern that matches nothing, which is no failure while another
/// word names something.
pub(crate) fn find(
    tree: &Arc<Tree>,
    word: &str,
    reading: Reading<'_>,
) -> Result<Option<Vec<Item>>, String> {
    let clean = clean(word)?;
    let pivot = match word.split_once("/./") {
        Some((before, _)) if reading.parents => self::clean(before)?.len(),
        _ => 0,
    };
    let pattern = clean.iter().any(|part| Glob::is_pattern(part));
    let paths = match pattern {
        true => expand(tree, &clean, reading.parents)?,
        false => vec![clean.join("/")],
    };
    let (mut out, mut excluded) = (Vec::new(), false);
    for path in paths {
        let stat = tree.stat(&path).map_err(|e| format!("stat {path}: {e}"))?;
        let Some(stat) = stat else { continue };
        let directory = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => false,
            _ if pattern => continue,
            _ => return Err(format!("`{path}` is neither a file nor a directory")),
        };
        let name = path.rsplit('/').next().unwrap_or("").to_owned();
        if !name.is_empty() && reading.exclude.excludes(&name) {
            excluded = true;
            continue;
        }
        let kept: Vec<&str> = path.split('/').skip(pivot).collect();
        let kept = if directory { &kept[..] } else { &kept[..kept.len().saturating_sub(1)] };
        let parents = kept.join("/");
        out.push(Item { parents, directory, ..Item::file(tree.clone(), &path, &name) });
    }
    match out.is_empty() && !excluded {
        false => Ok(Some(out)),
        true if pattern => Ok(None),
        true => Err(format!(
            "file not found in build context or excluded by .dockerignore: stat {word}: file does not exist"
        )),
    }
}

/// The parts of a path; one that leads out of the context is refused.
fn clean(word: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    for part in word.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let outside = format!("forbidden path outside the build context: {word}");
                parts.pop().ok_or(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// Paths that match, part by part.
fn expand(tree: &Tree, parts: &[&str], deep: bool) -> Result<Vec<String>, String> {
    let mut found = vec![String::new()];
    for part in parts {
        let mut next = Vec::new();
        let pattern = match Glob::is_pattern(part) {
            true => Some(Glob::parse(part).map_err(|why| format!("the pattern `{part}`: {why}"))?),
            false => None,
        };
        for base in found {
            let Some(pattern) = &pattern else {
                next.push(join(&base, part));
                continue;
            };
            if deep && *part == "**" {
                descend(tree, &base, 0, &mut next)?;
                continue;
            }
            let Ok(directory) = tree.directory(&base) else { continue };
            let children = tree::children(directory.as_fd()).map_err(|e| format!("{base}: {e}"))?;
            let names = children.iter().map(|c| c.name.as_str());
            next.extend(names.filter(|n| pattern.matches(n)).map(|n| join(&base, n)));
        }
        if next.len() > MAX_FOUND {
            return Err(format!("more than {MAX_FOUND} files match; that is the limit"));
        }
        found = next;
    }
    // `**` may lead to the same place on two ways.
    found.sort();
    found.dedup();
    Ok(found)
}

fn join(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") }
}

/// A directory and all directories below it, no links followed.
fn descend(tree: &Tree, base: &str, depth: usize, out: &mut Vec<String>) -> Result<(), String> {
    if depth > MAX_DEPTH || out.len() > MAX_FOUND {
        return Err(format!("{base}: {}", tree::too_deep()));
    }
    let Ok(directory) = tree.directory(base) else { return Ok(()) };
    out.push(base.to_owned());
    for child in tree::children(directory.as_fd()).map_err(|e| format!("{base}: {e}"))? {
        if child.kind() == FileType::Directory {
            descend(tree, &join(base, &child.name), depth + 1, out)?;
        }
    }
    Ok(())
}

/// Marks archives, which `ADD` unpacks.
pub(crate) fn mark_archives(items: &mut [Item]) -> Result<(), String> {
    for item in items.iter_mut().filter(|i| !i.directory) {
        let mut file = item.tree.file(&item.path).map_err(|e| format!("{}: {e}", item.path))?;
        let packing = archive::packing(&mut file).map_err(|e| format!("{}: {e}", item.path))?;
        item.packing = packing;
    }
    Ok(())
}

/// One digest of everything that will be written, with the names it may have: a file's own name counts
/// wherever the destination turns out to be a directory, and only the stage's tree tells that.
pub(crate) fn digest(items: &[Item], manner: &Manner, parents: bool) -> Result<Digest, String> {
    let mut all = Hasher::new();
    for item in items {
        if let Some(known) = &item.known {
            all.update(Digest::of(known).as_bytes());
            continue;
        }
        let one = hash::digest(&item.source(), manner)
            .map_err(|e| format!("{}: {}", item.path, missing(&e)))?;
        let name = if item.directory { "" } else { item.name.as_str() };
        let kept = if parents { item.parents.as_str() } else { "" };
        for name in [name, kept] {
            all.update((name.len() as u64).to_le_bytes());
            all.update(name);
        }
        all.update([u8::from(item.packing.is_some())]);
        all.update(one.as_bytes());
    }
    Ok(all.finish())
}

fn missing(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "file does not exist".to_owned(),
        _ => error.to_string(),
    }
}

/// A tree that holds one new file.
pub(crate) fn inline(dir: &Path, name: &str, text: &str) -> std::io::Result<Item> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("content");
    std::fs::write(&path, text)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&path, mode)?;
    Ok(Item::file(Arc::new(Tree::open(dir)?), "content", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Arc<Tree>) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let tree = Arc::new(Tree::open(dir.path()).unwrap());
        (dir, tree)
    }

    fn paths(tree: &Arc<Tree>, word: &str) -> Result<Vec<String>, String> {
        let reading = Reading { parents: false, exclude: &Ignore::default() };
        let found = find(tree, word, reading)?;
        Ok(found.into_iter().flatten().map(|i| i.path).collect())
    }

    #[test]
    fn words_and_patterns_find_files() {
        let (_dir, tree) = tree(&["a.txt", "b.txt", "c.md", "d/x.txt", "e/x.txt", "!odd"]);
        assert_eq!(paths(&tree, "./a.txt").unwrap(), ["a.txt"]);
        assert_eq!(paths(&tree, "/d/../*.txt").unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(paths(&tree, "*/x.txt").unwrap(), ["d/x.txt", "e/x.txt"]);
        assert_eq!(paths(&tree, "[a-b].*").unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(paths(&tree, "!o?d").unwrap(), ["!odd"]);
        assert_eq!(paths(&tree, ".").unwrap(), [""]);
        assert!(paths(&tree, "z").unwrap_err().contains("file does not exist"));
        let reading = Reading { parents: false, exclude: &Ignore::parse("c.*").unwrap() };
        for (word, nothing) in [("q*", true), ("z/*", true), ("c*", false)] {
            assert_eq!(find(&tree, word, reading).unwrap().is_none(), nothing, "{word}");
        }
        assert!(paths(&tree, "a/../../b").unwrap_err().contains("outside the build context"));
    }

    #[test]
    fn parents_are_kept_from_the_pivot_on_and_names_left_out() {
        let (_dir, tree) = tree(&["a/b/c/x.txt", "a/b/x.txt", "a/y.md", "a/b/c/z.md"]);
        let exclude = Ignore::parse("z.md").unwrap();
        let reading = Reading { parents: true, exclude: &exclude };
        let kept = |word: &str| -> Vec<String> {
            let found = find(&tree, word, reading).unwrap().unwrap();
            found.into_iter().map(|i| format!("{} {}", i.parents, i.name)).collect()
        };
        assert_eq!(kept("a/b/x.txt"), ["a/b x.txt"]);
        assert_eq!(kept("./a/./b/*.txt"), ["b x.txt"]);
        assert_eq!(kept("a/**/*.txt"), ["a/b/c x.txt", "a/b x.txt"]);
        assert_eq!(kept("**/*.md"), ["a y.md"]);
        assert_eq!(kept("a/./b/c"), ["b/c c"]);
    }
}
