//! Images made here, named, pushed, saved, loaded, used and removed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use minke_common_model::digest::Digest;
use minke_engine_images::{
    DiffId, Error, ErrorKind, ImageConfig, ImageId, Options, PushOptions, RemoveOptions, Removed,
    RootFs, Store, Use,
};

use crate::pull::{assert_bare, count, layer, options, store};
use crate::registry::{Fault, Packing, Registry};
use crate::tars::{Tar, noise};

const FORCE: RemoveOptions = RemoveOptions { force: true, no_prune: false };

fn push_options() -> PushOptions {
    PushOptions { patience: options().patience, ..PushOptions::default() }
}

fn config(label: &str, layers: &[DiffId]) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        rootfs: RootFs { diff_ids: layers.to_vec(), ..RootFs::default() },
        ..ImageConfig::default()
    };
    config.config.labels.insert("label".to_owned(), label.to_owned());
    config
}

/// An upper directory with a file of this name.
fn upper(name: &str, length: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), noise(length, 9)).unwrap();
    dir
}

async fn image(store: &Store, label: &str, parent: Option<ImageId>) -> ImageId {
    let mut layers =
        parent.map_or(Vec::new(), |parent| store.image_by_id(&parent).unwrap().layers().to_vec());
    let made = store.commit_layer(upper(label, 10_000).path()).await.unwrap();
    layers.push(made.diff_id);
    store.create_image(&config(label, &layers), parent).await.unwrap()
}

async fn tag(store: &Store, id: ImageId, name: &str) {
    store.tag(&id, &name.parse().unwrap()).await.unwrap();
}

fn untagged(name: &str) -> Removed {
    Removed::Untagged(name.to_owned())
}

fn deleted(id: impl ToString) -> Removed {
    Removed::Deleted(id.to_string())
}

fn conflict(result: Result<Vec<Removed>, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    error.to_string()
}

#[tokio::test]
async fn images_are_found_by_name_id_and_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let id = image(&store, "a", None).await;
    tag(&store, id, "app").await;
    tag(&store, id, "r.example:5/x/app:v2").await;
    let hex = id.hex();
    let names =
        ["app", "app:latest", "docker.io/library/app", "r.example:5/x/app:v2", &hex, &hex[..12]];
    for name in names.into_iter().chain([&*id.to_string(), &format!("sha256:{}", &hex[..7])]) {
        assert_eq!(store.image(name).unwrap().id, id, "{name}");
    }
    for name in ["", "nothing", "app:v2", "x/app:v2", "UPPER", &format!("{hex}0"), "sha256:"] {
        assert!(matches!(store.image(name), Err(Error::NoSuchImage(_))), "{name}");
    }
    // A name goes before an id that begins alike.
    let other = image(&store, "b", None).await;
    tag(&store, other, &hex[..6]).await;
    assert_eq!(store.image(&hex[..6]).unwrap().id, other);
}

#[tokio::test]
async fn a_name_moves_and_its_old_image_dangles() {
    let dir = tempfile::tempdir().unwrap();
    let opened = store(dir.path()).await;
    let (old, new) = (image(&opened, "old", None).await, image(&opened, "new", None).await);
    tag(&opened, old, "app").await;
    tag(&opened, new, "app").await;
    assert!(opened.image_by_id(&old).unwrap().is_dangling());
    drop(opened);
    let opened = store(dir.path()).await;
    assert_eq!(opened.image("app").unwrap().id, new);
    let pruned = opened.prune(true, |_| true).await.unwrap();
    assert_eq!(pruned.removed[0], deleted(old));
    assert_eq!(pruned.space_reclaimed, 10_000);
    assert_eq!(opened.images().len(), 1);
    let kept = opened.prune(false, |image| image.id != new).await.unwrap();
    assert_eq!(kept.removed, []);
    opened.prune(false, |_| true).await.unwrap();
    drop(opened);
    assert_bare(dir.path());
}

