//! What the file system says of a layer's files, in one short word.
//!
//! Whoever writes to a file, replaces it, cuts it off or restores it from a copy changes its inode, its
//! size or the time of its last change, which cannot be set. So a layer whose stamp is the one that it
//! had when it was read as a whole has been written to by nobody since. What a medium forgets by itself
//! does not show here.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, OFlags, Stat, fstat, statat};

use crate::layer::beneath::Beneath;
use crate::layer::{EXTRA, LayerError, MANIFEST, VIEW, names};

/// The stamp of the layer in directory `layer`. Reads no contents.
pub fn stamp(layer: &Path) -> Result<String, LayerError> {
    let mut sum = Sum::default();
    let failed = |error| LayerError::io("looking at", MANIFEST.as_bytes(), error);
    let manifest = statat(CWD, layer.join(MANIFEST), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    sum.add(0, MANIFEST.as_bytes(), &manifest);
    for tree in [VIEW, EXTRA] {
        let root = layer.join(tree);
        if tree == VIEW || root.exists() {
            sum.tree(&Beneath::open(&root)?, tree.as_bytes())?;
        }
    }
    Ok(format!("{:032x}-{}", sum.total, sum.entries))
}

/// Of all entries, in whichever order a directory gives them.
#[derive(Default)]
struct Sum {
    total: u128,
    entries: u64,
}

impl Sum {
    fn tree(&mut self, tree: &Beneath, name: &[u8]) -> Result<(), LayerError> {
        let root = fstat(tree.root()).map_err(|error| LayerError::io("looking at", name, error))?;
        self.add(0, name, &root);
        let mut left = vec![(Vec::new(), root.st_ino)];
        while let Some((path, inode)) = left.pop() {
            let failed = |error| LayerError::io("listing", &path, error);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
            let directory = tree.plain(&path, flags).map_err(failed)?;
            for item in Dir::read_from(&directory).map_err(failed)? {
                let item = item.map_err(failed)?;
                let name = item.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let stat = statat(&directory, item.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                let stat = stat.map_err(failed)?;
                self.add(inode, name, &stat);
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    left.push((names::join(&path, name), stat.st_ino));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, parent: u64, name: &[u8], stat: &Stat) {
        let mut hasher = blake3::Hasher::new();
        for number in [
            parent,
            stat.st_ino,
            stat.st_size as u64,
            u64::from(stat.st_mode),
            stat.st_mtime as u64,
            u64::from(stat.st_mtime_nsec as u32),
            stat.st_ctime as u64,
            u64::from(stat.st_ctime_nsec as u32),
        ] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(name);
        let mut word = [0; 16];
        word.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.total = self.total.wrapping_add(u128::from_le_bytes(word));
        self.entries += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reading_leaves_a_stamp_alone_and_any_change_alters_it() {
        let dir = tempfile::tempdir().unwrap();
        let view = dir.path().join(VIEW);
        fs::create_dir_all(view.join("etc")).unwrap();
        fs::write(dir.path().join(MANIFEST), "manifest").unwrap();
        let file = view.join("etc/passwd");
        fs::write(&file, "root").unwrap();
        std::os::unix::fs::symlink("etc/passwd", view.join("link")).unwrap();
        let mut last = stamp(dir.path()).unwrap();
        fs::read(&file).unwrap();
        assert_eq!(stamp(dir.path()).unwrap(), last);
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let changes: [&dyn Fn(); 5] = [
            &|| {
                // As long as before, and as old.
                fs::write(&file, "toor").unwrap();
                fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
            },
            &|| fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap(),
            &|| fs::rename(&file, view.join("etc/shadow")).unwrap(),
            &|| fs::remove_file(view.join("link")).unwrap(),
            &|| fs::write(dir.path().join(MANIFEST), "Manifest").unwrap(),
        ];
        for (number, change) in changes.iter().enumerate() {
            change();
            let now = stamp(dir.path()).unwrap();
            assert_ne!(now, last, "change {number}");
            last = now;
        }
    }
}
