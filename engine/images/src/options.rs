//! What callers of the store choose.

use std::time::Duration;

use minke_common_model::image_reference::ImageReference;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How a store behaves for as long as it is open.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keep each layer's compressed bytes after unpacking (build workers: a push need not compress again).
    pub keep_blobs: bool,
    /// How much one layer may hold.
    pub limits: Limits,
    /// How long the bytes of a broken-off download wait for the next try.
    pub keep_partial: Duration,
    /// How much of a long download a power cut may cost.
    pub settle: Duration,
    /// How often each layer is read again as a whole, and compared with what it should be, by
    /// [`Store::scrub`](crate::Store::scrub).
    pub scrub: Duration,
    /// A layer that has not been read as a whole for so long is read before it is used.
    pub overdue: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_blobs: false,
            limits: Limits::default(),
            keep_partial: DAY * 7,
            settle: Duration::from_secs(10),
            scrub: DAY * 7,
            overdue: DAY * 28,
        }
    }
}

/// How much one layer may hold; beyond is an error that says the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the uncompressed tar.
    pub bytes: u64,
    /// Bytes of one path, links and long names included.
    pub path: usize,
    /// Components of one path.
    pub depth: usize,
    /// Bytes of the extended headers of one entry, and of what global ones hold.
    pub header: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: 64 << 30, path: 4095, depth: 200, header: 1 << 20 }
    }
}

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password, for basic authentication or to get a token with.
    Basic {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// A bearer token that the registry takes as it is (`registrytoken` of Docker's header).
    RegistryToken(String),
    /// An OAuth2 refresh token (`identitytoken` of Docker's header).
    IdentityToken(String),
}

/// Secrets are not printed.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username}, …)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

/// An operating system and a processor, in Go's spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `386`.
    pub architecture: String,
    /// `v7` and the like, where it says more than the architecture: `arm64` alone is `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine this program was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Reads `os/arch[/variant]` or just `arch`, as `docker pull --platform` takes it. What has several
    /// spellings comes out in the one that containerd has, so that equal platforms are equal.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_ascii_lowercase);
        let (first, second, third) = (parts.next()?, parts.next(), parts.next());
        let (os, architecture, variant) = match second {
            Some(architecture) => (first, architecture, third),
            None => ("linux".to_owned(), first, None),
        };
        if os.is_empty() || architecture.is_empty() || parts.next().is_some() {
            return None;
        }
        let (architecture, variant) = normal(architecture, variant.unwrap_or_default());
        Some(Self { os, architecture, variant: Some(variant).filter(|v| !v.is_empty()) })
    }
}

/// One spelling for an architecture and its variant; an empty variant is none.
fn normal(architecture: String, variant: String) -> (String, String) {
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        _ => return (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// How patient transfers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until an answer begins, and between two pieces of its body.
    pub stall: Duration,
    /// Tries in a row without a byte of progress.
    pub attempts: u32,
    /// Wait before the second try; doubles each time, with jitter.
    pub first_wait: Duration,
    /// The longest wait, also when the registry asks for more.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            attempts: 6,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// How to reach registries.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Who asks; nobody if missing.
    pub auth: Option<Credentials>,
    /// Base URLs tried for `docker.io` before Docker Hub itself, in this order.
    pub mirrors: Vec<String>,
    /// Registries (`host:port`) that may be asked without TLS; loopback addresses always may.
    pub insecure: Vec<String>,
    /// Which image of an index; the host's if missing.
    pub platform: Option<Platform>,
    /// Timeouts and retries.
    pub patience: Patience,
}

/// How to reach the registry of a push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Who asks; nobody if missing.
    pub auth: Option<Credentials>,
    /// Registries (`host:port`) that may be asked without TLS; loopback addresses always may.
    pub insecure: Vec<String>,
    /// Timeouts and retries.
    pub patience: Patience,
}

/// How `remove` treats an image that is named or used elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Remove it although stopped containers use it or it has several names.
    pub force: bool,
    /// Keep its unnamed parents.
    pub no_prune: bool,
}

/// What an image is used for by its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A container that exists but does not run: `force` removes the image's names and hides it.
    Stopped,
    /// A running container: the image stays.
    Running,
}

/// What an operation took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name went: `busybox:latest`.
    Untagged(String),
    /// An image or layer went: `sha256:…`.
    Deleted(String),
}

/// What prune took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In the order of removal.
    pub removed: Vec<Removed>,
    /// Unpacked bytes of the layers that went.
    pub space_reclaimed: u64,
}

/// What a push stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The reference with the manifest's digest.
    pub reference: ImageReference,
    /// Bytes of the manifest.
    pub manifest_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_platform_come_to_one() {
        for (text, shown) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), shown, "{text}");
        }
        let host = Platform::host();
        assert_eq!(Platform::parse(&host.to_string()), Some(host));
        assert_eq!(Platform::parse("linux/arm64/v8/x"), None);
    }
}
