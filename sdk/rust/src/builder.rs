//! Pushing a project: the server builds it and answers while it does.

use futures_util::{Stream, StreamExt};
use reqwest::{Body, Method, header};
use serde::{Deserialize, Serialize};

use crate::json_array::{Elements, MAX_ELEMENT};
use crate::{Client, Error, Fleet};

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Another name for the Dockerfile.
    pub dockerfile: Option<String>,
    /// Build every step anew.
    pub no_cache: bool,
    /// Do not wait for the end.
    pub detached: bool,
    /// Make a draft, which no device runs until it is finalized.
    pub draft: bool,
}

/// Something that the builder says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BuildEvent {
    /// A fact for programs.
    Metadata {
        /// Always `metadata`.
        #[serde(rename = "type")]
        kind: String,
        /// What the value is: `buildLogId` is the release's id.
        resource: String,
        /// The value.
        #[serde(default)]
        value: serde_json::Value,
    },
    /// A line for people.
    Message {
        /// The text, maybe with terminal colours.
        message: String,
        /// Overwrites the line before.
        #[serde(default)]
        replace: bool,
        /// The build has failed.
        #[serde(default, rename = "isError")]
        is_error: bool,
    },
    /// The answer to a detached build.
    Started {
        /// Whether it is being built.
        started: bool,
        /// The release's id.
        #[serde(default, rename = "releaseId")]
        release_id: Option<i64>,
        /// Why it is not being built.
        #[serde(default)]
        message: Option<String>,
    },
}

impl Client {
    /// Sends a project, a gzipped tar, and returns what the builder says as it says it.
    pub async fn build(
        &self,
        fleet: &Fleet,
        project: Body,
        options: &BuildOptions,
    ) -> Result<impl Stream<Item = Result<BuildEvent, Error>> + Unpin + use<>, Error> {
        let what = "push the project";
        let mut url = self.url("v3/build");
        url.query_pairs_mut()
            .append_pair("slug", &fleet.slug)
            .append_pair("dockerfilePath", options.dockerfile.as_deref().unwrap_or_default())
            .append_pair("emulated", "false")
            .append_pair("nocache", if options.no_cache { "true" } else { "false" })
            .append_pair("headless", if options.detached { "true" } else { "false" })
            .append_pair("isdraft", if options.draft { "true" } else { "false" });
        let request = self
            .stream(Method::POST, url)
            .header(header::CONTENT_ENCODING, "gzip")
            .header(header::CONTENT_TYPE, "application/x-tar")
            .body(project);
        let response = self.send(what, request).await?;
        let client = self.clone();
        let events = response
            .bytes_stream()
            .scan(Elements::default(), move |elements, chunk| {
                let events = match chunk {
                    Ok(bytes) => events(what, elements, &bytes),
                    Err(source) => vec![Err(client.transport(what, source))],
                };
                std::future::ready(Some(futures_util::stream::iter(events)))
            })
            .flatten();
        Ok(Box::pin(events))
    }
}

fn events(what: &str, elements: &mut Elements, bytes: &[u8]) -> Vec<Result<BuildEvent, Error>> {
    let answer = |reason: String| Error::Answer { what: what.to_owned(), reason };
    match elements.push(bytes) {
        Ok(whole) => whole
            .iter()
            .map(|element| {
                serde_json::from_slice(element).map_err(|error| answer(error.to_string()))
            })
            .collect(),
        Err(_) => vec![Err(answer(format!("a message is longer than {MAX_ELEMENT} bytes")))],
    }
}
