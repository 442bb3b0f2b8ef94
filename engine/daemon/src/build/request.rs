//! What a client asks of a build: query parameters and headers.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::HeaderMap;
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::{RegistryAuth, Ulimit};
use minke_engine_images::Platform;
use minke_engine_runtime::spec::Resources;
use serde::de::DeserializeOwned;

use crate::api::params::is_on;
use crate::base64;
use crate::build::runner::RunNetwork;
use crate::error::{Error, Result};

/// Header with secrets for `RUN --mount=type=secret`: base64 of a JSON object, id to base64 of the
/// secret's bytes. The classic API has no place for them.
pub(crate) const SECRETS_HEADER: &str = "x-minke-build-secrets";
/// Parameters that may be given more than once.
const REPEAT: [&str; 2] = ["t", "extrahosts"];
/// Longest header of credentials or secrets, in bytes.
const MAX_HEADER: usize = 512 << 10;

/// A build that was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct BuildRequest {
    pub(crate) tags: Vec<String>,
    /// In the context.
    pub(crate) dockerfile: String,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) target: String,
    pub(crate) no_cache: bool,
    pub(crate) pull: bool,
    pub(crate) quiet: bool,
    /// The layers that the build adds become one.
    pub(crate) squash: bool,
    /// Images whose steps may be taken instead of being made again.
    pub(crate) cache_from: Vec<String>,
    /// Where the context is, when it is not in the request's body.
    pub(crate) remote: String,
    /// Asked for by name; `None` is the engine's own.
    pub(crate) platform: Option<Platform>,
    pub(crate) network: RunNetwork,
    /// Of each `RUN` step.
    pub(crate) resources: Resources,
    pub(crate) ulimits: Vec<Ulimit>,
    /// Where the cgroups of steps are made; empty is the engine's own place.
    pub(crate) cgroup_parent: String,
    pub(crate) shm_size: u64,
    pub(crate) extra_hosts: Vec<String>,
    /// By registry.
    pub(crate) registries: BTreeMap<String, RegistryAuth>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// The client asks for BuildKit.
    version_2: bool,
}

