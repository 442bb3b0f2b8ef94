//! Hashing what would be copied: kind, mode, owner, content and link targets; not times of change.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use minke_common_model::digest::{Digest, Hasher as Sha256};
use rustix::fs::{FileType, Stat, fgetxattr};

use crate::build::copy::CAPABILITY;
use crate::build::owners::Owner;
use crate::build::tree::Child;
use crate::build::walk::{From, Manner, Visitor, Walk};

/// Hashes what it visits.
struct Hasher<'a> {
    manner: &'a Manner,
    digest: Sha256,
}

impl Hasher<'_> {
    fn head(&mut self, kind: u8, name: &str, stat: &Stat) {
        let Owner { uid, gid } = self.manner.owner(stat);
        let mode = if kind == b'l' { 0 } else { self.manner.mode(stat) };
        self.digest.update([kind]);
        self.text(name);
        for number in [mode, uid, gid] {
            self.digest.update(number.to_le_bytes());
        }
    }

    /// Length first: no two lists of texts look the same.
    fn text(&mut self, text: &str) {
        self.digest.update((text.len() as u64).to_le_bytes());
        self.digest.update(text);
    }

    fn content(&mut self, file: &mut File, stat: &Stat) -> io::Result<()> {
        if self.manner.owner.is_none() {
            let mut value = [0u8; 64];
            let length = fgetxattr(&*file, CAPABILITY, &mut value[..]).unwrap_or(0);
            self.digest.update([length as u8]);
            self.digest.update(&value[..length]);
        }
        self.digest.update((stat.st_size as u64).to_le_bytes());
        let mut buffer = vec![0u8; 128 << 10];
        loop {
            self.manner.cancelled.check()?;
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.digest.update(&buffer[..n]),
            }
        }
    }
}

impl Visitor for Hasher<'_> {
    type Place = ();

    fn directory(
        &mut self,
        _: &(),
        name: &str,
        child: &Child,
        _: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.head(b'd', name, &child.stat);
        Ok(())
    }

    fn file(&mut self, _: &(), name: &str, child: &Child, mut file: File) -> io::Result<()> {
        self.head(b'f', name, &child.stat);
        self.content(&mut file, &child.stat)
    }

    fn link(&mut self, _: &(), name: &str, child: &Child, to: &str) -> io::Result<()> {
        self.head(b'l', name, &child.stat);
        self.text(to);
        Ok(())
    }

    fn node(&mut self, _: &(), name: &str, child: &Child) -> io::Result<()> {
        self.head(b'n', name, &child.stat);
        self.digest.update(child.stat.st_rdev.to_le_bytes());
        Ok(())
    }

    fn leave(&mut self, _: (), _: &Stat) -> io::Result<()> {
        self.digest.update(b".");
        Ok(())
    }
}

/// A digest of what copying this would write, whatever the name it gets.
pub(crate) fn digest(from: &From<'_>, manner: &Manner) -> io::Result<Digest> {
    let mut hasher = Hasher { manner, digest: Sha256::new() };
    let found = rustix::fs::fstat(from.tree.find(&from.path)?)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        let source = from.tree.directory(&from.path)?;
        hasher.digest.update(b"D");
        let walk = Walk { manner };
        walk.inside(&mut hasher, source.as_fd(), &(), "", 0)?;
    } else {
        let mut file = from.tree.file(&from.path)?;
        hasher.head(b'F', "", &found);
        hasher.content(&mut file, &found)?;
    }
    Ok(hasher.digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tree::Tree;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn key(root: &Path, manner: &Manner) -> Digest {
        let tree = Tree::open(root).unwrap();
        digest(&From { tree: &tree, path: String::new() }, manner).unwrap()
    }

    #[test]
    fn the_key_sees_content_mode_owner_and_names_but_no_times() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/f", "one");
        let plain = Manner::default();
        let first = key(dir.path(), &plain);
        let old = std::time::SystemTime::UNIX_EPOCH;
        let file = File::open(dir.path().join("a/f")).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(key(dir.path(), &plain), first);
        let owned = Manner { owner: Some(Owner { uid: 9, gid: 9 }), ..Manner::default() };
        assert_ne!(key(dir.path(), &owned), first);
        std::fs::set_permissions(dir.path().join("a/f"), std::fs::Permissions::from_mode(0o711))
            .unwrap();
        let second = key(dir.path(), &plain);
        assert_ne!(second, first);
        write(dir.path(), "a/f", "two");
        let third = key(dir.path(), &plain);
        assert_ne!(third, second);
        std::fs::rename(dir.path().join("a/f"), dir.path().join("a/g")).unwrap();
        assert_ne!(key(dir.path(), &plain), third);
    }
}
