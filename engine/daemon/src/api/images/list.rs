//! `GET /images/json`: the images as rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::ImageSummary;
use minke_engine_images::{DiffId, Image};
use regex::Regex;
use serde_json::{Value, json as object};

use super::{created, familiar};
use crate::api::filters::{Filters, LARGEST_PATTERN, invalid};
use crate::api::params::Params;
use crate::api::reply::json;
use crate::containers::container::Container;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// What an image without a name is called before 1.43.
const NO_TAG: &str = "<none>:<none>";
const NO_DIGEST: &str = "<none>@<none>";

pub(crate) async fn list(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let mut filters = params.filters()?;
    if let Some(pattern) = params.text("filter").filter(|text| !text.is_empty())
        && params.before((1, 25))
        && filters.all("reference").is_empty()
    {
        filters.add("reference", pattern);
    }
    let wanted = Wanted::read(&daemon, filters)?;
    let shared: BTreeMap<String, i64> = match params.flag("shared-size") {
        true => summaries(&daemon).into_iter().map(|row| (row.id, row.shared_size)).collect(),
        false => BTreeMap::new(),
    };
    let images = daemon.images.images();
    let mut rows = Vec::new();
    for image in &images {
        // Unnamed parents of a build are of interest to the build only.
        let has_child = || images.iter().any(|other| other.parent.as_ref() == Some(&image.id));
        let intermediate = image.is_dangling() && has_child();
        if wanted.takes(image) && (params.flag("all") || !intermediate) {
            let mut row = summary(image);
            row.repo_tags = familiar(&wanted.tags(image));
            row.shared_size = shared.get(&row.id).copied().unwrap_or(-1);
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    let shown: Result<Vec<Value>> = rows.into_iter().map(|row| shown(row, &params)).collect();
    Ok(json(&shown?))
}

/// A row as the client's version has it.
fn shown(mut row: ImageSummary, params: &Params) -> Result<Value> {
    if params.before((1, 43)) && row.repo_tags.is_empty() && row.repo_digests.is_empty() {
        row.repo_tags = vec![NO_TAG.to_owned()];
        row.repo_digests = vec![NO_DIGEST.to_owned()];
    }
    let mut value = serde_json::to_value(&row).map_err(Error::system("showing an image"))?;
    if params.before((1, 44)) {
        value["VirtualSize"] = object!(row.size);
    }
    Ok(value)
}

/// The filters of a list, checked, with what they name looked up.
struct Wanted {
    filters: Filters,
    dangling: Option<bool>,
    /// Made before this time, after that, at this or before.
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
    references: Vec<Regex>,
}

impl Wanted {
    fn read(daemon: &Daemon, filters: Filters) -> Result<Wanted> {
        filters.check(&["before", "dangling", "label", "reference", "since", "until"])?;
        let made = |key: &str| -> Result<Vec<i64>> {
            filters.all(key).iter().map(|name| Ok(created(&daemon.images.image(name)?))).collect()
        };
        Ok(Wanted {
            dangling: filters.switch("dangling")?,
            before: made("before")?.into_iter().min(),
            since: made("since")?.into_iter().max(),
            until: filters.until()?,
            references: filters
                .all("reference")
                .iter()
                .map(|text| pattern(text))
                .collect::<Result<_>>()?,
            filters,
        })
    }

    fn takes(&self, image: &Image) -> bool {
        let time = created(image);
        self.dangling.is_none_or(|wanted| wanted == image.is_dangling())
            && self.before.is_none_or(|before| time < before)
            && self.since.is_none_or(|since| time > since)
            && self.until.is_none_or(|until| time <= until)
            && self.filters.labels_pass(&image.config.config.labels)
            && (self.references.is_empty() || !self.tags(image).is_empty())
    }

    /// The names of an image that were asked for.
    fn tags(&self, image: &Image) -> Vec<ImageReference> {
        let patterns = &self.references;
        let wanted = |tag: &&ImageReference| {
            patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, tag))
        };
        image.tags.iter().filter(wanted).cloned().collect()
    }
}

