//! How a container differs from its image.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use rustix::fs::lgetxattr;
use serde_json::json;

use crate::api::reply::json as reply;
use crate::containers::traces;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Docker's numbers.
const CHANGED: u8 = 0;
const ADDED: u8 = 1;
const DELETED: u8 = 2;

/// `GET /containers/{id}/changes`.
pub(in crate::api) async fn changes(
    State(daemon): State<Daemon>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let image = container.lock().config.image_id.clone();
    let image = image.parse().map_err(Error::system("reading the image's id"))?;
    let lower = daemon.images.lower_dirs(&image)?;
    let upper = container.dir.join("upper");
    let traces = traces::of_mounts(&daemon, &container)?;
    let walked = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        walk(&upper, &lower, PathBuf::from("/"), &mut found).map(|()| found)
    });
    let found = walked.await.map_err(Error::system("comparing files"))?;
    let mut found = found.map_err(Error::file("reading", container.dir.join("upper")))?;
    found.retain(|(path, _)| !traces.contains(path.strip_prefix("/").unwrap_or(path)));
    let rows = found.iter().map(|(path, kind)| json!({ "Path": path, "Kind": kind }));
    Ok(reply(&rows.collect::<Vec<_>>()))
}

fn walk(
    upper: &Path,
    lower: &[PathBuf],
    path: PathBuf,
    found: &mut Vec<(PathBuf, u8)>,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(upper)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = path.join(entry.file_name());
        let metadata = entry.metadata()?;
        let kind = match is_whiteout(&metadata) {
            true => DELETED,
            false if is_in_image(lower, &path) => CHANGED,
            false => ADDED,
        };
        found.push((path.clone(), kind));
        if metadata.is_dir() {
            walk(&entry.path(), lower, path, found)?;
        }
    }
    Ok(())
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether a layer's directory hides all that lower layers have below it.
fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 4];
    let found = lgetxattr(directory, "trusted.overlay.opaque", &mut value[..]);
    matches!(found, Ok(length) if value[..length] == *b"y")
}

/// What a layer says about a path.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    There,
    Gone,
    Nothing,
}

/// Whether layers, the top one first, show something at a path.
fn is_in_image(lower: &[PathBuf], path: &Path) -> bool {
    let mut said = lower.iter().map(|layer| look(layer, path));
    said.find(|said| *said != Said::Nothing) == Some(Said::There)
}

/// Looks part by part: what is no directory, or a directory that begins anew, hides the layers below, and a
/// link on the way leads nowhere.
fn look(layer: &Path, path: &Path) -> Said {
    let mut at = layer.to_owned();
    let mut opaque = false;
    let mut parts = path.strip_prefix("/").unwrap_or(path).components().peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let Ok(metadata) = fs::symlink_metadata(&at) else {
            return if opaque { Said::Gone } else { Said::Nothing };
        };
        let last = parts.peek().is_none();
        if is_whiteout(&metadata) || !(last || metadata.is_dir()) {
            return Said::Gone;
        }
        opaque |= !last && is_opaque(&at);
    }
    Said::There
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

    use super::*;

    #[test]
    fn what_an_upper_layer_has_taken_away_is_not_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (top, base) = (dir.path().join("top"), dir.path().join("base"));
        for path in ["kept", "anew", "gone", "file", "real"] {
            fs::create_dir_all(base.join(path)).unwrap();
            fs::write(base.join(path).join("x"), "").unwrap();
        }
        fs::create_dir_all(top.join("kept")).unwrap();
        fs::create_dir_all(top.join("anew")).unwrap();
        fs::write(top.join("anew/y"), "").unwrap();
        setxattr(top.join("anew"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        fs::write(top.join("file"), "").unwrap();
        // A link in a layer is no way into another one's directory.
        std::os::unix::fs::symlink(base.join("real"), top.join("real")).unwrap();
        for whiteout in ["gone", "kept/w"] {
            mknodat(CWD, top.join(whiteout), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        fs::write(base.join("kept/w"), "").unwrap();
        let lower = [top, base];
        for there in ["/kept", "/kept/x", "/anew", "/anew/y", "/file", "/real"] {
            assert!(is_in_image(&lower, Path::new(there)), "{there}");
        }
        for absent in ["/kept/w", "/anew/x", "/gone", "/gone/x", "/file/x", "/real/x", "/new"] {
            assert!(!is_in_image(&lower, Path::new(absent)), "{absent}");
        }
    }
}
