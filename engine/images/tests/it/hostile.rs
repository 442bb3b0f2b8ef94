//! Layers that mean harm. Each must be refused with an error that says why, or unpack to something that
//! stays inside its directory; the outside is watched.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use minke_engine_images::layer::{self, LayerError};
use minke_engine_images::{Limits, chain};
use tar::EntryType;

use crate::tars::{Fields, Tar};

/// Unpacks into `<dir>/layer`; `<dir>/outside` is what must not change.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "untouched").unwrap();
        Self { dir }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.dir.path().join("layer")
    }

    fn view(&self, path: &str) -> std::path::PathBuf {
        self.layer().join("fs").join(path)
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").display().to_string()
    }

    fn unpack(&self, tar: &[u8]) -> Result<(), LayerError> {
        let result = layer::unpack(tar, &self.layer(), &limits()).map(|_| ());
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was put outside");
        assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1, "linked from inside");
        result
    }
}

fn limits() -> Limits {
    Limits { entries: 1000, bytes: 64 << 20, ..Limits::default() }
}

fn refused(tar: Vec<u8>) -> LayerError {
    let ground = Ground::new();
    ground.unpack(&tar).expect_err("this layer must be refused")
}

/// Unpacks, and manifest and view agree.
fn accepted(tar: Vec<u8>) -> Ground {
    let ground = Ground::new();
    ground.unpack(&tar).unwrap_or_else(|error| panic!("{}", chain(&error)));
    layer::check(&ground.layer()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    ground
}

#[test]
fn dotdot_name_is_refused() {
    assert!(matches!(refused(Tar::default().file("../evil", b"x").end()), LayerError::Escape(_)));
    let tar = Tar::default().dir("a").file("a/../../evil", b"x").end();
    assert!(matches!(refused(tar), LayerError::Escape(_)));
}

#[test]
fn absolute_name_lands_inside() {
    let ground = accepted(Tar::default().file("/etc/evil", b"x").end());
    assert_eq!(fs::read(ground.view("etc/evil")).unwrap(), b"x");
}

#[test]
fn absolute_symlink_is_followed_inside_only() {
    let ground = Ground::new();
    let outside = ground.outside();
    let tar = Tar::default().symlink("out", &outside).file("out/evil", b"x").end();
    // The target does not exist inside the layer.
    assert!(matches!(ground.unpack(&tar), Err(LayerError::Parent(_))));
}

#[test]
fn symlink_to_etc_writes_the_layers_etc() {
    let tar = Tar::default().dir("etc").symlink("link", "/etc").file("link/passwd", b"mine").end();
    let ground = accepted(tar);
    assert_eq!(fs::read(ground.view("etc/passwd")).unwrap(), b"mine");
}

#[test]
fn climbing_symlink_stops_at_the_root() {
    let tar = Tar::default().symlink("up", "../../../../..").file("up/evil", b"x").end();
    let ground = accepted(tar);
    assert_eq!(fs::read(ground.view("evil")).unwrap(), b"x");
}

#[test]
fn file_over_a_symlink_replaces_it() {
    let ground = Ground::new();
    let target = format!("{}/secret", ground.outside());
    let tar = Tar::default().symlink("secret", &target).file("secret", b"mine").end();
    ground.unpack(&tar).unwrap();
    assert!(fs::symlink_metadata(ground.view("secret")).unwrap().is_file());
}

#[test]
fn directory_over_a_symlink_replaces_it() {
    let ground = Ground::new();
    let tar = Tar::default().symlink("d", &ground.outside()).dir("d").file("d/evil", b"x").end();
    ground.unpack(&tar).unwrap();
    assert!(fs::symlink_metadata(ground.view("d")).unwrap().is_dir());
}

#[test]
fn hardlink_outside_is_refused() {
    let ground = Ground::new();
    let secret = format!("{}/secret", ground.outside());
    let tar = Tar::default().hardlink("link", &secret).end();
    assert!(matches!(ground.unpack(&tar), Err(LayerError::LinkTarget { .. })));
    assert!(matches!(
        refused(Tar::default().hardlink("link", "../outside/secret").end()),
        LayerError::Escape(_)
    ));
}

#[test]
fn hardlink_through_a_symlink_stays_inside() {
    let ground = Ground::new();
    let tar = Tar::default().symlink("d", &ground.outside()).hardlink("link", "d/secret").end();
    assert!(matches!(ground.unpack(&tar), Err(LayerError::LinkTarget { .. })));
}

#[test]
fn hardlink_to_a_symlink_links_the_link() {
    let ground = Ground::new();
    let secret = format!("{}/secret", ground.outside());
    let tar = Tar::default().symlink("s", &secret).hardlink("h", "s").file("h", b"x").end();
    ground.unpack(&tar).unwrap();
    assert!(fs::symlink_metadata(ground.view("s")).unwrap().is_symlink());
    assert_eq!(fs::read(ground.view("h")).unwrap(), b"x");
}

#[test]
fn hardlink_to_a_directory_or_nothing_is_refused() {
    let tar = Tar::default().dir("d").hardlink("link", "d").end();
    assert!(matches!(refused(tar), LayerError::LinkTarget { .. }));
    let tar = Tar::default().hardlink("self", "self").end();
    assert!(matches!(refused(tar), LayerError::LinkTarget { .. }));
}

#[test]
fn symlink_loops_are_refused() {
    let tar = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").end();
    assert!(matches!(refused(tar), LayerError::Parent(_)));
}

#[test]
fn magic_links_are_not_followed() {
    let tar = Tar::default().symlink("p", "/proc/self/root").file("p/evil", b"").end();
    assert!(matches!(refused(tar), LayerError::Parent(_)));
}

#[test]
fn file_as_parent_is_refused() {
    let tar = Tar::default().file("f", b"x").file("f/x", b"y").end();
    assert!(matches!(refused(tar), LayerError::Parent(_)));
}

#[test]
fn too_many_entries_are_refused_with_the_limit() {
    let tar = (0..1001).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), b"")).end();
    let error = refused(tar);
    assert_eq!(error.to_string(), "the number of entries is over the limit of 1000");
}

