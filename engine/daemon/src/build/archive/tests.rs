//! Archives that are right, wrong, too large and cut off.

use super::*;
use std::path::Path;

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

fn unpacked(
    entries: &[(&str, EntryType, &str)],
    limits: &Limits,
) -> (tempfile::TempDir, io::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let bytes = tar(entries);
    let result = unpack(&bytes[..], &tree, "to", Owners::Archive, limits, &Cancelled::default());
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
        let tree = Tree::open(dir.path()).unwrap();
        let (limits, never) = (Limits::default(), Cancelled::default());
        unpack(&special()[..], &tree, "", owners, &limits, &never).unwrap();
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
    let (_dir, result) = unpacked(&[("a", FILE, "1")], &full);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
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
    let tree = Tree::open(dir.path()).unwrap();
    let limits = Limits::default();
    let result = unpack(endless, &tree, "", Owners::Archive, &limits, &Cancelled::default());
    assert!(result.unwrap_err().to_string().contains("that is the limit"));
    assert_eq!(std::fs::metadata(dir.path().join("bomb")).unwrap().len(), 0);
}

#[test]
fn an_archive_may_lack_its_end_but_nothing_of_a_file() {
    let whole = tar(&[("a", FILE, "1234")]);
    let result = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let (limits, owners) = (Limits::default(), Owners::Archive);
        unpack(bytes, &tree, "", owners, &limits, &Cancelled::default())
    };
    for end in [516, 1024, whole.len()] {
        result(&whole[..end]).unwrap();
    }
    assert!(result(&whole[..515]).unwrap_err().to_string().contains("1 bytes before the end"));
    assert!(result(&whole[..517]).is_err());
}

#[test]
fn archives_are_known_by_content() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar(&[("a", FILE, "x")])).unwrap();
    let gzip = gzip.finish().unwrap();
    let plain = tar(&[("a", FILE, "x")]);
    let mut lone = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    lone.write_all(b"just text").unwrap();
    for (bytes, expected) in [
        (plain, Some(Packing::Plain)),
        (gzip, Some(Packing::Gzip)),
        (lone.finish().unwrap(), None),
        (b"hello".to_vec(), None),
        (vec![0u8; 1024], None),
    ] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(packing(&mut file).unwrap(), expected);
    }
}
