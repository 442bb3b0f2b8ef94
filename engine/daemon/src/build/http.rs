//! `POST /build` and `POST /build/prune`.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use minke_common_dockerfile::{parse, plan};
use minke_common_model::image_reference::ImageReference;
use minke_engine_images::Platform;
use serde_json::json;

use crate::api::filters::Filters;
use crate::build::context;
use crate::build::output::Output;
use crate::build::request::BuildRequest;
use crate::build::stages::{Build, Parts};
use crate::build::usage::Prune;
use crate::build::work::{Builder, StopOnDrop};
use crate::error::{Error, Result};

/// The builder's routes, without a version in front. No body limit may be laid around them.
pub(crate) fn router(builder: Builder) -> Router {
    Router::new()
        .route("/build", post(build))
        .route("/build/prune", post(prune))
        .with_state(builder)
}

/// Docker keeps what is used elsewhere unless `all` is said; here nothing else uses the cache.
async fn prune(
    State(builder): State<Builder>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let value = |wanted: &str| {
        pairs.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value.as_str())
    };
    let filters = Filters::parse(value("filters"))?;
    filters.check(&["until", "id", "type"])?;
    let keep = match value("keep-storage") {
        "" => 0,
        text => text.parse().map_err(|_| {
            Error::Invalid(format!("keep-storage is a number of bytes, not {text:?}"))
        })?,
    };
    let wanted = Prune {
        until: filters.until()?,
        keep,
        ids: filters.all("id").to_vec(),
        kinds: filters.all("type").to_vec(),
    };
    let pruned = builder.prune(&wanted).await?;
    let answer = json!({ "CachesDeleted": pruned.ids, "SpaceReclaimed": pruned.freed });
    Ok(Json(answer).into_response())
}

/// What is wrong with the request, its context or the Dockerfile's text is a status; what goes wrong
/// afterwards is a line of the answer.
async fn build(
    State(builder): State<Builder>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let request = BuildRequest::read(&pairs, &headers)?;
    let workspace = builder.workspace()?;
    let stop = StopOnDrop(workspace.cancelled.clone());
    let context = context::receive(body, &workspace, &request).await?;
    let file = parse(&context.dockerfile)
        .map_err(|e| Error::Invalid(format!("dockerfile parse error on {e}")))?;
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let builtin = builtin(&platform);
    let target = Some(request.target.as_str());
    let plan = plan::plan(&file, target, &request.args, &builtin)
        .map_err(|e| Error::Invalid(format!("dockerfile parse error on {e}")))?;
    let (output, receiver) = Output::new(request.quiet);
    let build = Build::new(Parts {
        builder,
        request,
        workspace,
        context,
        file,
        plan,
        output: output.clone(),
        builtin,
    });
    tokio::spawn(run(build, output, stop));
    let lines = futures_util::stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((Ok::<Bytes, Infallible>(line), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// Builds until done or until nobody reads any more; dropping the future stops containers and copies.
async fn run(build: Build, output: Output, stop: StopOnDrop) {
    for warning in &build.file.warnings {
        let (line, column) = (warning.line, warning.column);
        let text = format!("[Warning] line {line}, column {column}: {}\n", warning.message);
        output.text(&text).await;
    }
    let result = tokio::select! {
        result = build.run() => result,
        () = output.closed() => {
            tracing::info!("a build was cancelled: its client went away");
            drop(stop);
            return;
        }
    };
    build.builder.cache.save(&build.builder.store).await;
    match result {
        Ok(id) => output.finished(&id.to_string(), &names(&build.request.tags)).await,
        Err(failure) => output.failed(&failure.message, failure.code).await,
    }
}

/// Tags as Docker says them: `demo` was named `demo:latest`.
fn names(tags: &[String]) -> Vec<String> {
    let familiar = |tag: &String| match tag.parse::<ImageReference>() {
        Ok(reference) => reference.with_default_tag().familiar(),
        Err(_) => tag.clone(),
    };
    tags.iter().map(familiar).collect()
}

/// Variables that exist without being given.
fn builtin(target: &Platform) -> BTreeMap<String, String> {
    let host = Platform::host();
    let mut out = BTreeMap::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", &host)] {
        let mut put = |name: &str, value: String| out.insert(format!("{prefix}{name}"), value);
        put("PLATFORM", platform.to_string());
        put("OS", platform.os.clone());
        put("ARCH", platform.architecture.clone());
        put("VARIANT", platform.variant.clone().unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_said_as_buildkit_says_them() {
        for (text, expected) in [
            ("linux/arm64/v8", ["linux/arm64", "linux", "arm64", ""]),
            ("linux/arm", ["linux/arm/v7", "linux", "arm", "v7"]),
            ("x86_64", ["linux/amd64", "linux", "amd64", ""]),
        ] {
            let values = builtin(&Platform::parse(text).unwrap());
            let names = ["TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT"];
            assert_eq!(names.map(|name| values[name].as_str()), expected);
        }
    }
}