/// Many files take time and room, and no memory to speak of.
#[test]
fn a_hundred_thousand_files_are_unpacked_in_little_memory() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let (files, folders) = (100_000, 100);
    let mut tar = Tar::default();
    for number in 0..folders {
        tar = tar.dir(&format!("{number}"));
    }
    let tar = (0..files).fold(tar, |tar, n| tar.file(&format!("{}/{n}", n % folders), b"")).end();
    let before = peak();
    let limits = Limits { entries: 200_000, bytes: 1 << 30, ..Limits::default() };
    let (unpacked, _) = layer::unpack(&tar[..], dir.path(), &limits).unwrap();
    assert_eq!(unpacked.footer.entries, files + folders);
    let grown = peak() - before;
    assert!(grown < 16_000, "{grown} kB");
    let last = dir.path().join("fs/99/99999");
    assert!(fs::symlink_metadata(last).unwrap().is_file());
}

#[test]
fn deep_and_long_paths_are_refused_with_the_limit() {
    let deep = "d/".repeat(201);
    assert_eq!(
        refused(Tar::default().file(&deep, b"").end()).to_string(),
        "the depth of a path is over the limit of 200"
    );
    let long = vec!["x".repeat(200); 30].join("/");
    assert_eq!(
        refused(Tar::default().file(&long, b"").end()).to_string(),
        "the length of a path is over the limit of 4095"
    );
    assert_eq!(
        refused(Tar::default().file(&"x".repeat(256), b"").end()).to_string(),
        "the length of a file name is over the limit of 255"
    );
}

#[test]
fn gzip_bomb_stops_at_the_byte_limit() {
    let ground = Ground::new();
    let fields = Fields { name: b"bomb", ..Fields::default() };
    let head = Tar::default().lying(&fields, 60 << 20).open_end();
    use std::io::Read;
    let bomb = head.chain(std::io::repeat(0));
    let error = layer::unpack(bomb, &ground.layer(), &limits()).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the size of the layer is over the limit of 67108864");
}

