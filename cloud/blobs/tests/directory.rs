//! The store in a directory: what is acknowledged is there, what is not is not seen.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use minke_cloud_blobs::{BlobError, ByteStream, Digest, DirBlobs, DirOptions, Key, StageId, Store};
use proptest::prelude::*;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

const NO_LIMIT: u64 = u64::MAX;

fn open(dir: &Path) -> Store {
    DirBlobs::open(dir, &DirOptions::default()).unwrap().into()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn bytes(chunks: &[&[u8]]) -> ByteStream<'static> {
    let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks).boxed()
}

async fn read(store: &Store, key: &Key) -> Option<Vec<u8>> {
    let reading = store.read(key, None).await.unwrap()?;
    let chunks: Vec<Bytes> = reading.bytes.try_collect().await.unwrap();
    Some(chunks.concat())
}

#[tokio::test]
async fn small_objects_are_replaced_whole_and_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (name, text) in [("a/2", "two"), ("a/1", "one"), ("a/3/x", "deep"), ("a/1", "uno")] {
        store.put(&key(name), Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    assert_eq!(store.get(&key("a/1"), 3).await.unwrap().unwrap(), "uno");
    let too_large = store.get(&key("a/1"), 2).await;
    assert!(matches!(too_large, Err(BlobError::TooLarge { limit: 2, .. })));
    let names = |after, limit| {
        let store = store.clone();
        async move {
            let children = store.children(&key("a"), after, limit).await.unwrap();
            children.into_iter().map(|child| (child.name, child.is_prefix)).collect::<Vec<_>>()
        }
    };
    let all = [("1".to_owned(), false), ("2".to_owned(), false), ("3".to_owned(), true)];
    assert_eq!(names(None, 9).await, all);
    assert_eq!(names(Some("1"), 1).await, all[1..2]);
    assert!(store.head(&key("a/3")).await.unwrap().is_none(), "a prefix is no object");
    assert!(store.head(&key("a/1/x")).await.unwrap().is_none(), "an object has nothing below");
    assert!(store.delete(&key("a/1")).await.unwrap());
    assert!(!store.delete(&key("a/1")).await.unwrap());
    store.delete_all(&key("a")).await.unwrap();
    assert!(names(None, 9).await.is_empty());
}

#[tokio::test]
async fn ranges_are_cut_to_the_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.put(&key("k"), Bytes::from_static(b"0123456789")).await.unwrap();
    store.put(&key("empty"), Bytes::new()).await.unwrap();
    for (range, expected) in [(2..5, "234"), (8..99, "89"), (0..0, ""), (9..10, "9")] {
        let reading = store.read(&key("k"), Some(range)).await.unwrap().unwrap();
        assert_eq!(reading.meta.size, 10);
        let chunks: Vec<Bytes> = reading.bytes.try_collect().await.unwrap();
        assert_eq!(chunks.concat(), expected.as_bytes());
    }
    let beyond = store.read(&key("k"), Some(10..11)).await;
    assert!(matches!(beyond, Err(BlobError::Range { size: 10, start: 10, .. })));
    assert_eq!(read(&store, &key("empty")).await.unwrap(), b"");
    assert!(store.read(&key("nothing"), None).await.unwrap().is_none());
}

#[tokio::test]
async fn an_upload_goes_on_where_its_sender_broke_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = store.stage("ann").await.unwrap();
    let broken = stream::iter([
        Ok(Bytes::from_static(b"abc")),
        Err(io::Error::other("the connection is gone")),
    ]);
    let cut = store.append(&id, Some(0), broken.boxed(), NO_LIMIT).await;
    assert!(matches!(cut, Err(BlobError::Source(..))));
    assert_eq!(store.staged(&id).await.unwrap(), Some(3));
    let gap = store.append(&id, Some(4), bytes(&[b"x"]), NO_LIMIT).await;
    assert!(matches!(gap, Err(BlobError::Offset { have: 3, at: 4, .. })));
    drop(store);

    // Another process: the hash so far is unknown and the file is read.
    let store = open(dir.path());
    assert_eq!(store.append(&id, Some(3), bytes(&[b"de", b"f"]), NO_LIMIT).await.unwrap(), 6);
    let lie = store.publish(&id, &key("k"), &Digest::of(b"abcdeF")).await;
    let expected = Digest::of(b"abcdef");
    assert!(matches!(lie, Err(BlobError::Digest { actual, .. }) if actual == expected));
    assert!(store.head(&key("k")).await.unwrap().is_none());
    assert_eq!(store.publish(&id, &key("k"), &expected).await.unwrap(), 6);
    assert_eq!(read(&store, &key("k")).await.unwrap(), b"abcdef");
    assert!(matches!(store.append(&id, None, bytes(&[]), 9).await, Err(BlobError::NoStage(_))));
}

