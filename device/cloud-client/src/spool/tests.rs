use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits { segment: 64, total: 200 };

fn drain(spool: &mut Spool) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let lines = spool.next(1024).unwrap();
        if lines.is_empty() {
            return all;
        }
        all.extend(lines.into_iter().map(|line| String::from_utf8(line).unwrap()));
    }
}

#[test]
fn the_oldest_lines_go_first_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    for number in 0..100 {
        spool.append(format!("line {number:04}").as_bytes()).unwrap();
    }
    let kept = drain(&mut spool);
    assert_eq!(kept.last().unwrap(), "line 0099");
    assert_eq!(kept.len() as u64 + spool.take_dropped(), 100);
    let bytes: u64 = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(bytes <= SMALL.total + SMALL.segment, "{bytes}");
}

#[test]
fn a_torn_line_is_cut_and_the_whole_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), Limits::default());
    spool.append(b"whole").unwrap();
    drop(spool);
    let path = segment_path(dir.path(), 1);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"to").unwrap();
    let mut spool = Spool::open(dir.path(), Limits::default());
    spool.append(b"next").unwrap();
    assert_eq!(drain(&mut spool), ["whole", "next"]);
}

#[test]
fn a_segment_that_cannot_be_read_is_counted_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment: 8, total: 1 << 20 };
    let mut spool = Spool::open(dir.path(), limits);
    for line in ["first", "second", "third"] {
        spool.append(line.as_bytes()).unwrap();
    }
    drop(spool);
    // A link to itself: reading it fails, as a bad block does.
    let broken = segment_path(dir.path(), 2);
    fs::remove_file(&broken).unwrap();
    std::os::unix::fs::symlink(&broken, &broken).unwrap();
    // In the place of a segment stands what is none, and the newest.
    fs::create_dir(segment_path(dir.path(), 9)).unwrap();

    let mut spool = Spool::open(dir.path(), limits);
    assert_eq!(spool.take_dropped(), 1);
    spool.append(b"fourth").unwrap();
    assert_eq!(drain(&mut spool), ["first", "third", "fourth"]);
    spool.acknowledge().unwrap();
    assert_eq!(Spool::open(dir.path(), limits).take_dropped(), 0, "it is counted once");
}

#[test]
fn a_spool_that_has_no_directory_yet_opens_and_counts_until_it_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("file");
    fs::write(&in_the_way, "").unwrap();
    let mut spool = Spool::open(&in_the_way.join("spool"), SMALL);
    spool.append(b"lost").unwrap_err();
    assert!(!spool.has_more());
    fs::remove_file(&in_the_way).unwrap();
    spool.append(b"kept").unwrap();
    assert_eq!(drain(&mut spool), ["kept"]);
    assert_eq!(spool.take_dropped(), 1);
}

#[derive(Debug, Clone)]
enum Call {
    Append(usize),
    Next,
    Acknowledge,
    Rewind,
    /// The process dies; the end of the newest segment may be torn.
    Crash(Option<u8>),
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => (0..40usize).prop_map(Call::Append),
        3 => Just(Call::Next),
        2 => Just(Call::Acknowledge),
        1 => Just(Call::Rewind),
        1 => prop::option::of(1..9u8).prop_map(Call::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn lines_come_in_order_and_come_again_only_if_not_acknowledged(
        calls in prop::collection::vec(any_call(), 1..80),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let roomy = Limits { segment: 100, total: 1 << 20 };
        let mut spool = Spool::open(dir.path(), roomy);
        let (mut appended, mut given, mut acknowledged) = (0, 0, 0);
        for call in calls {
            match call {
                Call::Append(padding) => {
                    let line = format!("{appended}:{}", "x".repeat(padding));
                    spool.append(line.as_bytes()).unwrap();
                    appended += 1;
                }
                Call::Next => {
                    for line in spool.next(50).unwrap() {
                        let line = String::from_utf8(line).unwrap();
                        let number: u64 = line.split(':').next().unwrap().parse().unwrap();
                        prop_assert_eq!(number, given);
                        given += 1;
                    }
                }
                Call::Acknowledge => {
                    spool.acknowledge().unwrap();
                    acknowledged = given;
                }
                Call::Rewind => {
                    spool.rewind();
                    given = acknowledged;
                }
                Call::Crash(torn) => {
                    drop(spool);
                    if let Some(torn) = torn {
                        let newest = fs::read_dir(dir.path()).unwrap().flatten()
                            .map(|entry| entry.path())
                            .filter(|path| path.extension().is_some_and(|e| e == "ndjson"))
                            .max();
                        if let Some(path) = newest {
                            let mut file = OpenOptions::new().append(true).open(path).unwrap();
                            file.write_all(&vec![b'x'; usize::from(torn)]).unwrap();
                        }
                    }
                    spool = Spool::open(dir.path(), roomy);
                    given = acknowledged;
                }
            }
            prop_assert_eq!(spool.has_more(), given < appended);
        }
        let rest = drain(&mut spool);
        prop_assert_eq!(rest.len() as u64, appended - given);
        prop_assert_eq!(spool.take_dropped(), 0);
    }
}