#[test]
fn huge_size_field_is_refused_before_anything_is_written() {
    let fields = Fields { name: b"huge", ..Fields::default() };
    let error = refused(Tar::default().lying(&fields, 1 << 40).end());
    assert_eq!(error.to_string(), "the size of a file is over the limit of 67108864");
}

#[test]
fn truncated_tars_are_refused() {
    let whole = Tar::default().file("a", &[7; 5000]).end();
    for length in [100, 512, 1000, 512 + 5000, 512 + 5119] {
        assert!(matches!(refused(whole[..length].to_vec()), LayerError::Truncated), "{length}");
    }
}

#[test]
fn huge_extended_header_is_refused() {
    let records = vec![b'x'; (1 << 20) + 1];
    let tar = Tar::default().pax(&[("comment", &records)]).file("a", b"").end();
    assert_eq!(refused(tar).to_string(), TOO_MUCH_EXTENDED);
}

const TOO_MUCH_EXTENDED: &str =
    "the size of an entry's extended headers is over the limit of 1048576";

/// A header with one record, which makes its body `length` bytes long.
fn extended(tar: Tar, kind: EntryType, key: &str, length: usize) -> Tar {
    let mut contents = format!("{length} {key}=").into_bytes();
    contents.resize(length - 1, b'0');
    contents.push(b'\n');
    tar.entry(&Fields { name: b"PaxHeaders/x", kind, contents: &contents, ..Fields::default() })
}

/// Nothing but headers before the first entry: they compress a thousand times, and are kept in memory.
#[test]
fn extended_headers_without_end_are_refused() {
    let kinds = [
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
    ];
    for kind in kinds {
        let many = |length: usize, count: usize| {
            let one = |tar, _| extended(tar, kind, "comment", length);
            (0..count).fold(Tar::default(), one).file("a", b"x").end()
        };
        // The layer as a whole would be small enough.
        assert_eq!(refused(many(1 << 20, 40)).to_string(), TOO_MUCH_EXTENDED, "{kind:?}");
        assert_eq!(refused(many(15, 1100)).to_string(), TOO_MUCH_EXTENDED, "{kind:?}");
        let is_name = matches!(kind, EntryType::GNULongName | EntryType::GNULongLink);
        if !is_name {
            accepted(many(1 << 20, 1));
            accepted(many(400 << 10, 2));
        }
    }
    let empty = Fields { kind: EntryType::XHeader, ..Fields::default() };
    let tar = (0..2100).fold(Tar::default(), |tar, _| tar.entry(&empty)).file("a", b"x").end();
    assert_eq!(refused(tar).to_string(), TOO_MUCH_EXTENDED);
}

#[test]
fn global_headers_hold_no_more_than_one_header_may() {
    let many = |key: fn(usize) -> String| {
        let each = |tar, number| {
            let tar = extended(tar, EntryType::XGlobalHeader, &key(number), 100 << 10);
            tar.file(&format!("{number}"), b"x")
        };
        (0..20).fold(Tar::default(), each).end()
    };
    // Attributes that are never set on a file are kept all the same.
    assert_eq!(
        refused(many(|number| format!("SCHILY.xattr.other.{number}"))).to_string(),
        "the size of all global headers is over the limit of 1048576"
    );
    // What takes the place of what was said before takes no more room, and what says nothing takes none.
    accepted(many(|_| "SCHILY.xattr.other".to_owned()));
    accepted(many(|number| format!("comment.{number}")));
}

#[test]
fn only_the_last_extended_header_counts_and_none_may_be_broken() {
    let tar = Tar::default().pax(&[("path", b"first"), ("uid", b"7")]).pax(&[("path", b"last")]);
    let ground = accepted(tar.file("a", b"x").end());
    assert_eq!(fs::metadata(ground.view("last")).unwrap().uid(), 0);
    let tar = Tar::default().pax(&[("uid", b"x")]).pax(&[("path", b"last")]).file("a", b"x").end();
    assert!(refused(tar).to_string().contains("wrong value"));
}