#[tokio::test]
async fn an_upload_beyond_its_limit_is_cut_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = store.stage("ann").await.unwrap();
    store.append(&id, None, bytes(&[b"0123"]), 10).await.unwrap();
    let more = [0; 600 * 1024];
    let beyond = store.append(&id, None, bytes(&[b"456", &more, &more]), 1_000_000).await;
    assert!(matches!(beyond, Err(BlobError::TooLarge { limit: 1_000_000, .. })));
    assert_eq!(store.staged(&id).await.unwrap(), Some(4));
    store.append(&id, Some(4), bytes(&[b"56"]), 10).await.unwrap();
    store.publish(&id, &key("k"), &Digest::of(b"012356")).await.unwrap();
}

#[tokio::test]
async fn an_append_whose_caller_is_dropped_leaves_a_usable_upload() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = store.stage("ann").await.unwrap();
    let chunk = Bytes::from(vec![5; 700_000]);
    for _ in 0..3 {
        let before = store.staged(&id).await.unwrap();
        let endless = stream::iter([Ok(chunk.clone())]).chain(stream::pending()).boxed();
        let mut append = store.append(&id, None, endless, NO_LIMIT);
        // Until the write is under way; then the caller goes, as a handler does whose client left.
        while store.staged(&id).await.unwrap() == before {
            assert!(futures_util::poll!(&mut append).is_pending());
        }
    }
    let have = store.append(&id, None, bytes(&[b"end"]), NO_LIMIT).await.unwrap();
    let mut expected = vec![5; have as usize - 3];
    expected.extend_from_slice(b"end");
    store.publish(&id, &key("k"), &Digest::of(&expected)).await.unwrap();
}

#[tokio::test]
async fn stale_uploads_and_torn_writes_are_cleared_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (old, young) = (store.stage("ann").await.unwrap(), store.stage("ann").await.unwrap());
    std::fs::write(dir.path().join("trash/torn"), b"half").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    let path = dir.path().join("staging").join(old.to_string());
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(long_ago).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.staged(&old).await.unwrap(), None);
    assert_eq!(store.staged(&young).await.unwrap(), Some(0));
    assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
    assert_eq!(store.discard_stale(SystemTime::now() + Duration::from_secs(9)).await.unwrap(), 1);
    assert_eq!(store.staged(&young).await.unwrap(), None);
}

#[tokio::test]
async fn uploads_at_once_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let options = DirOptions { max_stages: 2, ..DirOptions::default() };
    let store: Store = DirBlobs::open(dir.path(), &options).unwrap().into();
    let first = store.stage("ann").await.unwrap();
    store.stage("ann").await.unwrap();
    assert!(matches!(store.stage("ann").await, Err(BlobError::TooManyStages(2))));
    assert!(store.discard(&first).await.unwrap());
    assert!(!store.discard(&first).await.unwrap());
    store.stage("ann").await.unwrap();
}

#[tokio::test]
async fn an_owner_with_many_uploads_leaves_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let options = DirOptions { max_stages: 9, max_stages_of_owner: 2, ..DirOptions::default() };
    let store: Store = DirBlobs::open(dir.path(), &options).unwrap().into();
    let first = store.stage("ann").await.unwrap();
    store.stage("ann").await.unwrap();
    let one_more = store.stage("ann").await.unwrap_err();
    assert!(matches!(&one_more, BlobError::TooManyOfOwner { limit: 2, .. }), "{one_more}");
    store.stage("bob").await.unwrap();
    store.append(&first, None, bytes(&[b"abc"]), NO_LIMIT).await.unwrap();
    store.publish(&first, &key("k"), &Digest::of(b"abc")).await.unwrap();
    store.stage("ann").await.unwrap();
}

