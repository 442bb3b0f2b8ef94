//! What earlier builds left, what it takes on the disk, and how it goes.

use std::collections::HashSet;

use minke_engine_images::{Image, ImageId};
use serde::Serialize;

use crate::build::cache::{Entry, Key, let_go};
use crate::build::work::{Builder, off_thread};
use crate::error::Result;
use crate::stamp;

/// Something of the cache, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Record {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// `regular`: what a step made; `exec.cachemount`: a directory of `RUN --mount=type=cache`.
    #[serde(rename = "Type")]
    pub(crate) kind: &'static str,
    description: String,
    /// A build works on it.
    pub(crate) in_use: bool,
    /// An image with a name has it, too: it stays on the disk when the cache forgets it.
    shared: bool,
    /// Bytes.
    pub(crate) size: u64,
    created_at: String,
    last_used_at: String,
    usage_count: u64,
    #[serde(skip)]
    used: i64,
    #[serde(skip)]
    image: Option<ImageId>,
}

const STEP: &str = "regular";
const MOUNT: &str = "exec.cachemount";

/// What is to go; by default all that no build works on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prune {
    /// Only what was not used since, nanoseconds since 1970.
    pub(crate) until: Option<i64>,
    /// As much may stay, bytes: what was not used for longest goes first.
    pub(crate) keep: u64,
    /// Ids that may go, or their beginnings; none: all.
    pub(crate) ids: Vec<String>,
    /// Kinds that may go; none: all.
    pub(crate) kinds: Vec<String>,
}

/// What has gone.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    pub(crate) ids: Vec<String>,
    /// Bytes.
    pub(crate) freed: u64,
}

impl Builder {
    /// Everything that earlier builds left. Blocking: directories are measured.
    pub(crate) fn usage(&self) -> Vec<Record> {
        let mut entries = self.cache.entries();
        entries.sort_by(|(_, a), (_, b)| a.created.cmp(&b.created));
        let mut counted = HashSet::new();
        let steps = entries.into_iter().filter_map(|(key, entry)| {
            let image = self.store.image_by_id(&entry.image?).ok()?;
            // A step that changed no file has the layers of the one before.
            let layer = image.layers().last().copied().filter(|layer| counted.insert(*layer));
            let size = layer.map_or(0, |layer| self.store.layer_size(&layer));
            Some(Record::of_step(&key, &entry, &image, size))
        });
        steps.chain(self.caches.records()).collect()
    }

    /// Forgets what earlier builds made.
    pub(crate) async fn prune(&self, wanted: &Prune) -> Result<Pruned> {
        let builder = self.clone();
        let mut chosen = Vec::new();
        let measured = off_thread("measuring", self.directory(), move |_| Ok(builder.usage()));
        for record in choose(measured.await?, wanted) {
            if record.kind == STEP {
                self.cache.forget(&record.id);
            }
            chosen.push(record);
        }
        // Children are used with their parents, and were made after them.
        chosen.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        let mut pruned = Pruned::default();
        for record in chosen {
            let is_gone = match &record.image {
                // One image may stand for several steps, and is gone with the first.
                Some(image) => let_go(&self.store, image).await,
                None => self.empty(&record.id).await?,
            };
            pruned.freed += if is_gone { record.size } else { 0 };
            pruned.ids.push(record.id);
        }
        self.cache.save(&self.store).await;
        Ok(pruned)
    }

    async fn empty(&self, mount: &str) -> Result<bool> {
        let (caches, name) = (self.caches.clone(), mount.to_owned());
        off_thread("emptying", self.directory(), move |_| caches.clear(&name)).await
    }
}

/// What goes of what is there.
fn choose(mut all: Vec<Record>, wanted: &Prune) -> Vec<Record> {
    let mut left: u64 = all.iter().map(|record| record.size).sum();
    let named = |record: &Record| {
        (wanted.ids.is_empty() || wanted.ids.iter().any(|id| record.id.starts_with(id.as_str())))
            && (wanted.kinds.is_empty() || wanted.kinds.iter().any(|kind| kind == record.kind))
    };
    all.sort_by_key(|record| record.used);
    all.retain(|record| {
        let goes = !record.in_use
            && named(record)
            && wanted.until.is_none_or(|until| record.used <= until)
            && (wanted.keep == 0 || left > wanted.keep);
        left -= if goes { record.size } else { 0 };
        goes
    });
    all
}

impl Record {
    fn of_step(key: &Key, entry: &Entry, image: &Image, size: u64) -> Record {
        Record {
            id: key.text().to_owned(),
            kind: STEP,
            description: entry.text.clone(),
            in_use: false,
            shared: !image.tags.is_empty(),
            size,
            created_at: entry.created.clone(),
            last_used_at: stamp::rfc3339(entry.used()),
            usage_count: entry.uses(),
            used: entry.used(),
            image: Some(image.id),
        }
    }

    /// A directory of `RUN --mount=type=cache`.
    pub(crate) fn of_mount(name: String, in_use: bool, size: u64, used: i64) -> Record {
        let at = stamp::rfc3339(used);
        Record {
            id: name,
            kind: MOUNT,
            description: "a cache of RUN --mount=type=cache".to_owned(),
            in_use,
            shared: false,
            size,
            created_at: at.clone(),
            last_used_at: at,
            usage_count: 1,
            used,
            image: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, used: i64, size: u64) -> Record {
        Record { image: None, ..Record::of_mount(id.to_owned(), false, size, used) }
    }

    fn chosen(wanted: &Prune) -> Vec<String> {
        let mut held = record("held", 1, 10);
        held.in_use = true;
        let step = Record { kind: STEP, ..record("step", 30, 10) };
        let all = vec![step, record("old", 10, 10), held, record("middle", 20, 10)];
        choose(all, wanted).into_iter().map(|record| record.id).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_what_is_in_use_never() {
        assert_eq!(chosen(&Prune::default()), ["old", "middle", "step"]);
        assert_eq!(chosen(&Prune { keep: 25, ..Prune::default() }), ["old", "middle"]);
        assert_eq!(chosen(&Prune { keep: 40, ..Prune::default() }), [""; 0]);
        assert_eq!(chosen(&Prune { until: Some(20), ..Prune::default() }), ["old", "middle"]);
        assert_eq!(chosen(&Prune { ids: vec!["mid".into()], ..Prune::default() }), ["middle"]);
        assert_eq!(chosen(&Prune { kinds: vec![STEP.into()], ..Prune::default() }), ["step"]);
    }
}