#[test]
fn broken_headers_are_refused() {
    let mut tar = Tar::default().file("a", b"x").end();
    tar[0] = b'b';
    assert!(refused(tar).to_string().contains("checksum is wrong"));
    let tar = Tar::default().raw(&[0; 512]).file("hidden", b"x").end();
    assert!(refused(tar).to_string().contains("something follows a zero block"));
    let kind = EntryType::new(b'V');
    let tar = Tar::default().entry(&Fields { kind, ..Fields::default() }).end();
    assert!(matches!(refused(tar), LayerError::Type { kind: 'V', .. }));
    let tar = Tar::default().pax(&[("path", b"a\0b")]).file("x", b"").end();
    assert!(refused(tar).to_string().contains("wrong value"));
}

#[test]
fn owners_that_do_not_fit_are_refused() {
    let tar = Tar::default().pax(&[("uid", b"4294967295")]).file("a", b"").end();
    assert!(matches!(refused(tar), LayerError::Owner(_)));
}

#[test]
fn overlayfs_cannot_be_steered_by_attributes() {
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.metacopy", b""),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.kept", b"yes"),
        ])
        .dir("d")
        .end();
    let ground = accepted(tar);
    let names = xattrs(&ground.view("d"));
    assert_eq!(names, ["user.kept"]);
}

fn xattrs(path: &Path) -> Vec<String> {
    let mut buffer = vec![0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut buffer[..]).unwrap();
    let names = buffer[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn whiteouts_hide_and_cannot_name_parents() {
    let ground = accepted(Tar::default().dir("d").file("d/.wh.gone", b"").end());
    let hidden = fs::symlink_metadata(ground.view("d/gone")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    for name in [".wh.", "d/.wh..", "d/.wh..."] {
        let error = refused(Tar::default().dir("d").file(name, b"").end());
        assert!(matches!(error, LayerError::Escape(_)), "{name}");
    }
}

#[test]
fn opaque_directories_are_marked() {
    let ground = accepted(Tar::default().dir("d").file("d/.wh..wh..opq", b"").end());
    assert_eq!(xattrs(&ground.view("d")), ["trusted.overlay.opaque"]);
    // A whiteout and a directory of the same name: the directory, without what was below it.
    for tar in [
        Tar::default().file(".wh.d", b"").dir("d").file("d/new", b"x").end(),
        Tar::default().dir("d").file("d/new", b"x").file(".wh.d", b"").end(),
    ] {
        let ground = accepted(tar);
        assert_eq!(xattrs(&ground.view("d")), ["trusted.overlay.opaque"]);
        assert_eq!(fs::read(ground.view("d/new")).unwrap(), b"x");
    }
}

#[test]
fn whiteout_through_a_symlink_stays_inside() {
    let ground = Ground::new();
    let tar = Tar::default().symlink("d", &ground.outside()).file("d/.wh.secret", b"").end();
    assert!(matches!(ground.unpack(&tar), Err(LayerError::Parent(_))));
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let broken: [&[(&str, &[u8])]; 4] = [
        &[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,4,2,4")],
        &[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,8")],
        &[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0")],
        &[("GNU.sparse.size", b"99999999999999"), ("GNU.sparse.map", b"0,8")],
    ];
    for records in broken {
        let error = refused(Tar::default().pax(records).file("s", &[1; 8]).end());
        assert!(matches!(error, LayerError::Header { .. } | LayerError::Limit { .. }), "{error}");
    }
}

#[test]
fn replacing_over_and_over_is_bounded_and_rebuilds() {
    let mut tar = Tar::default();
    for n in 0..100u8 {
        tar = tar.file("same", &[n; 100]);
    }
    let tar = tar.dir("same").file("same/below", b"x").file("same", b"end").end();
    let ground = accepted(tar.clone());
    let mut rebuilt = Vec::new();
    let mut reader = layer::Rebuilt::open(&ground.layer()).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut rebuilt).unwrap();
    assert!(rebuilt == tar);
}
