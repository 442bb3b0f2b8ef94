use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};

use super::super::pack::pack;
use super::*;

/// An archive of empty files and directories, with names that no honest program writes.
fn archive(names: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, link) in names {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, io::empty()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_tree_survives_packing_and_unpacking() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("sub/file"), "content").unwrap();
    fs::hard_link(from.join("sub/file"), from.join("twin")).unwrap();
    symlink("sub/file", from.join("link")).unwrap();
    mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    let null = makedev(1, 3);
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, from.join("null"), FileType::CharacterDevice, mode, null).unwrap();
    lchown(from.join("sub/file"), Some(12), Some(34)).unwrap();
    fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();
    // CAP_DAC_OVERRIDE, CAP_FOWNER: one of the bytes is a newline.
    let capability = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let name = "security.capability";
    let file = from.join("sub/file");
    rustix::fs::lsetxattr(&file, name, &capability, XattrFlags::empty()).unwrap();
    let old = Mtime { seconds: 1_000_000_000, nanos: 0 };
    utimensat(CWD, from.join("sub"), &timestamps(old), AtFlags::empty()).unwrap();

    let mut bytes = Vec::new();
    pack(&from, "from", &mut bytes, None).unwrap();
    let plain = Unpacking::default();
    // Twice: what is there is replaced by itself.
    for _ in 0..2 {
        unpack(&to, &bytes[..], &plain).unwrap();
        let to = to.join("from");
        assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "content");
        let file = fs::metadata(to.join("sub/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (12, 34, 0o4755));
        assert_eq!((file.nlink(), file.ino()), (2, fs::metadata(to.join("twin")).unwrap().ino()));
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(to.join("sub/file"), name, &mut value).unwrap();
        assert_eq!(value[..length], capability);
        assert!(fs::metadata(to.join("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(fs::metadata(to.join("null")).unwrap().rdev(), null);
        assert_eq!(fs::metadata(to.join("sub")).unwrap().mtime(), old.seconds);
    }
    assert!(unpack(&to.join("missing"), &bytes[..], &plain).is_err());
    assert!(unpack(&to.join("from/sub/file"), &bytes[..], &plain).is_err());
}

#[test]
fn nothing_outside_is_removed_changed_or_made() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("to"), dir.path().join("out"));
    fs::create_dir_all(out.join("keep")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(out.join("keep/file"), "").unwrap();
    let keep = out.join("keep").display().to_string();
    let owned = Unpacking { users: Some(IdRange { first: 0, count: 9 }), ..Unpacking::default() };
    for how in [Unpacking::default(), owned] {
        // An absolute name is one below the destination.
        unpack(&to, &archive(&[(&keep, Regular, "")])[..], &how).unwrap();
        assert!(to.join(keep.trim_start_matches('/')).is_file());
        let link = out.display().to_string();
        for bad in [
            &[("../out/keep", Regular, "")][..],
            &[("a", Directory, ""), ("a/../../out/keep", Regular, "")],
            &[("link", Symlink, &link), ("link/keep", Regular, "")],
            &[("link", Symlink, &link), ("link/new/file", Regular, "")],
            &[("file", Link, "../out/keep/file")],
            &[("link", Symlink, &link), ("file", Link, "link/keep/file")],
            &[("link", Directory, ""), ("link/keep", Directory, ""), ("link", Symlink, &link)],
        ] {
            let error = unpack(&to, &archive(bad)[..], &how).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}: {error}");
        }
    }
    assert!(out.join("keep/file").is_file());
    assert_eq!(fs::metadata(out.join("keep/file")).unwrap().nlink(), 1);
    assert_ne!(fs::metadata(out.join("keep")).unwrap().mtime(), 0);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn a_file_whose_content_breaks_off_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["whole", "half"] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_size(3000);
        tar.append_data(&mut header, name, &[b'x'; 3000][..]).unwrap();
    }
    // Two headers, and the first content in whole blocks.
    let bytes = tar.into_inner().unwrap();
    let broken = &bytes[..512 + 3072 + 512 + 1000];
    unpack(dir.path(), broken, &Unpacking::default()).unwrap_err();
    assert_eq!(fs::metadata(dir.path().join("whole")).unwrap().len(), 3000);
    assert!(!dir.path().join("half").exists());
}

#[test]
fn kinds_are_kept_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("there")).unwrap();
    let bytes = archive(&[("there", tar::EntryType::Regular, "")]);
    let how = Unpacking { keep_kinds: true, ..Unpacking::default() };
    assert!(unpack(dir.path(), &bytes[..], &how).is_err());
    assert!(dir.path().join("there").is_dir());
    unpack(dir.path(), &bytes[..], &Unpacking::default()).unwrap();
    assert!(dir.path().join("there").is_file());
}

/// Bytes that come in two pieces, with something done in between.
struct Interrupted<F>(Vec<u8>, Vec<u8>, Option<F>);

impl<F: FnOnce()> Read for Interrupted<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            if let Some(between) = self.2.take() {
                between();
            }
            std::mem::swap(&mut self.0, &mut self.1);
        }
        let got = (&self.0[..]).read(buffer)?;
        self.0.drain(..got);
        Ok(got)
    }
}

#[test]
fn a_directory_that_is_swapped_meanwhile_takes_nothing_along() {
    use tar::EntryType::Regular;
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("to"), dir.path().join("out"));
    fs::create_dir_all(to.join("sub")).unwrap();
    fs::create_dir(&out).unwrap();
    let all = archive(&[("sub/a", Regular, ""), ("sub/b", Regular, "")]);
    let between = || {
        fs::rename(to.join("sub"), to.join("moved")).unwrap();
        symlink(&out, to.join("sub")).unwrap();
    };
    let bytes = Interrupted(all[..512].to_vec(), all[512..].to_vec(), Some(between));
    unpack(&to, bytes, &Unpacking::default()).unwrap();
    assert!(to.join("moved/a").is_file() && to.join("moved/b").is_file());
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn a_tree_gives_way_but_nothing_that_its_links_lead_to() {
    let dir = tempfile::tempdir().unwrap();
    let (to, out) = (dir.path().join("to"), dir.path().join("out"));
    fs::create_dir_all(to.join("there/deep/deeper")).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("file"), "").unwrap();
    fs::write(to.join("there/deep/file"), "").unwrap();
    symlink(&out, to.join("there/deep/link")).unwrap();
    let bytes = archive(&[("there", tar::EntryType::Regular, "")]);
    unpack(&to, &bytes[..], &Unpacking::default()).unwrap();
    assert!(to.join("there").is_file() && out.join("file").is_file());
    fs::remove_file(to.join("there")).unwrap();
    let deep = vec!["d"; 300].join("/");
    fs::create_dir_all(to.join("there").join(deep)).unwrap();
    unpack(&to, &bytes[..], &Unpacking::default()).unwrap();
    assert!(to.join("there").is_file());
}
