//! Laws of a layer: what was unpacked rebuilds byte for byte, and no altered byte goes unseen.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use minke_common_model::digest::Digest;
use minke_engine_images::Limits;
use minke_engine_images::layer::{self, LayerError, Rebuilt};
use proptest::prelude::*;
use tar::EntryType;

use crate::tars::{Fields, Tar, noise};

fn unpack(tar: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (unpacked, _) = layer::unpack(tar, dir.path(), &Limits::default()).unwrap();
    assert_eq!(unpacked.footer.diff_id.0, Digest::of(tar));
    assert_eq!(unpacked.footer.tar_bytes, tar.len() as u64);
    dir
}

fn rebuild(layer: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Rebuilt::open(layer).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[derive(Debug, Clone)]
enum Step {
    File { name: String, size: usize, mode: u32, uid: u64 },
    Directory { name: String, mode: u32, mtime: u64 },
    Symlink { name: String, target: String },
    Hardlink { name: String, to: usize },
    Whiteout { name: String },
    Opaque { name: String },
    Device { name: String, minor: u32 },
    Fifo { name: String },
    Attributes { name: String, value: Vec<u8> },
}

fn name() -> impl Strategy<Value = String> {
    // Few and short, so that entries meet; sometimes too long for the old field.
    prop_oneof![
        8 => prop::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/")),
        1 => Just("./".to_owned()),
        1 => "[xy]{101,140}",
        1 => Just("d/".to_owned() + &"long/".repeat(25) + "end"),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (name(), 0usize..5000, 0u32..0o10000, 0u64..3_000_000)
            .prop_map(|(name, size, mode, uid)| Step::File { name, size, mode, uid }),
        1 => (name(), 200_000usize..400_000)
            .prop_map(|(name, size)| Step::File { name, size, mode: 0o644, uid: 0 }),
        4 => (name(), 0u32..0o10000, 0u64..2_000_000_000)
            .prop_map(|(name, mode, mtime)| Step::Directory { name, mode, mtime }),
        2 => (name(), "(/|\\.\\./)?[abc](/[abc])?")
            .prop_map(|(name, target)| Step::Symlink { name, target }),
        2 => (name(), any::<usize>()).prop_map(|(name, to)| Step::Hardlink { name, to }),
        1 => name().prop_map(|name| Step::Whiteout { name }),
        1 => name().prop_map(|name| Step::Opaque { name }),
        1 => (name(), 1u32..300_000).prop_map(|(name, minor)| Step::Device { name, minor }),
        1 => name().prop_map(|name| Step::Fifo { name }),
        1 => (name(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(name, value)| Step::Attributes { name, value }),
    ]
}

fn write(steps: &[Step]) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut files: Vec<String> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        tar = match step {
            Step::File { name, size, mode, uid } => {
                files.push(name.clone());
                tar.entry(&Fields {
                    name: name.as_bytes(),
                    contents: &noise(*size, number as u64),
                    mode: *mode,
                    uid: *uid,
                    ..Fields::default()
                })
            }
            Step::Directory { name, mode, mtime } => tar.entry(&Fields {
                name: format!("{name}/").as_bytes(),
                kind: EntryType::Directory,
                mode: *mode,
                mtime: *mtime,
                ..Fields::default()
            }),
            Step::Symlink { name, target } => tar.symlink(name, target),
            Step::Hardlink { name, to } => match files.is_empty() {
                true => tar,
                false => tar.hardlink(name, &files[to % files.len()]),
            },
            Step::Whiteout { name } => match name.rsplit_once('/') {
                Some((dir, last)) => tar.file(&format!("{dir}/.wh.{last}"), b""),
                None => tar.file(&format!(".wh.{name}"), b""),
            },
            Step::Opaque { name } => tar.dir(name).file(&format!("{name}/.wh..wh..opq"), b""),
            Step::Device { name, minor } => tar.entry(&Fields {
                name: name.as_bytes(),
                kind: EntryType::Char,
                device: (1, *minor),
                ..Fields::default()
            }),
            Step::Fifo { name } => tar.entry(&Fields {
                name: name.as_bytes(),
                kind: EntryType::Fifo,
                ..Fields::default()
            }),
            Step::Attributes { name, value } => tar
                .pax(&[("SCHILY.xattr.user.note", value), ("mtime", b"1234.000000567")])
                .file(name, b"with attributes"),
        };
    }
    tar.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A tar is refused, or it rebuilds exactly and the check agrees.
    #[test]
    fn random_trees_rebuild(steps in prop::collection::vec(step(), 0..40), trailer in 0usize..3000) {
        let mut tar = write(&steps);
        tar.resize(tar.len() + trailer, 0);
        let dir = tempfile::tempdir().unwrap();
        match layer::unpack(&tar[..], dir.path(), &Limits::default()) {
            // Names meet in ways that no tree can have.
            Err(LayerError::Parent(_) | LayerError::LinkTarget { .. } | LayerError::Escape(_)) => {}
            Err(error) => prop_assert!(false, "{}", minke_engine_images::chain(&error)),
            Ok((unpacked, _)) => {
                prop_assert_eq!(unpacked.footer.diff_id.0, Digest::of(&tar));
                prop_assert!(rebuild(dir.path()) == tar, "the rebuilt tar differs");
                let footer = layer::check(dir.path());
                prop_assert!(footer.is_ok(), "{}", minke_engine_images::chain(&footer.unwrap_err()));
            }
        }
    }
}

