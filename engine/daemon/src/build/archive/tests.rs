//! Archives that are right, wrong, too large and cut off.

use super::*;
use std::path::Path;

use tar::{EntryType, Header};

fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(3);
        header.set_gid(4);
        let linked = matches!(kind, EntryType::Symlink | EntryType::Link);
        let body = if linked { "" } else { content };
        if linked {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_size(body.len() as u64);
        let name = path.as_bytes();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        builder.append(&header, body.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Unpacks bytes below a directory.
fn put(
    source: impl Read,
    dir: &Path,
    base: &str,
    owners: Owners,
    limits: &Limits,
) -> io::Result<()> {
    unpack(source, &Tree::open(dir).unwrap(), base, owners, limits, &Cancelled::default())
}

/// The same with the limits of builds.
fn put_all(source: impl Read, dir: &Path) -> io::Result<()> {
    put(source, dir, "", Owners::Archive, &Limits::default())
}

fn unpacked(
    entries: &[(&str, EntryType, &str)],
    limits: &Limits,
) -> (tempfile::TempDir, io::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let result = put(&tar(entries)[..], dir.path(), "to", Owners::Archive, limits);
    (dir, result)
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn entries_land_below_the_base_with_their_owner() {
    use std::os::unix::fs::MetadataExt;
    let entries =
        [("a/f", FILE, "x"), ("a/l", EntryType::Symlink, "/f"), ("h", EntryType::Link, "a/f")];
    let (dir, result) = unpacked(&entries, &Limits::default());
    result.unwrap();
    let meta = std::fs::metadata(dir.path().join("to/h")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (3, 4, 2));
    assert_eq!(std::fs::read_link(dir.path().join("to/a/l")).unwrap(), Path::new("/f"));
}

#[test]
fn links_of_the_archive_lead_nowhere_else() {
    let (dir, result) =
        unpacked(&[("l", EntryType::Symlink, "/"), ("l/x", FILE, "y")], &Limits::default());
    result.unwrap();
    assert!(dir.path().join("x").exists(), "the tree's own top is what `/` means");
    for bad in ["../x", "a/../../x"] {
        let (_dir, result) = unpacked(&[(bad, FILE, "y")], &Limits::default());
        assert!(result.unwrap_err().to_string().contains("leads outside"));
    }
    let inside = [("a/../b", FILE, "y"), ("c", EntryType::Link, "d/.././b")];
    let (dir, result) = unpacked(&inside, &Limits::default());
    result.unwrap();
    for name in ["b", "c"] {
        assert_eq!(std::fs::read(dir.path().join("to").join(name)).unwrap(), b"y");
    }
    assert!(!dir.path().join("to/a").exists());
}

/// A root file system's parts that need more than a header of a tar says.
fn special() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let capability = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let said = [
        ("uid", &b"3000000"[..]),
        ("gid", b"3000001"),
        ("mtime", b"1700000000.25"),
        ("SCHILY.xattr.security.capability", &capability),
    ];
    builder.append_pax_extensions(said).unwrap();
    let mut header = Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(1);
    builder.append_data(&mut header, "ping", &b"x"[..]).unwrap();
    for (name, kind) in [("null", EntryType::Char), ("pipe", EntryType::Fifo)] {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o666);
        header.set_size(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        builder.append_data(&mut header, name, io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_root_file_system_keeps_capabilities_devices_and_large_numbers() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let unpacked = |owners| {
        let dir = tempfile::tempdir().unwrap();
        put(&special()[..], dir.path(), "", owners, &Limits::default()).unwrap();
        dir
    };
    let capability = |dir: &Path| {
        let mut value = [0; 64];
        rustix::fs::getxattr(dir.join("ping"), "security.capability", &mut value).ok()
    };
    let dir = unpacked(Owners::Archive);
    let ping = std::fs::metadata(dir.path().join("ping")).unwrap();
    assert_eq!((ping.uid(), ping.gid()), (3_000_000, 3_000_001));
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (1_700_000_000, 250_000_000));
    assert_eq!(capability(dir.path()), Some(20));
    let null = std::fs::metadata(dir.path().join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o7777), (makedev(1, 3), 0o666));
    assert!(std::fs::metadata(dir.path().join("pipe")).unwrap().file_type().is_fifo());
    // What a client sends as a context is taken for files only.
    let dir = unpacked(Owners::One(Owner::default()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(capability(dir.path()), None);
}

#[test]
fn limits_are_said() {
    let limits = Limits { bytes: 3, entries: 2, path: 9, reserve: 0 };
    for (entries, says) in [
        (vec![("a", FILE, "1234")], "more than 3 bytes"),
        (vec![("a", FILE, ""), ("b", FILE, ""), ("c", FILE, "")], "more than 2 files"),
        (vec![("0123456789", FILE, "")], "more than 9 bytes"),
    ] {
        let (_dir, result) = unpacked(&entries, &limits);
        let text = result.unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
    let full = Limits { reserve: u64::MAX, ..Limits::default() };
    for kind in [FILE, EntryType::Directory, EntryType::Symlink, EntryType::Fifo] {
        let (_dir, result) = unpacked(&[("a", kind, "1")], &full);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull, "{kind:?}");
    }
}

#[test]
fn directories_that_only_paths_name_count_and_are_not_too_deep() {
    let few = Limits { entries: 5, ..Limits::default() };
    let (_dir, result) = unpacked(&[("a/b/c/d/e/f", FILE, "")], &few);
    assert!(result.unwrap_err().to_string().contains("more than 5 files"));
    let (_dir, result) =
        unpacked(&[("a/b/c/f", FILE, ""), ("a/b", EntryType::Directory, "")], &few);
    result.unwrap_err();
    // With `to` itself, which only the path names too.
    let (_dir, result) = unpacked(&[("a/b/f", FILE, ""), ("a/b/g", FILE, "")], &few);
    result.unwrap();
    let deep = |depth: usize| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "d/".repeat(depth) + "f", io::empty()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let put = put_all(&builder.into_inner().unwrap()[..], dir.path());
        (put, std::fs::read_dir(dir.path()).unwrap().count())
    };
    deep(128).0.unwrap();
    let (result, made) = deep(129);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("deeper than 128; that is the limit"), "{error}");
    assert_eq!(made, 0, "it is refused before it is made");
}

#[test]
fn a_file_system_that_has_few_files_left_keeps_some() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // SAFETY: only this thread gets a mount namespace of its own, which goes with it.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS).unwrap() };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let dir = tempfile::tempdir().unwrap();
    mount("none", dir.path(), "tmpfs", MountFlags::empty(), c"nr_inodes=1100,size=256m").unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("d{n}")).collect();
    let entries: Vec<_> = names.iter().map(|n| (n.as_str(), EntryType::Directory, "")).collect();
    let error = put_all(&tar(&entries)[..], dir.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().contains("1000 are left so"), "{error}");
    assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 101);
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn headers_without_end_are_too_much() {
    let mut one = Header::new_gnu();
    one.set_entry_type(EntryType::XGlobalHeader);
    one.set_size(0);
    one.set_cksum();
    // Each entry may have many headers before it.
    let few = Limits { bytes: 0, entries: 10, ..Limits::default() };
    let bytes = one.as_bytes().repeat(1000);
    let dir = tempfile::tempdir().unwrap();
    let error = put(&bytes[..], dir.path(), "", Owners::Archive, &few).unwrap_err();
    assert!(error.to_string().contains("more than 40960 bytes with all headers"), "{error}");
    // They are none of the files, though.
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["a", "b", "c"] {
        builder.append_pax_extensions([("comment", &b"x"[..])]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty()).unwrap();
    }
    let three = Limits { entries: 3, ..Limits::default() };
    let bytes = builder.into_inner().unwrap();
    put(&bytes[..], dir.path(), "", Owners::Archive, &three).unwrap();
}

