//! Base images and processors: a wrong one is said at push time, not by a device.

use std::collections::BTreeMap;

use minke_common_dockerfile::plan::{self, Base};

use crate::ports::Fleet;
use crate::project::{ProjectError, Recipe};

/// A processor in the two spellings that meet here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Processor {
    /// As device types say it: `aarch64`.
    pub slug: String,
    /// As images say it: `linux/arm64`.
    pub platform: &'static str,
}

impl Processor {
    /// Of a device type's architecture; `None` for one that images have no word for.
    pub fn of_slug(slug: &str) -> Option<Processor> {
        let platform = match slug {
            "aarch64" => "linux/arm64",
            "armv7hf" => "linux/arm/v7",
            "rpi" => "linux/arm/v6",
            "amd64" | "generic-amd64" => "linux/amd64",
            "i386" | "i386-nlp" => "linux/386",
            "riscv64" => "linux/riscv64",
            _ => return None,
        };
        Some(Processor { slug: slug.to_owned(), platform })
    }

    fn parts(&self) -> (&'static str, &'static str) {
        let rest = self.platform.trim_start_matches("linux/");
        rest.split_once('/').unwrap_or((rest, ""))
    }

    /// Whether a device of this processor can run an image that says it is for `architecture` and
    /// `variant`. An image that says nothing of a variant is taken at its word.
    pub fn runs(&self, architecture: &str, variant: &str) -> bool {
        let (own, own_variant) = self.parts();
        let number = |v: &str| v.trim_start_matches('v').parse::<u32>().ok();
        match (own, architecture) {
            ("arm", "arm") => match (number(own_variant), number(variant)) {
                (Some(have), Some(need)) => need <= have,
                _ => true,
            },
            (own, other) => own == other,
        }
    }
}

/// An image that a build begins with or a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseImage {
    pub reference: String,
    /// `linux/…`, where the Dockerfile names one.
    pub platform: Option<String>,
    /// File and line that name it.
    pub place: String,
}

/// Variables that `FROM` lines may use without declaring them.
pub(crate) fn builtin(processor: &Processor) -> BTreeMap<String, String> {
    let (architecture, variant) = processor.parts();
    // As the engine says it, which builds with its own.
    let (host, host_variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "arm" => ("arm", "v7"),
        "x86" => ("386", ""),
        other => (other, ""),
    };
    let slash = if host_variant.is_empty() { "" } else { "/" };
    let mut out = BTreeMap::new();
    let mut put = |k: &str, v: String| out.insert(k.to_owned(), v);
    put("TARGETPLATFORM", processor.platform.to_owned());
    put("TARGETOS", "linux".into());
    put("TARGETARCH", architecture.to_owned());
    put("TARGETVARIANT", variant.to_owned());
    put("BUILDPLATFORM", format!("linux/{host}{slash}{host_variant}"));
    put("BUILDOS", "linux".into());
    put("BUILDARCH", host.to_owned());
    put("BUILDVARIANT", host_variant.into());
    out
}

/// Images that the stages of a build begin with.
pub(crate) fn of_recipe(
    recipe: &Recipe,
    args: &BTreeMap<String, String>,
    processor: &Processor,
) -> Result<Vec<BaseImage>, ProjectError> {
    let plan =
        plan::plan(&recipe.parsed, recipe.build.target.as_deref(), args, &builtin(processor))
            .map_err(|e| ProjectError::Invalid {
                file: recipe.file.clone(),
                message: e.to_string(),
            })?;
    let mut out = Vec::new();
    for index in plan.order {
        if let (Base::Image(reference), platform) = &plan.bases[index] {
            let line = recipe.parsed.stages[index].span.line;
            out.push(BaseImage {
                reference: reference.clone(),
                platform: platform.clone(),
                place: format!("{}: line {line}", recipe.file),
            });
        }
    }
    Ok(out)
}

/// What is said when an image is for another processor.
pub(crate) fn mismatch(base: &BaseImage, has: &str, fleet: &Fleet, needs: &Processor) -> String {
    format!(
        "{}: the image `{}` is for {has}, but devices of type {} ({}) need {}",
        base.place, base.reference, fleet.device_type, needs.slug, needs.platform
    )
}

/// What is said when an image cannot be pulled. An engine that has found the image, but not for this
/// processor, says what there is in brackets.
pub(crate) fn unavailable(
    base: &BaseImage,
    platform: &str,
    reason: &str,
    fleet: &Fleet,
    needs: &Processor,
) -> String {
    let offered = reason.split_once("(it has ").and_then(|(_, rest)| rest.strip_suffix(')'));
    match offered {
        Some(has) if base.platform.is_none() => mismatch(base, has, fleet, needs),
        _ => format!(
            "{}: the image `{}` cannot be had for {platform}: {reason}",
            base.place, base.reference
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_processor_names_image_what_it_has_and_what_is_needed() {
        let base = BaseImage {
            reference: "box:1".into(),
            platform: None,
            place: "api/Dockerfile: line 3".into(),
        };
        let fleet = Fleet {
            id: 1,
            slug: "o/f".into(),
            name: "f".into(),
            user: None,
            device_type: "raspberrypi4-64".into(),
            architecture: "aarch64".into(),
            multicontainer: true,
            build_variables: Vec::new(),
        };
        let needs = Processor::of_slug("aarch64").unwrap();
        let reason = "no matching manifest for linux/arm64 in the manifest list entries (it has linux/amd64)";
        assert_eq!(
            unavailable(&base, "linux/arm64", reason, &fleet, &needs),
            "api/Dockerfile: line 3: the image `box:1` is for linux/amd64, but devices of type \
             raspberrypi4-64 (aarch64) need linux/arm64"
        );
        let gone = unavailable(&base, "linux/arm64", "manifest unknown", &fleet, &needs);
        assert!(gone.ends_with("cannot be had for linux/arm64: manifest unknown"), "{gone}");
    }

    #[test]
    fn a_processor_runs_its_own_and_older_ones() {
        let pi4 = Processor::of_slug("aarch64").unwrap();
        assert!(pi4.runs("arm64", "v8") && pi4.runs("arm64", ""));
        assert!(!pi4.runs("amd64", "") && !pi4.runs("arm", "v7"));
        let pi3 = Processor::of_slug("armv7hf").unwrap();
        assert!(pi3.runs("arm", "v7") && pi3.runs("arm", "v6") && pi3.runs("arm", ""));
        let pi0 = Processor::of_slug("rpi").unwrap();
        assert!(!pi0.runs("arm", "v7") && pi0.runs("arm", "v5"));
        assert_eq!(Processor::of_slug("abacus"), None);
    }
}
