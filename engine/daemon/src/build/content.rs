//! What `COPY` and `ADD` take: words to files of a tree, and the digest of what they hold.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use minke_common_dockerfile::ignore::Ignore;
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use crate::build::archive::{self, Packing};
use crate::build::copy::{self, From, Manner};
use crate::build::tree::{self, Tree};

/// A file or directory to copy.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) tree: Arc<Tree>,
    /// In the tree, without a leading `/`.
    pub(crate) path: String,
    /// What it is called at its destination, if that is a directory.
    pub(crate) name: String,
    pub(crate) directory: bool,
    /// An archive to unpack instead.
    pub(crate) packing: Option<Packing>,
}

impl Item {
    pub(crate) fn source(&self) -> From<'_> {
        From { tree: &self.tree, path: self.path.clone() }
    }
}

/// Files that a word names. `hidden` are paths that `.dockerignore` takes away.
pub(crate) fn find(tree: &Arc<Tree>, word: &str, hidden: &Ignore) -> Result<Vec<Item>, String> {
    let clean = clean(word)?;
    let paths = match clean.iter().any(|part| part.contains(['*', '?', '['])) {
        true => expand(tree, &clean)?,
        false => vec![clean.join("/")],
    };
    let mut out = Vec::new();
    for path in paths {
        let stat = tree.stat(&path).map_err(|e| format!("stat {path}: {e}"))?;
        let Some(stat) = stat else { continue };
        let directory = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => false,
            _ => return Err(format!("`{path}` is neither a file nor a directory")),
        };
        if hidden.excludes(&path) && (!directory || hidden.prunes(&path)) {
            continue;
        }
        let name = path.rsplit('/').next().unwrap_or("").to_owned();
        out.push(Item { tree: tree.clone(), path, name, directory, packing: None });
    }
    if out.is_empty() {
        return Err(format!(
            "file not found in build context or excluded by .dockerignore: stat {word}: file does not exist"
        ));
    }
    Ok(out)
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
fn expand(tree: &Tree, parts: &[&str]) -> Result<Vec<String>, String> {
    let mut found = vec![String::new()];
    for part in parts {
        let mut next = Vec::new();
        let pattern = match part.contains(['*', '?', '[']) {
            // With `./` in front, `!` and `#` are ordinary characters.
            true => Some(Ignore::parse(&format!("./{part}")).map_err(|e| e.to_string())?),
            false => None,
        };
        for base in found {
            let join = |name: &str| match base.is_empty() {
                true => name.to_owned(),
                false => format!("{base}/{name}"),
            };
            let Some(pattern) = &pattern else {
                next.push(join(part));
                continue;
            };
            let Ok(directory) = tree.directory(&base) else { continue };
            let children = tree::children(directory.as_fd()).map_err(|e| format!("{base}: {e}"))?;
            let names = children.iter().map(|c| c.name.as_str());
            next.extend(names.filter(|n| pattern.excludes(n)).map(join));
        }
        found = next;
    }
    Ok(found)
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

/// One digest of everything that will be written, with the names it will have.
pub(crate) fn digest(items: &[Item], manner: &Manner, names: bool) -> Result<[u8; 32], String> {
    let mut all = Sha256::new();
    for item in items {
        let one = copy::digest(&item.source(), manner)
            .map_err(|e| format!("{}: {}", item.path, missing(&e)))?;
        let name = if names { item.name.as_str() } else { "" };
        all.update((name.len() as u64).to_le_bytes());
        all.update(name);
        all.update([u8::from(item.packing.is_some())]);
        all.update(one);
    }
    Ok(all.finalize().into())
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
    Ok(Item {
        tree: Arc::new(Tree::open(dir)?),
        path: "content".to_owned(),
        name: name.to_owned(),
        directory: false,
        packing: None,
    })
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

    fn paths(tree: &Arc<Tree>, word: &str, ignore: &str) -> Result<Vec<String>, String> {
        let found = find(tree, word, &Ignore::parse(ignore).unwrap())?;
        Ok(found.into_iter().map(|i| i.path).collect())
    }

    #[test]
    fn words_and_patterns_find_files() {
        let (_dir, tree) = tree(&["a.txt", "b.txt", "c.md", "d/x.txt", "e/x.txt", "!odd"]);
        assert_eq!(paths(&tree, "./a.txt", "").unwrap(), ["a.txt"]);
        assert_eq!(paths(&tree, "/d/../*.txt", "").unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(paths(&tree, "*/x.txt", "e").unwrap(), ["d/x.txt"]);
        assert_eq!(paths(&tree, "[a-b].*", "").unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(paths(&tree, "!o?d", "").unwrap(), ["!odd"]);
        assert_eq!(paths(&tree, ".", "").unwrap(), [""]);
        for (word, ignore) in [("z", ""), ("a.txt", "*.txt"), ("q*", "")] {
            assert!(paths(&tree, word, ignore).unwrap_err().contains("file does not exist"));
        }
        assert!(paths(&tree, "a/../../b", "").unwrap_err().contains("outside the build context"));
    }
}
