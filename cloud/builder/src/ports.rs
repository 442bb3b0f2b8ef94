//! What the builder asks of the rest of the server: one trait, implemented where the rows are.

use serde_json::Value;

/// A boxed future; the trait is used as an object.
pub type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;

/// What the caller of the builder showed to prove who they are.
#[derive(Clone)]
pub struct Credential {
    /// The token after `Bearer`: a user's JWT or an API key. Never logged.
    pub bearer: String,
}

/// The fleet that a push goes to, as the caller may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Row id of the application.
    pub id: i64,
    /// `org/name`, lower case.
    pub slug: String,
    /// Name without the organization.
    pub name: String,
    /// Row id of the calling user, where the caller is one.
    pub user: Option<i64>,
    /// Slug of the fleet's device type, such as `raspberrypi4-64`.
    pub device_type: String,
    /// Slug of that device type's CPU architecture, such as `aarch64`.
    pub architecture: String,
    /// Whether the fleet's application type allows more than one service.
    pub multicontainer: bool,
    /// Variables the fleet defines for builds only, by name.
    pub build_variables: Vec<(String, String)>,
}

/// A release row about to be made. Its status is `running`, its start now.
#[derive(Clone, Debug)]
pub struct NewRelease {
    /// 32 lower-case hexadecimal digits, chosen by the builder.
    pub commit: String,
    /// The composition that devices receive.
    pub composition: Value,
    /// `false` for a draft.
    pub is_final: bool,
    /// Version from `balena.yml`, where there is one.
    pub semver: Option<String>,
    /// The contract from `balena.yml`, where there is one.
    pub contract: Option<Value>,
    /// Milliseconds since the epoch.
    pub start_timestamp: i64,
}

/// A release row that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    /// Row id.
    pub id: i64,
    /// The commit it was made with.
    pub commit: String,
}

/// An image row about to be made for one service of a release.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// The service; its row is made where the fleet has none of that name.
    pub service: String,
    /// Labels of the service in the compose file.
    pub labels: Vec<(String, String)>,
    /// Environment of the service in the compose file.
    pub environment: Vec<(String, String)>,
    /// Milliseconds since the epoch.
    pub start_timestamp: i64,
}

/// An image row that exists, with the place its content goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Row id.
    pub id: i64,
    /// Repository in the registry, `v2/<32 hex>`, without a host.
    pub location: String,
}

/// Status of a release or image row, as the API spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being built.
    Running,
    /// Whole and in the registry.
    Success,
    /// The project could not be built.
    Failed,
    /// The server could not build it.
    Error,
    /// The caller gave up.
    Cancelled,
}

impl Status {
    /// The word in the row.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Success => "success",
            Status::Failed => "failed",
            Status::Error => "error",
            Status::Cancelled => "cancelled",
        }
    }
}

/// What the builder writes on an image row when its build ends. Absent fields stay as they are.
#[derive(Clone, Debug)]
pub struct ImageUpdate {
    /// How it ended.
    pub status: Status,
    /// `sha256:…` of the manifest in the registry.
    pub content_hash: Option<String>,
    /// Bytes of the image's layers, unpacked.
    pub image_size: Option<u64>,
    /// The Dockerfile that was built, after template variables.
    pub dockerfile: Option<String>,
    /// The kind of project, such as `Standard Dockerfile`.
    pub project_type: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Output of the build.
    pub build_log: String,
    /// Milliseconds since the epoch; set once the registry has the image.
    pub push_timestamp: Option<i64>,
    /// Milliseconds since the epoch.
    pub end_timestamp: i64,
}

/// How a release ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended; `Success` is written after every image.
    pub status: Status,
    /// The log that the caller saw.
    pub build_log: String,
    /// Milliseconds since the epoch.
    pub end_timestamp: i64,
}

/// Why a request to the rest of the server failed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No valid credential: 401.
    #[error("the token is missing, expired or not valid")]
    Unauthorized,
    /// The caller sees no such fleet: 404.
    #[error("no fleet {0} that you may push to")]
    NoFleet(String),
    /// The server refuses the rows; the text says why: 400.
    #[error("{0}")]
    Refused(String),
    /// The server failed; the text is for the log of the server.
    #[error("recording the release")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Rows and tokens of a push. One implementation, in the server binary.
pub trait Releases: Send + Sync + 'static {
    /// Who the caller is and whether they may push to `slug` (`org/name`, or a fleet's uuid).
    fn fleet<'a>(
        &'a self,
        credential: &'a Credential,
        slug: &'a str,
    ) -> BoxFuture<'a, Result<Fleet, ReleaseError>>;

    /// Makes the release row, `status: running`, `source: cloud`, created by the fleet's `user`.
    fn create_release<'a>(
        &'a self,
        fleet: &'a Fleet,
        release: NewRelease,
    ) -> BoxFuture<'a, Result<ReleaseRow, ReleaseError>>;

    /// Makes the service row if missing, the image row (`running`) and its place in the release,
    /// with labels and environment.
    fn create_image<'a>(
        &'a self,
        fleet: &'a Fleet,
        release: &'a ReleaseRow,
        image: NewImage,
    ) -> BoxFuture<'a, Result<ImageRow, ReleaseError>>;

    /// Writes how an image's build ended.
    fn update_image<'a>(
        &'a self,
        image: &'a ImageRow,
        update: ImageUpdate,
    ) -> BoxFuture<'a, Result<(), ReleaseError>>;

    /// Writes how the release ended, unless it has ended already: somebody cancelled or deleted it.
    /// Says whether this was its end; the log is kept either way. `Success` moves the fleet's target
    /// where it tracks the latest and wakes its devices.
    fn finish_release<'a>(
        &'a self,
        fleet: &'a Fleet,
        release: &'a ReleaseRow,
        outcome: Outcome,
    ) -> BoxFuture<'a, Result<bool, ReleaseError>>;

    /// Whether the release was cancelled through the API meanwhile.
    fn is_cancelled<'a>(
        &'a self,
        release: &'a ReleaseRow,
    ) -> BoxFuture<'a, Result<bool, ReleaseError>>;

    /// A registry token with push and pull on exactly `repositories` (paths without a host).
    fn registry_token<'a>(
        &'a self,
        repositories: &'a [String],
    ) -> BoxFuture<'a, Result<String, ReleaseError>>;
}