/// A secret; never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl BuildRequest {
    /// Reads the parameters. Pairs may repeat (`t`).
    pub(crate) fn read(pairs: &[(String, String)], headers: &HeaderMap) -> Result<BuildRequest> {
        let mut out = BuildRequest { dockerfile: "Dockerfile".into(), ..BuildRequest::default() };
        let mut seen = BTreeSet::new();
        for (name, value) in pairs {
            // Of what does not repeat, the first counts.
            if REPEAT.contains(&name.as_str()) || seen.insert(name) {
                out.parameter(name, value)?;
            }
        }
        if out.version_2 && pairs.iter().any(|(name, value)| name == "session" && !value.is_empty())
        {
            let text = "BuildKit's sessions are not spoken here: use DOCKER_BUILDKIT=0";
            return Err(Error::NotImplemented(text.into()));
        }
        out.registries = header(headers, "x-registry-config")?.unwrap_or_default();
        out.secrets = secrets(headers)?;
        Ok(out)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = |expected: &str| {
            Error::Invalid(format!("invalid value {value:?} of `{name}`: expected {expected}"))
        };
        let yes = is_on(value);
        match name {
            "t" if !value.is_empty() => self.tags.push(tag(value)?),
            "dockerfile" if !value.is_empty() => self.dockerfile = value.to_owned(),
            "buildargs" => self.args = arguments(value, name)?,
            "labels" => self.labels = json(value, name)?,
            "target" => self.target = value.to_owned(),
            "nocache" => self.no_cache = yes,
            "pull" => self.pull = yes,
            "q" => self.quiet = yes,
            "squash" => self.squash = yes,
            "cachefrom" => self.cache_from = json(value, name)?,
            "remote" => self.remote = value.to_owned(),
            "platform" if !value.is_empty() => {
                let read = Platform::parse(value).ok_or_else(|| bad("os/architecture"))?;
                self.platform = Some(read);
            }
            "networkmode" => self.network = RunNetwork::read(value),
            "extrahosts" => self.extra_hosts.extend(hosts(value)?),
            "ulimits" => self.ulimits = json(value, name)?,
            "cgroupparent" if value.contains("..") => return Err(bad("a path without `..`")),
            "cgroupparent" => self.cgroup_parent = value.trim_end_matches('/').to_owned(),
            "version" => match value {
                "" | "1" => {}
                // Its Dockerfiles are understood; what it asks of a session is not.
                "2" => self.version_2 = true,
                _ => return Err(bad("1 or 2")),
            },
            "outputs" if !matches!(value, "" | "[]" | "null") => {
                let text = "`outputs` needs BuildKit, which is not supported: use `docker save`";
                return Err(Error::NotImplemented(text.into()));
            }
            "isolation" if !matches!(value, "" | "default") => return Err(bad("default")),
            "securityopt" if !matches!(value, "" | "[]" | "null") => {
                return Err(bad("nothing: steps have the engine's own profile"));
            }
            _ => self.limit(name, value)?,
        }
        Ok(())
    }

    /// A limit of `RUN` steps; other names mean nothing here.
    fn limit(&mut self, name: &str, value: &str) -> Result<()> {
        let bad =
            || Error::Invalid(format!("invalid value {value:?} of `{name}`: expected a number"));
        let number = || match value {
            "" => Ok(0),
            text => text.parse::<i64>().map_err(|_| bad()),
        };
        let positive = || number().and_then(|n| u64::try_from(n).map_err(|_| bad()));
        let limits = &mut self.resources;
        match name {
            "memory" => limits.memory = Some(number()?).filter(|n| *n > 0),
            "memswap" => limits.memory_swap = Some(number()?).filter(|n| *n != 0),
            "cpushares" => limits.cpu_shares = positive()?,
            "cpuquota" => limits.cpu_quota = number()?,
            "cpuperiod" => limits.cpu_period = positive()?,
            "cpusetcpus" => limits.cpuset_cpus = value.to_owned(),
            "cpusetmems" => limits.cpuset_mems = value.to_owned(),
            "shmsize" => self.shm_size = positive()?,
            _ => {}
        }
        Ok(())
    }
}

/// A name for the image, refused before anything is built if no image can have it.
fn tag(text: &str) -> Result<String> {
    let parsed = text.parse::<ImageReference>();
    let reference = parsed.map_err(|e| Error::Images(minke_engine_images::Error::Reference(e)))?;
    if reference.digest().is_some() {
        let why = "refusing to create a tag with a digest reference";
        return Err(Error::Invalid(why.to_owned()));
    }
    Ok(text.to_owned())
}

fn json<T: DeserializeOwned + Default>(text: &str, name: &str) -> Result<T> {
    if text.is_empty() {
        return Ok(T::default());
    }
    let read: Option<T> = serde_json::from_str(text)
        .map_err(|e| Error::Invalid(format!("`{name}` cannot be read: {e}")))?;
    Ok(read.unwrap_or_default())
}

/// Docker sends `null` for an argument that is not set on the client.
fn arguments(text: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let all: BTreeMap<String, Option<String>> = json(text, name)?;
    Ok(all.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))).collect())
}

/// The CLI sends a comma-separated list; other clients a JSON array.
fn hosts(text: &str) -> Result<Vec<String>> {
    if text.starts_with('[') {
        return json(text, "extrahosts");
    }
    Ok(text.split(',').filter(|h| !h.is_empty()).map(str::to_owned).collect())
}

fn header<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Result<Option<T>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let bad = |why: &str| Error::Invalid(format!("the header {name} {why}"));
    if value.len() > MAX_HEADER {
        return Err(bad(&format!("is over its limit of {MAX_HEADER} bytes")));
    }
    let bytes = value.to_str().ok().and_then(base64::decode).ok_or_else(|| bad("is no base64"))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    // The parser's own message could quote a secret.
    serde_json::from_slice(&bytes).map(Some).map_err(|_| bad("holds no JSON of the right shape"))
}