/// What says a size and has no contents.
fn sized(name: &str, kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_link_name("to").unwrap();
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn directories_links_and_devices_have_no_contents_whatever_their_size_says() {
    for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Char, EntryType::Fifo] {
        for size in [10, 1 << 60] {
            let dir = tempfile::tempdir().unwrap();
            let bytes = [sized("first", kind, size), tar(&[("file", FILE, "text")])].concat();
            put_all(&bytes[..], dir.path()).unwrap();
            assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"text", "{kind:?}");
            std::fs::symlink_metadata(dir.path().join("first")).unwrap();
        }
    }
}

#[test]
fn files_with_holes_come_out_as_they_were() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let from = tempfile::tempdir().unwrap();
    let file = File::create(from.path().join("holes")).unwrap();
    for (at, text) in [(1 << 20, b"one"), (5 << 20, b"two")] {
        file.write_all_at(text, at).unwrap();
    }
    file.set_len(9 << 20).unwrap();
    std::fs::write(from.path().join("next"), "after it").unwrap();
    for format in ["--format=gnu", "--format=posix", "--format=posix --sparse-version=0.1"] {
        let packed = std::process::Command::new("tar")
            .args(["-cS", "-f", "-"])
            .args(format.split(' '))
            .arg("-C")
            .arg(from.path())
            .args(["holes", "next"])
            .output()
            .unwrap();
        assert!(packed.stdout.len() < 1 << 20, "{format}: no holes in the archive");
        let dir = tempfile::tempdir().unwrap();
        put_all(&packed.stdout[..], dir.path()).unwrap();
        for name in ["holes", "next"] {
            let whole = |dir: &Path| std::fs::read(dir.join(name)).unwrap();
            assert!(whole(dir.path()) == whole(from.path()), "{format}: {name} differs");
        }
        let made = std::fs::metadata(dir.path().join("holes")).unwrap();
        assert!(made.blocks() * 512 < 5 << 20, "{format}: the holes were filled");
        // The limit holds for the file with its holes.
        let small = Limits { bytes: 8 << 20, ..Limits::default() };
        let error = put(&packed.stdout[..], dir.path(), "", Owners::Archive, &small).unwrap_err();
        assert!(error.to_string().contains("more than 8388608 bytes"), "{error}");
    }
}