#[tokio::test]
async fn the_image_goes_with_its_last_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let id = image(&store, "a", None).await;
    let layer = store.image_by_id(&id).unwrap().layers()[0];
    tag(&store, id, "one:1").await;
    tag(&store, id, "two:2").await;
    let message = conflict(store.remove(&id.hex(), RemoveOptions::default()).await);
    let short = &id.hex()[..12];
    assert_eq!(
        message,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in \
             multiple repositories"
        )
    );
    let begin = store.writes().fsyncs;
    let removed = store.remove("one:1", RemoveOptions::default()).await.unwrap();
    assert_eq!(removed, [untagged("one:1")]);
    let of_one_change = store.writes().fsyncs - begin;
    let removed = store.remove("two:2", RemoveOptions::default()).await.unwrap();
    assert_eq!(removed, [untagged("two:2"), deleted(id), deleted(layer)]);
    // There is no moment at which the image is here and has no name.
    assert_eq!(store.writes().fsyncs - begin, 2 * of_one_change);
    assert!(store.remove("two:2", FORCE).await.is_err());
    drop(store);
    assert_bare(dir.path());
}

#[tokio::test]
async fn by_id_all_names_of_one_repository_go() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 100), Packing::Gzip)]);
    let reference = registry.reference("app:v1");
    let id = store.pull(&reference, &options(), |_| {}).await.unwrap();
    let removed = store.remove(&id.hex()[..12], RemoveOptions::default()).await.unwrap();
    let by_digest = registry.reference("app").with_digest(placed.digest).familiar();
    assert_eq!(removed[..3], [untagged(&reference.familiar()), untagged(&by_digest), deleted(id)]);
    // By name, the digest of its repository goes with the last tag.
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    let removed = store.remove(&reference.familiar(), RemoveOptions::default()).await.unwrap();
    assert_eq!(removed[..3], [untagged(&reference.familiar()), untagged(&by_digest), deleted(id)]);
}

#[tokio::test]
async fn used_images_stay() {
    let dir = tempfile::tempdir().unwrap();
    let opened = store(dir.path()).await;
    let id = image(&opened, "a", None).await;
    tag(&opened, id, "app").await;
    let holder = "0123456789abcdef";
    opened.pin(&id, holder, Use::Running).unwrap();
    let message = conflict(opened.remove("app", RemoveOptions::default()).await);
    assert!(message.contains("(must force) - container 0123456789ab is using"), "{message}");
    let message = conflict(opened.remove(&id.hex(), FORCE).await);
    assert!(message.contains("(cannot be forced)"), "{message}");
    assert!(message.contains("running container 0123456789ab"), "{message}");
    // By force the name goes, the image stays.
    assert_eq!(opened.remove("app", FORCE).await.unwrap(), [untagged("app:latest")]);
    opened.image_by_id(&id).unwrap();
    opened.pin(&id, holder, Use::Stopped).unwrap();
    let message = conflict(opened.remove(&id.hex(), RemoveOptions::default()).await);
    assert!(message.contains("(must be forced)"), "{message}");
    assert!(message.contains("stopped container"), "{message}");
    assert_eq!(opened.prune(false, |_| true).await.unwrap().removed, []);
    // A stopped container keeps what it needs of an image that is gone for everybody else.
    assert_eq!(opened.remove(&id.hex(), FORCE).await.unwrap(), [deleted(id)]);
    assert!(opened.images().is_empty());
    assert!(opened.image(&id.hex()).is_err());
    assert_eq!(opened.lower_dirs(&id).unwrap().len(), 1);
    drop(opened);
    let opened = store(dir.path()).await;
    opened.pin(&id, holder, Use::Stopped).unwrap();
    opened.gc().await.unwrap();
    assert_eq!(opened.lower_dirs(&id).unwrap().len(), 1);
    opened.unpin(holder);
    let report = opened.gc().await.unwrap();
    assert_eq!((report.hidden_images, report.layers), (1, 1));
    drop(opened);
    assert_bare(dir.path());
}

#[tokio::test]
async fn unnamed_parents_go_with_their_last_child() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let base = image(&store, "base", None).await;
    let middle = image(&store, "middle", Some(base)).await;
    let top = image(&store, "top", Some(middle)).await;
    tag(&store, base, "base").await;
    tag(&store, top, "top").await;
    let message = conflict(store.remove(&middle.hex(), FORCE).await);
    assert!(message.contains("image has dependent child images"), "{message}");
    let removed = store.remove("top", RemoveOptions::default()).await.unwrap();
    for id in [top, middle] {
        assert!(removed.contains(&deleted(id)), "{removed:?}");
    }
    assert_eq!(store.images().len(), 1, "the named parent stays");
    assert_eq!(count(dir.path(), "layers"), 1);
}