#[tokio::test]
async fn an_upload_that_ends_without_its_asker_frees_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let options = DirOptions { max_stages: 1, ..DirOptions::default() };
    let store: Store = DirBlobs::open(dir.path(), &options).unwrap().into();
    for round in 0..4 {
        let id = store.stage("ann").await.unwrap();
        store.append(&id, None, bytes(&[b"abc"]), NO_LIMIT).await.unwrap();
        let (key, digest) = (key(&format!("k{round}")), Digest::of(b"abc"));
        let mut publish = store.publish(&id, &key, &digest);
        // Until it is under way; then the caller goes, as a handler does whose client left.
        assert!(futures_util::poll!(&mut publish).is_pending());
        drop(publish);
        while store.head(&key).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        while matches!(store.append(&id, None, bytes(&[]), 9).await, Err(BlobError::Busy(_))) {}
    }
}

#[tokio::test]
async fn an_upload_whose_file_was_lost_frees_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let options = DirOptions { max_stages: 2, ..DirOptions::default() };
    let store: Store = DirBlobs::open(dir.path(), &options).unwrap().into();
    let (lost, kept) = (store.stage("ann").await.unwrap(), store.stage("ann").await.unwrap());
    std::fs::remove_file(dir.path().join("staging").join(lost.to_string())).unwrap();
    assert_eq!(store.discard_stale(SystemTime::UNIX_EPOCH).await.unwrap(), 0);
    store.stage("ann").await.unwrap();
    assert_eq!(store.staged(&kept).await.unwrap(), Some(0));
}

/// On a file system of one megabyte in a mount namespace of this test's own thread.
#[test]
fn a_full_disk_is_said_and_tears_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // SAFETY: the file descriptor table is not unshared, so no other thread loses one.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fill(dir.path()));
    drop(runtime);
    rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
}

async fn fill(dir: &Path) {
    let store = open(dir);
    store.put(&key("small"), Bytes::from_static(b"kept")).await.unwrap();
    let id = store.stage("ann").await.unwrap();
    let part = vec![1; 300_000];
    store.append(&id, None, bytes(&[&part]), NO_LIMIT).await.unwrap();
    let much: Vec<&[u8]> = vec![&part; 5];
    let full = store.append(&id, None, bytes(&much), NO_LIMIT).await;
    let said = full.as_ref().err().map(ToString::to_string).unwrap_or_default();
    assert!(matches!(full, Err(BlobError::Full { .. })), "{full:?}");
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!(store.staged(&id).await.unwrap(), Some(300_000), "cut back to where it was");
    let large = store.put(&key("small"), Bytes::from(vec![2; 2_000_000])).await;
    assert!(matches!(large, Err(BlobError::Full { .. })), "{large:?}");
    assert_eq!(store.get(&key("small"), 9).await.unwrap().unwrap(), "kept");
    // The space that failed writes took is free again.
    store.append(&id, None, bytes(&[b"end"]), NO_LIMIT).await.unwrap();
    let whole = [part.as_slice(), b"end"].concat();
    store.publish(&id, &key("large"), &Digest::of(&whole)).await.unwrap();
    assert_eq!(read(&store, &key("large")).await.unwrap(), whole);
}

proptest! {
    // Each case syncs a dozen files.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However an upload is cut into requests and chunks, and whether or not the process is
    /// another one meanwhile, what is published is what was sent.
    #[test]
    fn an_upload_is_the_sum_of_its_chunks(
        requests in prop::collection::vec(
            (prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4), any::<bool>()),
            0..6,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            let id: StageId = store.stage("ann").await.unwrap();
            let mut sent = Vec::new();
            for (chunks, restart) in &requests {
                let at = sent.len() as u64;
                let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
                let len = store.append(&id, Some(at), bytes(&slices), NO_LIMIT).await.unwrap();
                sent.extend(chunks.concat());
                assert_eq!(len, sent.len() as u64);
                if *restart {
                    store = open(dir.path());
                }
            }
            store.publish(&id, &key("k"), &Digest::of(&sent)).await.unwrap();
            assert_eq!(read(&store, &key("k")).await.unwrap(), sent);
        });
    }
}