#[test]
fn what_is_there_gives_way_to_what_is_of_another_kind() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for full in ["file/in", "link/in", "pipe/in", "hard/in", "kept/in", "usr/lib/in"] {
        std::fs::create_dir_all(at(full)).unwrap();
    }
    std::fs::write(at("directory"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    std::os::unix::fs::symlink("usr/lib", at("lib")).unwrap();
    let bytes = tar(&[
        ("file", FILE, "text"),
        ("link", EntryType::Symlink, "file"),
        ("pipe", EntryType::Fifo, ""),
        ("hard", EntryType::Link, "file"),
        ("kept", EntryType::Directory, ""),
        ("directory", EntryType::Directory, ""),
        ("dangling", EntryType::Directory, ""),
        ("lib", EntryType::Directory, ""),
        ("lib/new", FILE, "text"),
    ]);
    put_all(&bytes[..], dir.path()).unwrap();
    assert_eq!(std::fs::read(at("file")).unwrap(), b"text");
    assert_eq!(std::fs::read(at("hard")).unwrap(), b"text");
    assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("file"));
    assert!(!std::fs::symlink_metadata(at("pipe")).unwrap().is_dir());
    for name in ["kept/in", "directory", "dangling"] {
        assert!(std::fs::symlink_metadata(at(name)).unwrap().is_dir(), "{name}");
    }
    assert_eq!(std::fs::read_link(at("lib")).unwrap(), Path::new("usr/lib"));
    assert_eq!(std::fs::read(at("usr/lib/new")).unwrap(), b"text");
}

#[test]
fn an_archive_that_breaks_off_or_is_damaged_at_its_end_is_none() {
    struct Silent;
    impl Read for Silent {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it stopped coming"))
        }
    }
    // Just where an archive without its end would end.
    let whole = tar(&[("a", FILE, "1234")]);
    let dir = tempfile::tempdir().unwrap();
    let error = put_all(whole[..516].chain(Silent), dir.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    // Its last bytes are those that say whether all was whole.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&whole).unwrap();
    let packed = std::process::Command::new("xz").arg("-c").arg(file.path()).output().unwrap();
    let packed = packed.stdout;
    put_all(plain(io::Cursor::new(packed.clone())).unwrap(), dir.path()).unwrap();
    let cut = packed[..packed.len() - 8].to_vec();
    let error = put_all(plain(io::Cursor::new(cut)).unwrap(), dir.path()).unwrap_err();
    assert!(error.to_string().contains("xz cannot unpack"), "{error}");
}

#[test]
fn a_cancelled_build_unpacks_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let cancelled = Cancelled::default();
    cancelled.set();
    let tree = Tree::open(dir.path()).unwrap();
    let bytes = tar(&[("a", FILE, "1")]);
    let owners = Owners::Archive;
    let result = unpack(&bytes[..], &tree, "", owners, &Limits::default(), &cancelled);
    assert!(result.unwrap_err().to_string().contains("cancelled"));
    assert!(!dir.path().join("a").exists());
}

#[test]
fn an_announced_size_is_refused_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 50);
    header.set_cksum();
    let bytes = header.as_bytes().to_vec();
    // Zeros without end, as a packed bomb gives them.
    let endless = io::Cursor::new(bytes).chain(io::repeat(0));
    let error = put_all(endless, dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("more than 17179869184 bytes; that is the limit"),
        "{error}"
    );
    assert!(!dir.path().join("bomb").exists());
}

#[test]
fn an_archive_may_lack_its_end_but_nothing_of_a_file() {
    let whole = tar(&[("a", FILE, "1234")]);
    let result = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        put_all(bytes, dir.path())
    };
    for end in [516, 1024, whole.len()] {
        result(&whole[..end]).unwrap();
    }
    assert!(result(&whole[..515]).unwrap_err().to_string().contains("1 bytes before the end"));
    assert!(result(&whole[..517]).is_err());
}