fn secrets(headers: &HeaderMap) -> Result<BTreeMap<String, Secret>> {
    let all: BTreeMap<String, String> = header(headers, SECRETS_HEADER)?.unwrap_or_default();
    let decode = |(id, text): (String, String)| match base64::decode(&text) {
        Some(bytes) => Ok((id, Secret(bytes))),
        None => Err(Error::Invalid(format!("the secret {id:?} is no base64"))),
    };
    all.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<BuildRequest> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        BuildRequest::read(&pairs, &HeaderMap::new())
    }

    #[test]
    fn parameters_as_the_docker_cli_sends_them() {
        let request = read(&[
            ("t", "a:1"),
            ("t", "b"),
            ("buildargs", r#"{"A":"1","HTTP_PROXY":null}"#),
            ("labels", "{}"),
            ("cachefrom", "[]"),
            ("cpuquota", "50000"),
            ("cpuperiod", "100000"),
            ("networkmode", "default"),
            ("shmsize", "0"),
            ("pull", "1"),
            ("rm", "1"),
            ("extrahosts", "a:1.2.3.4,b:5.6.7.8"),
            ("memory", "67108864"),
            ("memswap", "-1"),
            ("ulimits", r#"[{"Name":"nofile","Soft":64,"Hard":128}]"#),
            ("cgroupparent", "/mine/"),
            ("squash", "1"),
            ("buildid", "whatever"),
        ])
        .unwrap();
        assert_eq!(request.tags, ["a:1", "b"]);
        assert_eq!(request.args.len(), 1);
        let limits = &request.resources;
        assert_eq!((limits.cpu_quota, limits.cpu_period), (50_000, 100_000));
        assert_eq!((limits.memory, limits.memory_swap), (Some(64 << 20), Some(-1)));
        assert_eq!((request.ulimits[0].name.as_str(), request.ulimits[0].hard), ("nofile", 128));
        assert!(request.pull && request.squash && request.cgroup_parent == "/mine");
        assert_eq!(request.extra_hosts.len(), 2);
        for (name, value) in [
            ("memory", "much"),
            ("shmsize", "-1"),
            ("isolation", "hyperv"),
            ("ulimits", "nofile"),
            ("cgroupparent", "/mine/../.."),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let off = read(&[("pull", "False"), ("nocache", "0"), ("q", "none")]).unwrap();
        assert!(!off.pull && !off.no_cache && !off.quiet);
        assert!(read(&[("nocache", "True")]).unwrap().no_cache);
        assert_eq!(read(&[("dockerfile", "a"), ("dockerfile", "b")]).unwrap().dockerfile, "a");
        read(&[("version", "2")]).unwrap();
        read(&[("version", "3")]).unwrap_err();
        let session = read(&[("version", "2"), ("session", "x")]).unwrap_err().to_string();
        assert!(session.contains("DOCKER_BUILDKIT=0"), "{session}");
    }

    #[test]
    fn headers_are_read_and_never_quoted() {
        let mut headers = HeaderMap::new();
        // {"r":{"username":"u","password":"p"}}
        let auth = "eyJyIjp7InVzZXJuYW1lIjoidSIsInBhc3N3b3JkIjoicCJ9fQ==";
        headers.insert("x-registry-config", auth.parse().unwrap());
        // {"tok":"c2VjcmV0"}
        headers.insert(SECRETS_HEADER, "eyJ0b2siOiJjMlZqY21WMCJ9".parse().unwrap());
        let request = BuildRequest::read(&[], &headers).unwrap();
        assert_eq!(request.registries["r"].password, "p");
        assert_eq!(request.secrets["tok"].0, b"secret");
        assert!(!format!("{request:?}").contains("secret\""));
        headers.insert(SECRETS_HEADER, "!!".parse().unwrap());
        assert!(BuildRequest::read(&[], &headers).is_err());
    }
}