#[test]
fn ordinary_trees_are_not_refused() {
    // The property above would hold for an unpacker that refuses everything.
    let names = ["etc/", "etc/passwd", "usr/bin/sh", "var/lib/x"];
    let tar = names.iter().fold(Tar::default(), |tar, name| match name.ends_with('/') {
        true => tar.dir(name),
        false => tar.file(name, name.as_bytes()),
    });
    let dir = unpack(&tar.end());
    assert_eq!(fs::read(dir.path().join("fs/usr/bin/sh")).unwrap(), b"usr/bin/sh");
}

#[test]
fn padding_that_is_not_zero_and_missing_end_rebuild() {
    let mut tar = Tar::default().file("a", b"hello").open_end();
    tar[512 + 100] = 0xAA;
    let dir = unpack(&tar);
    assert!(rebuild(dir.path()) == tar);
    tar.extend_from_slice(&[0; 1024]);
    tar.extend_from_slice(b"what follows the end belongs to the digest too");
    let dir = unpack(&tar);
    assert!(rebuild(dir.path()) == tar);
}

#[test]
fn sparse_files_of_every_kind_rebuild_with_their_holes() {
    let mut old = tar::Header::new_gnu();
    old.as_old_mut().name[..3].copy_from_slice(b"old");
    old.set_entry_type(EntryType::GNUSparse);
    old.set_mode(0o644);
    old.set_uid(0);
    old.set_gid(0);
    old.set_mtime(0);
    old.set_size(8);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.set_real_size(2_000_000);
    octal(&mut gnu.sparse[0].offset, 1_000_000);
    octal(&mut gnu.sparse[0].numbytes, 8);
    octal(&mut gnu.sparse[1].offset, 2_000_000);
    octal(&mut gnu.sparse[1].numbytes, 0);
    old.set_cksum();
    let mut map = b"1\n4096\n8\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"new-data");
    let tar = Tar::default()
        .raw(old.as_bytes())
        .raw(b"old-data")
        .raw(&[0; 504])
        .pax(&[("GNU.sparse.size", b"20000"), ("GNU.sparse.map", b"100,8,19000,1")])
        .file("middle", b"mid-data!")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"8192"),
        ])
        .file("GNUSparseFile.0/new", &map)
        .end();
    let dir = unpack(&tar);
    assert!(rebuild(dir.path()) == tar);
    layer::check(dir.path()).unwrap();
    let old = fs::read(dir.path().join("fs/old")).unwrap();
    assert_eq!((old.len(), &old[1_000_000..1_000_008]), (2_000_000, &b"old-data"[..]));
    let middle = fs::read(dir.path().join("fs/middle")).unwrap();
    assert_eq!((middle.len(), &middle[100..108], middle[19_000]), (20_000, &b"mid-data"[..], b'!'));
    let new = fs::read(dir.path().join("fs/new")).unwrap();
    assert_eq!((new.len(), &new[4096..4104]), (8192, &b"new-data"[..]));
}

fn octal(field: &mut [u8; 12], number: u64) {
    field.copy_from_slice(format!("{number:011o}\0").as_bytes());
}

/// A small layer with one of everything.
fn sample() -> Vec<u8> {
    Tar::default()
        .dir("d")
        .file("d/file", &noise(3000, 1))
        .file("big", &noise(2 << 20, 2))
        .hardlink("d/link", "d/file")
        .symlink("sym", "d/file")
        .pax(&[("SCHILY.xattr.user.note", b"x")])
        .file("noted", b"contents")
        .file("gone/.wh.old", b"")
        .end()
}