#[tokio::test]
async fn layers_that_are_made_hold_until_they_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let changes = upper("file", 5000);
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::empty();
    rustix::fs::mknodat(rustix::fs::CWD, changes.path().join("gone"), kind, mode, 0).unwrap();
    let made = store.commit_layer(changes.path()).await.unwrap();
    assert_eq!((made.size, made.is_empty), (5000, false));
    store.gc().await.unwrap();
    let view = store.layer_dirs(&[made.diff_id]).unwrap().remove(0);
    assert_eq!(fs::read(view.join("file")).unwrap(), noise(5000, 9));
    assert!(fs::symlink_metadata(view.join("gone")).unwrap().file_type().is_char_device());
    let mut tar = Vec::new();
    store.rebuild(&made.diff_id).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(Digest::of(&tar), made.diff_id.0);
    let again = store.commit_layer(changes.path()).await.unwrap();
    assert_eq!(again.diff_id, made.diff_id, "the same directory makes the same layer");
    let empty = store.commit_layer(tempfile::tempdir().unwrap().path()).await.unwrap();
    assert!(empty.is_empty);
    let gone = made.diff_id;
    drop((made, again, empty));
    assert_eq!(store.gc().await.unwrap().layers, 2);
    let error = store.create_image(&config("x", &[gone]), None).await.unwrap_err();
    assert!(matches!(error, Error::MissingLayer(_)));
}

/// Changes of a real overlay mount, as a build makes them.
#[tokio::test]
async fn an_overlay_over_an_image_becomes_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let base = Tar::default().dir("d").file("d/old", b"old").file("keep", b"keep").end();
    let mut archive = tempfile::NamedTempFile::new().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
    }
    archive.write_all(&docker_archive(&base)).unwrap();
    let loaded = store.load(archive.reopen().unwrap(), |_| {}).await.unwrap();
    let lower = store.lower_dirs(&loaded[0].id).unwrap();
    let merged = Overlay::mount(&lower, scratch.path());
    assert_eq!(fs::read(merged.0.join("d/old")).unwrap(), b"old");
    fs::remove_dir_all(merged.0.join("d")).unwrap();
    fs::create_dir(merged.0.join("d")).unwrap();
    fs::write(merged.0.join("d/new"), "new").unwrap();
    fs::remove_file(merged.0.join("keep")).unwrap();
    drop(merged);
    let made = store.commit_layer(&scratch.path().join("upper")).await.unwrap();
    let mut layers = store.image_by_id(&loaded[0].id).unwrap().layers().to_vec();
    layers.push(made.diff_id);
    let id = store.create_image(&config("built", &layers), Some(loaded[0].id)).await.unwrap();
    fs::remove_dir_all(scratch.path().join("upper")).unwrap();
    fs::create_dir(scratch.path().join("upper")).unwrap();
    let merged = Overlay::mount(&store.lower_dirs(&id).unwrap(), scratch.path());
    assert!(!merged.0.join("d/old").exists() && !merged.0.join("keep").exists());
    assert_eq!(fs::read(merged.0.join("d/new")).unwrap(), b"new");
}

struct Overlay(std::path::PathBuf);

impl Overlay {
    fn mount(lower: &[std::path::PathBuf], scratch: &Path) -> Self {
        let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
            lower.join(":"),
            scratch.join("upper").display(),
            scratch.join("work").display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let merged = scratch.join("merged");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &merged, "overlay", flags, options.as_c_str()).unwrap();
        Self(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What `docker save` of old wrote.
fn docker_archive(layer: &[u8]) -> Vec<u8> {
    let config = serde_json::to_vec(&config("loaded", &[DiffId(Digest::of(layer))])).unwrap();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["loaded:1"],
        "Layers": ["one/layer.tar"]}]);
    Tar::default()
        .dir("one")
        .file("two.tar", layer)
        .symlink("one/layer.tar", "../two.tar")
        .file("config.json", &config)
        .file("manifest.json", manifest.to_string().as_bytes())
        .end()
}

