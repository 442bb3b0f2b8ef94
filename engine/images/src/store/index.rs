//! The index: which images there are and what they are called. One file, replaced as a whole.
//!
//! Its first line says version and BLAKE3 of the rest. An image exists from the moment the index names it;
//! configurations and layers are on disk before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use minke_common_model::image_reference::ImageReference;
use minke_engine_documents::{seal, unseal};
use serde::{Deserialize, Serialize};

use crate::durable::Ledger;
use crate::ids::{DiffId, ImageId};

const NAME: &str = "index";
const PREVIOUS: &str = "index.previous";
const WHAT: &str = "minke-images-index 1";

/// What the store knows about images beyond their configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub images: BTreeMap<ImageId, ImageRecord>,
    pub tags: BTreeMap<ImageReference, ImageId>,
    pub digests: BTreeMap<ImageReference, ImageId>,
    /// Names of which only their registry can say who may have the image: pulled with credentials, or
    /// given here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub private: BTreeSet<ImageReference>,
}

/// What the index says of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ImageId>,
    /// Milliseconds since the epoch.
    #[serde(default)]
    pub last_tagged: u64,
    /// Its layers, lowest first: what must be kept while its configuration is damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<DiffId>,
    /// Removed by force while stopped containers used it: kept for them, shown to nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// What was found of an index at open.
pub(crate) enum Found {
    Good(Index),
    /// The index itself is damaged; this is what it was before its last change.
    Older(Index),
    Nothing,
    /// Neither version can be read: images must be found again from their configurations.
    Damaged,
}

impl Index {
    pub(crate) fn load(directory: &Path) -> io::Result<Found> {
        let mut seen = false;
        for name in [NAME, PREVIOUS] {
            match fs::read(directory.join(name)) {
                Ok(bytes) => {
                    seen = true;
                    match parse(&bytes) {
                        Some(index) if name == NAME => return Ok(Found::Good(index)),
                        Some(index) => return Ok(Found::Older(index)),
                        None => tracing::warn!(name, "the image index is damaged"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(if seen { Found::Damaged } else { Found::Nothing })
    }

    pub(crate) fn save(&self, directory: &Path, ledger: &Ledger) -> io::Result<()> {
        let body = serde_json::to_vec(self).map_err(io::Error::other)?;
        let (current, previous) = (directory.join(NAME), directory.join(PREVIOUS));
        let beside = directory.join("index.old");
        let _ = fs::remove_file(&beside);
        match fs::hard_link(&current, &beside) {
            Ok(()) => fs::rename(&beside, &previous)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        ledger.replace(&current, &seal(WHAT, &body))
    }

    /// Which of its files on disk differ from what they should be, and how.
    pub(crate) fn damage(&self, directory: &Path) -> Vec<(&'static str, &'static str)> {
        let parsed = |name| fs::read(directory.join(name)).ok().and_then(|bytes| parse(&bytes));
        let mut found = Vec::new();
        match parsed(NAME) {
            Some(index) if index == *self => {}
            Some(_) => found.push((NAME, "it differs from what is known in memory")),
            // A store without images has no index yet.
            None if *self == Self::default() && !directory.join(NAME).exists() => {}
            None => found.push((NAME, "its checksum is wrong")),
        }
        if directory.join(PREVIOUS).exists() && parsed(PREVIOUS).is_none() {
            found.push((PREVIOUS, "its checksum is wrong"));
        }
        found
    }

    /// The image that a name means.
    pub(crate) fn named(&self, name: &ImageReference) -> Option<&ImageId> {
        match name.digest() {
            Some(digest) => self.digests.get(&name.with_digest(*digest)),
            None => self.tags.get(&name.with_default_tag()),
        }
    }

    /// Whether only its registry can say who may have what this name means.
    pub(crate) fn is_private(&self, name: &ImageReference) -> bool {
        match name.digest() {
            Some(digest) => self.private.contains(&name.with_digest(*digest)),
            None => self.private.contains(&name.with_default_tag()),
        }
    }

    /// Notes who may have an image by a name (with its tag, or with its digest alone) that it is about to
    /// get. What anybody could have stays so while the name means the same image.
    pub(crate) fn note_who(&mut self, name: &ImageReference, id: &ImageId, anybody: bool) {
        if anybody {
            self.private.remove(name);
        } else if self.named(name) != Some(id) {
            self.private.insert(name.clone());
        }
    }

    /// Drops the notes of names that are gone.
    pub(crate) fn forget_notes(&mut self) {
        let (tags, digests) = (&self.tags, &self.digests);
        self.private.retain(|name| tags.contains_key(name) || digests.contains_key(name));
    }

    /// The names of an image, tags or digests.
    pub(crate) fn names(
        map: &BTreeMap<ImageReference, ImageId>,
        id: &ImageId,
    ) -> Vec<ImageReference> {
        map.iter().filter(|(_, of)| *of == id).map(|(name, _)| name.clone()).collect()
    }
}

fn parse(bytes: &[u8]) -> Option<Index> {
    serde_json::from_slice(unseal(WHAT, bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use minke_common_model::digest::Digest;

    use super::*;

    fn sample() -> Index {
        let id = ImageId(Digest::of(b"image"));
        let mut index = Index::default();
        index.images.insert(id, ImageRecord { last_tagged: 7, ..ImageRecord::default() });
        index.tags.insert("busybox:latest".parse().unwrap(), id);
        index
    }

    #[test]
    fn the_previous_version_replaces_a_damaged_one() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::default();
        assert!(matches!(Index::load(directory.path()).unwrap(), Found::Nothing));
        sample().save(directory.path(), &ledger).unwrap();
        Index::default().save(directory.path(), &ledger).unwrap();
        fs::write(directory.path().join(NAME), b"minke-images-index 1 00\n{}").unwrap();
        match Index::load(directory.path()).unwrap() {
            Found::Older(index) => assert_eq!(index, sample()),
            _ => panic!("the previous version was not found"),
        }
        fs::write(directory.path().join(PREVIOUS), b"").unwrap();
        assert!(matches!(Index::load(directory.path()).unwrap(), Found::Damaged));
    }

    #[test]
    fn reads_version_1() {
        let body = r#"{"images":{"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d":{"last_tagged":5}},"tags":{"docker.io/library/busybox:latest":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"},"digests":{}}"#;
        let index = parse(&seal(WHAT, body.as_bytes())).unwrap();
        assert_eq!(index.images.values().next().unwrap().last_tagged, 5);
        assert_eq!(index.tags.keys().next().unwrap().familiar(), "busybox:latest");
        assert!(!index.is_private(&"busybox".parse().unwrap()));
    }

    #[test]
    fn a_name_is_private_until_somebody_without_credentials_has_had_its_image() {
        let (one, other) = (ImageId(Digest::of(b"one")), ImageId(Digest::of(b"other")));
        let name: ImageReference = "busybox:latest".parse().unwrap();
        let mut index = Index::default();
        let mut pull = |id, anybody| {
            index.note_who(&name, &id, anybody);
            index.tags.insert(name.clone(), id);
            index.is_private(&"busybox".parse().unwrap())
        };
        assert!(pull(one, false));
        assert!(!pull(one, true));
        assert!(!pull(one, false), "what anybody could have is hidden from nobody");
        assert!(pull(other, false), "the name means another image now");
        assert!(pull(other, false));
        index.forget_notes();
        assert_eq!(index.private.len(), 1);
        index.tags.clear();
        index.forget_notes();
        assert!(index.private.is_empty());
    }
}