#[test]
fn any_alteration_of_the_view_is_found() {
    let alterations: BTreeMap<&str, fn(&Path)> = BTreeMap::from([
        ("a byte", (|view| flip(&view.join("big"), 1_234_567)) as fn(&Path)),
        ("the first byte through a link", |view| flip(&view.join("d/link"), 0)),
        ("longer", |view| append(&view.join("noted"))),
        ("shorter", |view| truncate(&view.join("big"))),
        ("a file gone", |view| fs::remove_file(view.join("noted")).unwrap()),
        ("a file more", |view| fs::write(view.join("d/more"), "").unwrap()),
        ("a mode", |view| {
            fs::set_permissions(view.join("noted"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("an owner", |view| std::os::unix::fs::lchown(view.join("sym"), Some(5), None).unwrap()),
        ("a link's target", |view| {
            fs::remove_file(view.join("sym")).unwrap();
            symlink("elsewhere", view.join("sym")).unwrap();
        }),
        ("a time", |view| {
            let file = fs::File::open(view.join("d")).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("an attribute", |view| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(view.join("noted"), "user.note", b"y", flags).unwrap();
        }),
        ("a directory that hides", |view| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(view.join("d"), "trusted.overlay.opaque", b"y", flags).unwrap();
        }),
        ("a whiteout gone", |view| fs::remove_file(view.join("gone/old")).unwrap()),
        ("a file made a directory", |view| {
            fs::remove_file(view.join("noted")).unwrap();
            fs::create_dir(view.join("noted")).unwrap();
        }),
    ]);
    for (what, alter) in alterations {
        let dir = unpack(&sample());
        layer::check(dir.path()).unwrap();
        alter(&dir.path().join("fs"));
        let found = layer::check(dir.path());
        assert!(matches!(found, Err(LayerError::Damaged { .. })), "{what}: {found:?}");
    }
}

#[test]
fn any_altered_byte_of_the_manifest_is_found() {
    let dir = unpack(&sample());
    let path = dir.path().join("manifest");
    let length = fs::metadata(&path).unwrap().len();
    for at in (0..length).step_by(7).chain([length - 1]) {
        flip(&path, at);
        assert!(layer::check(dir.path()).is_err(), "byte {at}");
        flip(&path, at);
    }
    layer::check(dir.path()).unwrap();
    truncate(&path);
    assert!(layer::check(dir.path()).is_err());
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    // As a failing disk would: without a trace in the metadata.
    file.set_modified(modified).unwrap();
}

fn append(path: &Path) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(b"!").unwrap();
}

fn truncate(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::File::options().write(true).open(path).unwrap().set_len(length - 1).unwrap();
}

/// Manifests of version 1 are read for ever: `fixtures/manifest-v1` was written by the first program.
#[test]
fn version_1_rebuilds() {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifest-v1");
    let expected = Digest::of(sample());
    if std::env::var_os("MINKE_WRITE_FIXTURES").is_some() {
        let dir = unpack(&sample());
        fs::create_dir_all(fixture.parent().unwrap()).unwrap();
        fs::copy(dir.path().join("manifest"), &fixture).unwrap();
    }
    let dir = unpack(&sample());
    fs::copy(&fixture, dir.path().join("manifest")).unwrap();
    assert_eq!(layer::check(dir.path()).unwrap().diff_id.0, expected);
}

#[test]
fn packed_directories_come_back() {
    let upper = tempfile::tempdir().unwrap();
    let path = upper.path();
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/file"), noise(70_000, 3)).unwrap();
    fs::hard_link(path.join("a/b/file"), path.join("a/link")).unwrap();
    symlink("/etc/passwd", path.join("a/sym")).unwrap();
    fs::write(path.join("a").join("n".repeat(200)), "long name").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path.join("a/b"), "trusted.overlay.opaque", b"y", flags).unwrap();
    rustix::fs::setxattr(path.join("a/b/file"), "user.note", b"kept", flags).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::empty();
    rustix::fs::mknodat(rustix::fs::CWD, path.join("a/gone"), kind, mode, 0).unwrap();
    let mut tar = Vec::new();
    let packed = layer::pack(path, &mut tar, &Limits::default()).unwrap();
    assert_eq!(packed.entries, 8);
    let dir = unpack(&tar);
    layer::check(dir.path()).unwrap();
    let mut again = Vec::new();
    layer::pack(&dir.path().join("fs"), &mut again, &Limits::default()).unwrap();
    assert!(again == tar, "packing the view gives another tar");
}