#[tokio::test]
async fn archives_come_back_as_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let from = store(dir.path()).await;
    let id = image(&from, "base", None).await;
    let top = image(&from, "top", Some(id)).await;
    tag(&from, top, "app:v1").await;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("app.tar");
    let file = fs::File::create(&path).unwrap();
    from.save(&["app:v1".to_owned(), id.hex()], file).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let to = store(other.path()).await;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let tell = move |event: minke_engine_images::ProgressEvent| {
        told.lock().unwrap().push(event.status);
    };
    let mut loaded = to.load(fs::File::open(&path).unwrap(), tell).await.unwrap();
    loaded.sort_by_key(|loaded| loaded.tags.len());
    assert_eq!((loaded[0].id, loaded[1].id), (id, top));
    assert_eq!(to.image("app:v1").unwrap().layers(), from.image("app:v1").unwrap().layers());
    assert!(lines.lock().unwrap().contains(&"Loaded image: app:v1\n".to_owned()));
    assert!(to.verify().await.unwrap().damaged.is_empty());
    // Other programs read it in both of its forms.
    for form in ["docker-archive:", "oci-archive:"] {
        let name = format!("{form}{}", path.display());
        let name =
            if form.starts_with("oci") { format!("{name}:v1") } else { format!("{name}:app:v1") };
        let target = scratch.path().join(form.trim_end_matches(':'));
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", &name, &format!("dir:{}", target.display())])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for broken in [&b"no archive"[..], &Tar::default().file("x", b"").end(), b""] {
        let error = to.load(std::io::Cursor::new(broken.to_vec()), |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(count(other.path(), "staging"), 0);
}

#[tokio::test]
async fn a_push_sends_only_what_the_registry_lacks() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let options_kept = Options { keep_blobs: true, ..Options::default() };
    let store = Store::open(dir.path(), options_kept).await.unwrap();
    registry.put_image("base", "1", "amd64", &[(layer("base", 50_000), Packing::Gzip)]);
    let base = store.pull(&registry.reference("base:1"), &options(), |_| {}).await.unwrap();
    let built = image(&store, "built", Some(base)).await;
    let name = registry.reference("acme/app:v1");
    store.tag(&built, &name).await.unwrap();
    registry.fault("PATCH /v2/acme/app", 1, Fault::Status(503, Vec::new()));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let tell = move |event: minke_engine_images::ProgressEvent| {
        told.lock().unwrap().push(event.status);
    };
    let pushed = store.push(&name, &push_options(), tell).await.unwrap();
    let lines = lines.lock().unwrap().clone();
    assert!(lines[0].starts_with("The push refers to repository ["), "{lines:?}");
    assert!(lines.contains(&"Mounted from base".to_owned()), "{lines:?}");
    assert!(lines.contains(&"Pushed".to_owned()), "{lines:?}");
    let digest = *pushed.reference.digest().unwrap();
    let last = format!("v1: digest: {digest} size: {}", pushed.manifest_size);
    assert_eq!(lines.last(), Some(&last));
    assert_eq!(store.image_by_id(&built).unwrap().digests, [pushed.reference]);
    // Somebody else gets the same image.
    let other = tempfile::tempdir().unwrap();
    let puller = crate::pull::store(other.path()).await;
    assert_eq!(puller.pull(&name, &options(), |_| {}).await.unwrap(), built);
    // A second push finds all there.
    let patches = registry.seen("PATCH").len();
    store.push(&name, &push_options(), |_| {}).await.unwrap();
    assert_eq!(registry.seen("PATCH").len(), patches);
    // The puller kept no compressed bytes: another registry gets them made again.
    let second = Registry::start().await;
    let there = second.reference("copy/app:v1");
    puller.tag(&built, &there).await.unwrap();
    puller.push(&there, &push_options(), |_| {}).await.unwrap();
    let third = tempfile::tempdir().unwrap();
    let reader = crate::pull::store(third.path()).await;
    assert_eq!(reader.pull(&there, &options(), |_| {}).await.unwrap(), built);
    assert!(second.has_blob("copy/app", &built.0));
}

#[tokio::test]
async fn a_push_without_rights_is_denied() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let id = image(&store, "x", None).await;
    let name = registry.reference("app:v1");
    store.tag(&id, &name).await.unwrap();
    registry.set_auth(crate::registry::Auth::Bearer("me", "secret"));
    let error = store.push(&name, &push_options(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let missing = registry.reference("app:none");
    let error = store.push(&missing, &push_options(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
