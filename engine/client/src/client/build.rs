//! `POST /build`, and what builds leave.

use std::collections::BTreeMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::Client;
use super::containers::filter_text;
use super::images::next_line;
use crate::Error;
use crate::wire::{CacheRecord, DiskUsage, ProgressLine, Pruned, RegistryAuth};

/// A build of an image from a context.
#[derive(Debug, Clone, Default)]
pub struct BuildImage {
    /// Names for the result.
    pub tags: Vec<String>,
    /// The Dockerfile's path in the context; empty is `Dockerfile`.
    pub dockerfile: String,
    /// Values of `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// Labels added to the result.
    pub labels: BTreeMap<String, String>,
    /// The stage to build; empty is the last.
    pub target: String,
    /// Runs every step again.
    pub no_cache: bool,
    /// Looks for a newer base image.
    pub pull: bool,
    /// `linux/arm64` and so on; empty is the engine's own.
    pub platform: String,
    /// `bridge`, `host` or `none` for RUN steps; empty is `bridge`.
    pub network_mode: String,
    /// Credentials by registry host, for base images.
    pub registries: BTreeMap<String, RegistryAuth>,
    /// Bytes; 0 is no limit.
    pub memory: i64,
    /// Images that the cache may be taken from.
    pub cache_from: Vec<String>,
    /// `name:address` for `/etc/hosts` of `RUN` steps.
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm` of `RUN` steps; 0 is the usual.
    pub shm_size: u64,
    /// The layers that the build adds become one.
    pub squash: bool,
    /// A URL or git repository that is the context; then what is sent is not looked at.
    pub remote: String,
    /// Further headers (`X-…`) as this engine documents them.
    pub headers: Vec<(&'static str, String)>,
}

impl Client {
    /// Builds an image from a tar archive. `progress` hears of every line, the last of which says
    /// the image's id in `aux`.
    pub async fn build(
        &self,
        build: &BuildImage,
        context: BoxStream<'static, io::Result<Bytes>>,
        mut progress: impl FnMut(&ProgressLine) + Send,
    ) -> Result<Option<String>, Error> {
        let json = |map: &BTreeMap<String, String>| serde_json::to_string(map).unwrap_or_default();
        let mut call = self
            .post("/build".to_owned())
            .flag("nocache", build.no_cache)
            .flag("pull", build.pull)
            .flag("squash", build.squash)
            .query("rm", "true")
            .query("forcerm", "true");
        for tag in &build.tags {
            call = call.query("t", tag);
        }
        for (name, value) in [
            ("dockerfile", &build.dockerfile),
            ("target", &build.target),
            ("platform", &build.platform),
            ("networkmode", &build.network_mode),
            ("remote", &build.remote),
        ] {
            if !value.is_empty() {
                call = call.query(name, value);
            }
        }
        if !build.build_args.is_empty() {
            call = call.query("buildargs", json(&build.build_args));
        }
        if !build.labels.is_empty() {
            call = call.query("labels", json(&build.labels));
        }
        if build.memory > 0 {
            call = call.query("memory", build.memory.to_string());
        }
        if build.shm_size > 0 {
            call = call.query("shmsize", build.shm_size.to_string());
        }
        for (name, list) in [("cachefrom", &build.cache_from), ("extrahosts", &build.extra_hosts)] {
            if !list.is_empty() {
                call = call.query(name, serde_json::to_string(list).unwrap_or_default());
            }
        }
        if !build.registries.is_empty() {
            call =
                call.header("x-registry-config", super::images::config_header(&build.registries));
        }
        for (name, value) in &build.headers {
            call = call.header(name, value.clone());
        }
        let mut lines = call.stream(context).send().await?.lines::<ProgressLine>();
        let mut id = None;
        while let Some(line) = next_line(&mut lines).await? {
            if let Some(found) = line.aux.as_ref().and_then(|aux| aux["ID"].as_str()) {
                id = Some(found.to_owned());
            }
            progress(&line);
        }
        Ok(id)
    }

    /// Everything that earlier builds left for later ones.
    pub async fn build_cache(&self) -> Result<Vec<CacheRecord>, Error> {
        let call = self.get("/system/df".to_owned()).query("type", "build-cache");
        let usage: DiskUsage = call.send().await?.json().await?;
        Ok(usage.build_cache)
    }

    /// Removes what earlier builds left and no build works on: of what was not used after a time
    /// (`None`: of everything) as much as is more than `keep` bytes, what was not used for longest first.
    pub async fn prune_builds(
        &self,
        not_after: Option<SystemTime>,
        keep: u64,
    ) -> Result<Pruned, Error> {
        let mut call = self.post("/build/prune".to_owned()).flag("all", true);
        if let Some(time) = not_after {
            // A time of before 1970 is one at which nothing was used.
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let text = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
            let filters = BTreeMap::from([("until".to_owned(), vec![text])]);
            call = call.query("filters", filter_text(&filters));
        }
        if keep > 0 {
            call = call.query("keep-storage", keep.to_string());
        }
        call.send().await?.json().await
    }
}