/// Every image as a row, with what it shares and how many containers it has.
pub(crate) fn summaries(daemon: &Daemon) -> Vec<ImageSummary> {
    let images = daemon.images.images();
    let mut users: BTreeMap<&DiffId, u32> = BTreeMap::new();
    for layer in images.iter().flat_map(|image| image.layers()) {
        *users.entry(layer).or_default() += 1;
    }
    let containers = daemon.containers.all();
    let rows = images.iter().map(|image| {
        let shared = image.layers().iter().filter(|layer| users[layer] > 1);
        let shared: u64 = shared.map(|layer| daemon.images.layer_size(layer)).sum();
        let id = image.id.to_string();
        let of_image = |container: &&Arc<Container>| container.lock().config.image_id == id;
        ImageSummary {
            shared_size: shared as i64,
            containers: containers.iter().filter(of_image).count() as i64,
            ..summary(image)
        }
    });
    rows.collect()
}

/// Bytes of all layers, each counted once.
pub(crate) fn layers_size(daemon: &Daemon) -> i64 {
    let images = daemon.images.images();
    let layers: BTreeSet<&DiffId> = images.iter().flat_map(|image| image.layers()).collect();
    layers.into_iter().map(|layer| daemon.images.layer_size(layer) as i64).sum()
}

fn summary(image: &Image) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_tags: familiar(&image.tags),
        repo_digests: familiar(&image.digests),
        created: created(image) / 1_000_000_000,
        size: image.size as i64,
        shared_size: -1,
        labels: image.config.config.labels.clone(),
        containers: -1,
    }
}

/// Whether a name, with or without its tag, fits a pattern.
fn fits(pattern: &Regex, tag: &ImageReference) -> bool {
    [tag.familiar(), tag.familiar_name(), tag.to_string()].iter().any(|name| pattern.is_match(name))
}

/// A shell's pattern: `*` is any run without a slash, `?` any one character but a slash, `[a-z]` one of
/// these, and a character behind a backslash is itself.
fn pattern(text: &str) -> Result<Regex> {
    let mut regex = String::from("^");
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' | ']' | '-' | '^' => regex.push(character),
            '\\' => regex.extend(characters.next().map(|next| regex::escape(&next.to_string()))),
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex.push('$');
    let compiled = regex::RegexBuilder::new(&regex).size_limit(LARGEST_PATTERN).build();
    compiled.map_err(|_| invalid("reference", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, tag: &ImageReference) -> bool {
        fits(&pattern(text).unwrap(), tag)
    }

    #[test]
    fn references_match_by_pattern() {
        let tag: ImageReference = "localhost:5000/team/web:v1".parse().unwrap();
        for pattern in ["localhost:5000/team/web", "localhost:5000/*/web:v*", "*/team/web:v?"] {
            assert!(matches(pattern, &tag), "{pattern}");
        }
        let busybox: ImageReference = "busybox:1".parse().unwrap();
        for pattern in ["busybox", "busy*", "docker.io/library/busybox:1", "[a-c]usybox", "b[^a]*"]
        {
            assert!(matches(pattern, &busybox), "{pattern}");
        }
        assert!(!matches("web", &tag) && !matches("*", &tag) && !matches("b.sybox", &busybox));
        pattern("[").unwrap_err();
        // Many stars take no longer than one.
        assert!(!matches(&"*a".repeat(40), &busybox));
    }

    #[test]
    fn old_clients_get_the_names_and_sizes_that_they_know() {
        let row = ImageSummary { size: 7, ..ImageSummary::default() };
        let newest = shown(row.clone(), &Params::default()).unwrap();
        assert_eq!(newest["RepoTags"], object!([]));
        assert!(newest.get("VirtualSize").is_none());
        let old = shown(row, &Params::of_version((1, 41))).unwrap();
        assert_eq!((&old["RepoTags"][0], &old["VirtualSize"]), (&object!(NO_TAG), &object!(7)));
    }
}
