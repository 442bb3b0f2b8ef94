//! How far a pull is, put together from the lines of its answer.

use std::collections::BTreeMap;

use crate::wire::ProgressLine;

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PullProgress {
    /// The newest line for people.
    pub status: String,
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Layer {
    downloaded: u64,
    size: u64,
    complete: bool,
}

impl PullProgress {
    /// Takes in one line of the answer.
    pub fn update(&mut self, line: &ProgressLine) {
        let status = line.status.as_deref().unwrap_or_default();
        if !status.is_empty() {
            self.status = status.to_owned();
        }
        let Some(id) = &line.id else { return };
        let complete = matches!(status, "Already exists" | "Pull complete" | "Download complete");
        if !complete && !matches!(status, "Pulling fs layer" | "Waiting" | "Downloading") {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        if let Some(detail) = &line.progress_detail
            && status == "Downloading"
        {
            layer.downloaded = detail.current.unwrap_or(0).max(0) as u64;
            layer.size = detail.total.unwrap_or(0).max(0) as u64;
        }
        layer.complete |= complete;
    }

    /// Bytes received of the layers that were not here, and their size as far as it is known.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.values().fold((0, 0), |(done, size), layer| {
            let received = if layer.complete { layer.size } else { layer.downloaded };
            (done + received.min(layer.size), size + layer.size)
        })
    }

    /// 0 to 100: by bytes where sizes are known, else by layers; 100 only when all are complete.
    pub fn percent(&self) -> u8 {
        if self.layers.is_empty() {
            return 0;
        }
        let complete = self.layers.values().filter(|layer| layer.complete).count();
        if complete == self.layers.len() {
            return 100;
        }
        let (done, size) = self.bytes();
        let sized = self.layers.values().all(|layer| layer.complete || layer.size > 0);
        let percent = if sized && size > 0 {
            done * 100 / size
        } else {
            (complete * 100 / self.layers.len()) as u64
        };
        percent.min(99) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ProgressDetail;

    fn line(id: &str, status: &str, current: i64, total: i64) -> ProgressLine {
        ProgressLine {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..ProgressLine::default()
        }
    }

    #[test]
    fn percent_counts_bytes_and_ends_at_100_with_the_last_layer() {
        let mut progress = PullProgress::default();
        assert_eq!(progress.percent(), 0);
        progress.update(&line("latest", "Pulling from library/busybox", 0, 0));
        assert_eq!(progress.percent(), 0, "the first line's id is a tag, not a layer");
        progress.update(&line("a", "Downloading", 50, 300));
        progress.update(&line("b", "Downloading", 100, 100));
        assert_eq!(progress.percent(), 37);
        progress.update(&line("b", "Pull complete", 0, 0));
        progress.update(&line("a", "Downloading", 300, 300));
        assert_eq!(progress.percent(), 99);
        progress.update(&line("a", "Pull complete", 0, 0));
        assert_eq!(progress.percent(), 100);
    }
}
