//! `/images`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use minke_common_model::image_reference::{DEFAULT_TAG, ImageReference};

use super::{Client, optional};
use crate::transport::{JsonLines, segment};
use crate::wire::{DeletedImage, ImageDetails, ImageSummary, ProgressLine, RegistryAuth};
use crate::{Error, PullImage, PullProgress};

impl Client {
    /// Every image that has a name or that a container uses.
    pub async fn list_images(&self) -> Result<Vec<ImageSummary>, Error> {
        self.get("/images/json".to_owned()).send().await?.json().await
    }

    /// Every image, also those without a name that builds have made on their way, each with what it shares
    /// with others.
    pub async fn list_all_images(&self) -> Result<Vec<ImageSummary>, Error> {
        let call = self.get("/images/json".to_owned()).flag("all", true).flag("shared-size", true);
        call.send().await?.json().await
    }

    /// One image, by name or id.
    pub async fn inspect_image(&self, name: &str) -> Result<Option<ImageDetails>, Error> {
        let call = self.get(format!("/images/{}/json", segment(name)));
        let answer = async { call.send().await?.json().await };
        optional(answer.await)
    }

    /// Pulls an image; `progress` hears of every line.
    pub async fn pull(
        &self,
        pull: &PullImage,
        mut progress: impl FnMut(&PullProgress) + Send,
    ) -> Result<(), Error> {
        let mut call = self.post("/images/create".to_owned()).query("fromImage", &pull.reference);
        // A bare name would stand for every tag of it.
        let parsed = pull.reference.parse::<ImageReference>();
        if parsed.is_ok_and(|reference| reference.is_name_only()) {
            call = call.query("tag", DEFAULT_TAG);
        }
        if !pull.platform.is_empty() {
            call = call.query("platform", &pull.platform);
        }
        if let Some(auth) = &pull.auth {
            call = call.header("x-registry-auth", auth_header(auth));
        }
        let mut lines = call.send().await?.lines::<ProgressLine>();
        let mut state = PullProgress::default();
        while let Some(line) = next_line(&mut lines).await? {
            state.update(&line);
            progress(&state);
        }
        Ok(())
    }

    /// Pushes an image under its name `host/path:tag`; `progress` hears of every line.
    pub async fn push(
        &self,
        name: &str,
        auth: &RegistryAuth,
        mut progress: impl FnMut(&ProgressLine) + Send,
    ) -> Result<(), Error> {
        let (repository, tag) = split_tag(name);
        let mut call = self
            .post(format!("/images/{}/push", segment(repository)))
            .header("x-registry-auth", auth_header(auth));
        if let Some(tag) = tag {
            call = call.query("tag", tag);
        }
        let mut lines = call.send().await?.lines::<ProgressLine>();
        while let Some(line) = next_line(&mut lines).await? {
            progress(&line);
        }
        Ok(())
    }

    /// Gives an image a further name.
    pub async fn tag(&self, name: &str, new_name: &str) -> Result<(), Error> {
        let (repository, tag) = split_tag(new_name);
        self.post(format!("/images/{}/tag", segment(name)))
            .query("repo", repository)
            .query("tag", tag.unwrap_or("latest"))
            .send()
            .await?
            .done()
            .await
    }

    /// Removes a name, and with the last name the image.
    pub async fn delete_image(&self, name: &str, force: bool) -> Result<Vec<DeletedImage>, Error> {
        let call = self.delete(format!("/images/{}", segment(name))).flag("force", force);
        call.send().await?.json().await
    }

    /// Removes a name, and with the last name the image, but not the images that it was built from:
    /// they are what later builds begin with.
    pub async fn delete_built_image(&self, name: &str) -> Result<Vec<DeletedImage>, Error> {
        let call = self.delete(format!("/images/{}", segment(name))).flag("noprune", true);
        call.send().await?.json().await
    }
}

/// The next line; a line that says an error is one.
pub(super) async fn next_line(
    lines: &mut JsonLines<ProgressLine>,
) -> Result<Option<ProgressLine>, Error> {
    let line = lines.next().await?;
    if let Some(ProgressLine { error: Some(message), error_detail, .. }) = &line {
        let code = error_detail.as_ref().and_then(|detail| detail.code).unwrap_or(500);
        return Err(Error::Refused {
            call: lines.name().to_owned(),
            status: u16::try_from(code).unwrap_or(500),
            message: message.clone(),
        });
    }
    Ok(line)
}

/// Cuts `host:5000/path:tag` before the tag; a name with a digest has none.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') && !repository.contains('@') => {
            (repository, Some(tag))
        }
        _ => (name, None),
    }
}

/// Credentials as a header.
pub(super) fn auth_header(auth: &RegistryAuth) -> String {
    URL_SAFE.encode(serde_json::to_vec(auth).unwrap_or_default())
}

/// Credentials of several registries as a header.
pub(super) fn config_header(registries: &BTreeMap<String, RegistryAuth>) -> String {
    URL_SAFE.encode(serde_json::to_vec(registries).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_cut_but_a_port_is_not() {
        assert_eq!(split_tag("localhost:5000/a/b"), ("localhost:5000/a/b", None));
        assert_eq!(split_tag("localhost:5000/a/b:v1"), ("localhost:5000/a/b", Some("v1")));
        assert_eq!(split_tag("a@sha256:00"), ("a@sha256:00", None));
    }

    #[test]
    fn credentials_are_url_safe_base64() {
        let auth = RegistryAuth { username: "a?>".to_owned(), ..RegistryAuth::default() };
        assert_eq!(auth_header(&auth), "eyJ1c2VybmFtZSI6ImE_PiJ9");
        assert!(
            !format!("{:?}", RegistryAuth { password: "secret".into(), ..auth }).contains("secret")
        );
    }
}
