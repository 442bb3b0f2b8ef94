use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Value = BTreeMap<String, String>;

fn value(text: &str) -> Value {
    BTreeMap::from([("text".to_owned(), text.to_owned())])
}

fn document() -> (tempfile::TempDir, Document<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let document = Document::new(dir.path(), "state");
    (dir, document)
}

#[test]
fn nothing_saved_is_absent_and_not_an_error() {
    let (_dir, document) = document();
    assert_eq!(document.load().unwrap(), Loaded::Absent);
}

#[test]
fn what_was_saved_last_is_loaded() {
    let (_dir, document) = document();
    for text in ["one", "two", "three"] {
        document.save(&value(text)).unwrap();
        assert_eq!(document.load().unwrap(), Loaded::Current(value(text)));
    }
}

#[test]
fn a_removed_document_does_not_come_back() {
    let (_dir, document) = document();
    document.save(&value("one")).unwrap();
    document.save(&value("two")).unwrap();
    document.remove().unwrap();
    assert_eq!(document.load().unwrap(), Loaded::Absent);
    document.remove().unwrap();
}

#[test]
fn only_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, document) = document();
    document.save(&value("secret")).unwrap();
    let mode = fs::metadata(document.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_crash_at_any_point_of_a_save_leaves_the_old_or_the_new() {
    // The files as they are after each system call of the second save.
    let (_dir, document) = document();
    document.save(&value("old")).unwrap();
    let old = fs::read(document.path()).unwrap();
    let new = encode(2, &serde_json::to_vec(&value("new")).unwrap());
    let (tmp, prev) = (beside(document.path(), "tmp"), beside(document.path(), "prev"));
    type Stage<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a str);
    let stages: [Stage; 4] = [
        (&old, b"", &new[..new.len() / 2], "old"),
        (&old, b"", &new, "old"),
        (b"", &old, &new, "old"),
        (&new, &old, b"", "new"),
    ];
    for (current, previous, torn, expected) in stages {
        for (path, bytes) in [(document.path(), current), (&prev, previous), (&tmp, torn)] {
            let _ = fs::remove_file(path);
            if !bytes.is_empty() {
                fs::write(path, bytes).unwrap();
            }
        }
        assert_eq!(document.load().unwrap().value(), Some(value(expected)));
        document.save(&value("after")).unwrap();
        assert_eq!(document.load().unwrap(), Loaded::Current(value("after")));
    }
}

#[test]
fn a_damaged_current_does_not_push_out_a_whole_previous() {
    let (_dir, document) = document();
    document.save(&value("one")).unwrap();
    document.save(&value("two")).unwrap();
    fs::write(document.path(), b"garbage").unwrap();
    document.save(&value("three")).unwrap();
    fs::write(document.path(), b"garbage").unwrap();
    assert_eq!(document.load().unwrap().value(), Some(value("one")));
}

#[test]
fn a_value_of_another_shape_is_damage_and_not_garbage() {
    let (dir, document) = document();
    document.save(&value("one")).unwrap();
    let other: Document<Vec<u32>> = Document::new(dir.path(), "state");
    assert!(matches!(other.load(), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_full_disk_is_said_and_the_old_value_stays() {
    use rustix::mount::{MountFlags, mount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let dir = tempfile::tempdir().unwrap();
    // SAFETY: this thread alone leaves the mount namespace; it shares no descriptor table change.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .unwrap();
    mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();

    let document: Document<Value> = Document::new(dir.path(), "state");
    document.save(&value("small")).unwrap();
    let error = document.save(&value(&"x".repeat(200_000))).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(document.load().unwrap(), Loaded::Current(value("small")));
    document.save(&value("room again")).unwrap();
    assert_eq!(document.load().unwrap(), Loaded::Current(value("room again")));
}

#[derive(Debug, Clone)]
enum Damage {
    Truncate(usize),
    Flip { at: usize, bit: u8 },
    Append(Vec<u8>),
    Zero { from: usize, count: usize },
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<usize>().prop_map(Damage::Truncate),
        (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        prop::collection::vec(any::<u8>(), 1..20).prop_map(Damage::Append),
        (any::<usize>(), 1..600usize).prop_map(|(from, count)| Damage::Zero { from, count }),
    ]
}

fn inflict(path: &Path, damage: &Damage) {
    let mut bytes = fs::read(path).unwrap();
    match damage {
        Damage::Truncate(to) => bytes.truncate(to % bytes.len()),
        Damage::Flip { at, bit } => {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        Damage::Append(more) => bytes.extend(more),
        Damage::Zero { from, count } => {
            let from = from % bytes.len();
            let to = (from + count).min(bytes.len());
            bytes[from..to].fill(0);
        }
    }
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_to_the_current_generation_gives_the_previous(
        text in ".{0,400}",
        damage in any_damage(),
    ) {
        let (_dir, document) = document();
        document.save(&value("previous")).unwrap();
        document.save(&value(&text)).unwrap();
        inflict(document.path(), &damage);
        let loaded = document.load().unwrap();
        let is_previous = matches!(&loaded, Loaded::Previous { value: v, .. } if *v == value("previous"));
        prop_assert!(is_previous, "{loaded:?}");
    }

    #[test]
    fn damage_to_both_generations_is_an_error_and_never_garbage(
        text in ".{0,400}",
        first in any_damage(),
        second in any_damage(),
    ) {
        let (_dir, document) = document();
        document.save(&value("previous")).unwrap();
        document.save(&value(&text)).unwrap();
        inflict(document.path(), &first);
        inflict(&beside(document.path(), "prev"), &second);
        let is_damaged = matches!(document.load(), Err(StoreError::Damaged { .. }));
        prop_assert!(is_damaged);
        document.save(&value("healed")).unwrap();
        prop_assert_eq!(document.load().unwrap(), Loaded::Current(value("healed")));
    }
}
