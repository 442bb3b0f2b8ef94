//! Releases: what was built from a project, and its images.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::odata::{Filter, Query};
use crate::{Client, Error, Fleet};

/// A release in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Release {
    /// The release's id.
    pub id: i64,
    /// 32 or 40 hex digits.
    pub commit: String,
    /// ISO time.
    pub created_at: String,
    /// `running`, `success`, `failed`, `cancelled`, …
    pub status: String,
    /// Version with revision, as `0.0.0+rev2`.
    pub raw_version: Option<String>,
    /// Not a draft.
    pub is_final: bool,
}

/// A release with what was built for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseDetail {
    /// What a list shows too.
    #[serde(flatten)]
    pub release: Release,
    /// ISO time at which the build began.
    pub start_timestamp: Option<String>,
    /// ISO time at which the build ended.
    pub end_timestamp: Option<String>,
    /// What the builder wrote.
    pub build_log: Option<String>,
    /// The compose file as it was understood.
    pub composition: Option<Value>,
    /// One image per service.
    pub images: Vec<Image>,
}

/// What was built for one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// The service's name.
    pub service: String,
    /// As the release's.
    pub status: String,
    /// Where the registry keeps it.
    pub location: Option<String>,
    /// `sha256:…` of its manifest.
    pub content_hash: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// Why it could not be built.
    pub error_message: Option<String>,
    /// ISO time at which its build began.
    pub start_timestamp: Option<String>,
    /// ISO time at which it began to be stored.
    pub push_timestamp: Option<String>,
    /// ISO time at which it was stored.
    pub end_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    release: Release,
    start_timestamp: Option<String>,
    end_timestamp: Option<String>,
    build_log: Option<String>,
    composition: Option<Value>,
    #[serde(default)]
    release_image: Vec<ReleaseImage>,
}

#[derive(Deserialize)]
struct ReleaseImage {
    #[serde(default)]
    image: Vec<ImageRow>,
}

#[derive(Deserialize)]
struct ImageRow {
    status: String,
    is_stored_at__image_location: Option<String>,
    content_hash: Option<String>,
    /// A big integer, which the API writes as a string.
    image_size: Option<Value>,
    error_message: Option<String>,
    start_timestamp: Option<String>,
    push_timestamp: Option<String>,
    end_timestamp: Option<String>,
    #[serde(default)]
    is_a_build_of__service: Vec<ServiceName>,
}

#[derive(Deserialize)]
struct ServiceName {
    service_name: String,
}

const LISTED: [&str; 6] = ["id", "commit", "created_at", "status", "raw_version", "is_final"];

impl From<ImageRow> for Image {
    fn from(row: ImageRow) -> Image {
        let size = row.image_size.and_then(|size| match size {
            Value::String(digits) => digits.parse().ok(),
            Value::Number(number) => number.as_u64(),
            _ => None,
        });
        Image {
            service: row
                .is_a_build_of__service
                .into_iter()
                .next()
                .map(|it| it.service_name)
                .unwrap_or_default(),
            status: row.status,
            location: row.is_stored_at__image_location,
            content_hash: row.content_hash,
            size,
            error_message: row.error_message,
            start_timestamp: row.start_timestamp,
            push_timestamp: row.push_timestamp,
            end_timestamp: row.end_timestamp,
        }
    }
}

impl Client {
    /// The releases of a fleet, newest first.
    pub async fn releases(&self, fleet: &Fleet) -> Result<Vec<Release>, Error> {
        let query = Query::new("release")
            .select(LISTED)
            .filter(Filter::eq("belongs_to__application", fleet.id))
            .order_by("created_at desc");
        self.rows("list releases", &query).await
    }

    /// The release with this id, else the one whose commit begins so: a commit may begin with digits alone.
    pub async fn release(&self, name: &str) -> Result<ReleaseDetail, Error> {
        let by_id = match name.parse::<i64>() {
            Ok(id) => self.matching_releases(Filter::eq("id", id)).await?,
            Err(_) => Vec::new(),
        };
        let mut rows = match by_id.is_empty() {
            true => self.matching_releases(Filter::starts_with("commit", name)).await?,
            false => by_id,
        };
        match rows.len() {
            0 => Err(Error::NotFound { kind: "release", name: name.to_owned() }),
            1 => Ok(detail(rows.remove(0))),
            _ => Err(Error::Ambiguous {
                kind: "release",
                name: name.to_owned(),
                candidates: rows
                    .iter()
                    .map(|it| it.release.commit.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    async fn matching_releases(&self, filter: Filter) -> Result<Vec<Row>, Error> {
        let service = Query::new("is_a_build_of__service").select(["service_name"]);
        let image = Query::new("image")
            .select([
                "status",
                "is_stored_at__image_location",
                "content_hash",
                "image_size",
                "error_message",
                "start_timestamp",
                "push_timestamp",
                "end_timestamp",
            ])
            .expand(service);
        let fields = LISTED.into_iter().chain([
            "start_timestamp",
            "end_timestamp",
            "build_log",
            "composition",
        ]);
        let query = Query::new("release")
            .select(fields)
            .filter(filter)
            .expand(Query::new("release_image").select(["id"]).expand(image))
            .order_by("created_at desc")
            .top(5);
        self.rows("find the release", &query).await
    }
}

fn detail(row: Row) -> ReleaseDetail {
    let mut images: Vec<Image> =
        row.release_image.into_iter().flat_map(|it| it.image).map(Image::from).collect();
    images.sort_by(|a, b| a.service.cmp(&b.service));
    ReleaseDetail {
        release: row.release,
        start_timestamp: row.start_timestamp,
        end_timestamp: row.end_timestamp,
        build_log: row.build_log,
        composition: row.composition,
        images,
    }
}
