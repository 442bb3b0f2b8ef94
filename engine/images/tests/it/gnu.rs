//! GNU tar as the reference: what it packs we unpack to the same tree and give back byte for byte, and
//! what we pack it unpacks to the same tree.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use minke_engine_images::{Limits, chain, layer};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::tars::noise;

/// How many trees, unless `MINKE_SEEDS` says otherwise.
const CASES: u32 = 12;

/// Something in a directory.
#[derive(Debug, Clone)]
enum Thing {
    File(usize),
    Sparse(u64),
    Directory,
    Symlink(String),
    /// To the file made last.
    Hardlink,
    Fifo,
    Device(u32, u32),
}

#[derive(Debug, Clone)]
struct Entry {
    /// Below which of the directories made so far.
    parent: usize,
    name: Vec<u8>,
    thing: Thing,
    mode: u32,
    owner: (u32, u32),
    time: (i64, u32),
    xattr: Option<Vec<u8>>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-z][a-z0-9.-]{0,12}".prop_map(String::into_bytes),
        1 => "[a-z]{90,110}".prop_map(String::into_bytes),
        1 => "[a-z]{240,255}".prop_map(String::into_bytes),
        // Not UTF-8, with spaces and line ends: names are bytes.
        1 => prop::collection::vec(prop_oneof![Just(b' '), Just(b'\n'), Just(0xff), 1u8..=46, 48u8..], 1..20)
            .prop_filter("dots mean something", |name| name != b"." && name != b".."),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        5 => (0usize..20_000).prop_map(Thing::File),
        1 => (100_000u64..3_000_000).prop_map(Thing::Sparse),
        3 => Just(Thing::Directory),
        2 => "[a-z./]{1,150}".prop_map(Thing::Symlink),
        1 => Just(Thing::Hardlink),
        1 => Just(Thing::Fifo),
        1 => (0u32..300, 1u32..300).prop_map(|(major, minor)| Thing::Device(major, minor)),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        (any::<usize>(), name(), thing(), 0u32..0o10000),
        prop_oneof![3 => Just((0, 0)), 1 => (0u32..4_000_000_000, 0u32..4_000_000_000)],
        (-1_000_000i64..4_000_000_000, prop_oneof![Just(0u32), 0u32..1_000_000_000]),
        prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..60)),
    )
        .prop_map(|((parent, name, thing, mode), owner, time, xattr)| Entry {
            parent,
            name,
            thing,
            mode,
            owner,
            time,
            xattr,
        })
}

fn path_of(parent: &Path, name: &[u8]) -> PathBuf {
    parent.join(std::ffi::OsString::from_vec(name.to_vec()))
}

/// Makes the tree; entries whose name is taken are left out.
fn make(root: &Path, entries: &[Entry]) {
    let mut directories = vec![root.to_owned()];
    let mut last_file: Option<PathBuf> = None;
    let mut made: Vec<(PathBuf, &Entry)> = Vec::new();
    for entry in entries {
        let path = path_of(&directories[entry.parent % directories.len()], &entry.name);
        // A whiteout is no name of a file.
        if fs::symlink_metadata(&path).is_ok() || path.as_os_str().len() > 2000 {
            continue;
        }
        match &entry.thing {
            Thing::File(length) => fs::write(&path, noise(*length, *length as u64)).unwrap(),
            Thing::Sparse(length) => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(*length).unwrap();
                file.write_all_at(b"in the middle", length / 2).unwrap();
            }
            Thing::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            Thing::Symlink(target) => symlink(target, &path).unwrap(),
            Thing::Hardlink => match &last_file {
                Some(file) => fs::hard_link(file, &path).unwrap(),
                None => continue,
            },
            Thing::Fifo => node(&path, FileType::Fifo, 0),
            Thing::Device(major, minor) => {
                node(&path, FileType::CharacterDevice, rustix::fs::makedev(*major, *minor));
            }
        }
        if matches!(entry.thing, Thing::File(_)) {
            last_file = Some(path.clone());
        }
        if !matches!(entry.thing, Thing::Hardlink) {
            made.push((path, entry));
        }
    }
    // The deepest first: making something in a directory gives that another time.
    for (path, entry) in made.iter().rev() {
        dress(path, entry);
    }
}

fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
}

fn dress(path: &Path, entry: &Entry) {
    let is_link = matches!(entry.thing, Thing::Symlink(_));
    std::os::unix::fs::lchown(path, Some(entry.owner.0), Some(entry.owner.1)).unwrap();
    if !is_link {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode)).unwrap();
    }
    let has_xattrs = matches!(entry.thing, Thing::File(_) | Thing::Directory);
    if let Some(value) = entry.xattr.as_ref().filter(|_| has_xattrs) {
        rustix::fs::lsetxattr(path, "user.test", value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec { tv_sec: entry.time.0, tv_nsec: entry.time.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn same(ours: &BTreeMap<Vec<u8>, String>, theirs: &BTreeMap<Vec<u8>, String>, what: &str) {
    for path in ours.keys().chain(theirs.keys()) {
        let name = String::from_utf8_lossy(path);
        assert_eq!(ours.get(path), theirs.get(path), "{what}: {name:?}");
    }
}

/// How everything below a directory looks, by path.
fn looks(root: &Path, nanoseconds: bool) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let kind = about.file_type();
            let inside = if kind.is_file() {
                blake3::hash(&fs::read(&path).unwrap()).to_string()
            } else if kind.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else if kind.is_char_device() {
                about.rdev().to_string()
            } else {
                String::new()
            };
            let links = if kind.is_dir() { 0 } else { about.nlink() };
            let text = format!(
                "{:o} {}:{} {}.{:09} {links} {inside} {:?}",
                about.mode(),
                about.uid(),
                about.gid(),
                about.mtime(),
                if nanoseconds { about.mtime_nsec() } else { 0 },
                xattr(&path),
            );
            let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            found.insert(below, text);
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

fn xattr(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let length = rustix::fs::lgetxattr(&*path, c"user.test", &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn tar(words: &[&str], root: &Path, archive: &Path) {
    let output = Command::new("tar")
        .args(words)
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-C"])
        .arg(root)
        .arg("-f")
        .arg(archive)
        .args(if words.contains(&"-c") { &["."][..] } else { &[] })
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn directory(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// Unpacks a tar of GNU tar's both ways, compares, and gives it back; then the other way round.
fn compare(entries: &[Entry], format: &str) {
    let dir = tempfile::tempdir().unwrap();
    let tree = directory(dir.path(), "tree");
    make(&tree, entries);
    let archive = dir.path().join("a.tar");
    tar(&["-c", format, "--sparse"], &tree, &archive);
    let bytes = fs::read(&archive).unwrap();
    let theirs = directory(dir.path(), "theirs");
    tar(&["-x", "-p"], &theirs, &archive);
    let ours = directory(dir.path(), "ours");
    layer::unpack(&bytes[..], &ours, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    same(&looks(&ours.join("fs"), true), &looks(&theirs, true), format);
    let mut again = Vec::new();
    std::io::Read::read_to_end(&mut layer::Rebuilt::open(&ours).unwrap(), &mut again).unwrap();
    assert!(again == bytes, "{format}: the tar differs when it is put together again");
    let packed = dir.path().join("b.tar");
    layer::pack(&ours.join("fs"), fs::File::create(&packed).unwrap(), &Limits::default())
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let back = directory(dir.path(), "back");
    tar(&["-x", "-p"], &back, &packed);
    // Layers that are made have times of whole seconds, as Docker's have.
    same(&looks(&back, false), &looks(&ours.join("fs"), false), "packed by us");
}

#[test]
fn trees_look_as_gnu_tar_makes_them() {
    let cases = std::env::var("MINKE_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut config = ProptestConfig::with_cases(cases.unwrap_or(CASES));
    config.failure_persistence = None;
    let strategy = (prop::collection::vec(entry(), 1..25), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&strategy, |(entries, is_gnu)| {
        compare(&entries, if is_gnu { "--format=gnu" } else { "--format=posix" });
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
