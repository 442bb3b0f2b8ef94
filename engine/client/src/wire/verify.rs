use serde::{Deserialize, Serialize};

/// One line of the answer to `POST /minke/verify`, a call of this engine only. The last one has a report
/// or an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyLine {
    /// How far the reading is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifying: Option<VerifyProgress>,
    /// What is being fetched to repair something: a line of a pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repairing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<VerifyReport>,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far the reading of an image store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// The layer that is read next.
    pub layer: String,
    /// Bytes of layers read so far.
    pub done: u64,
    /// Bytes of all layers.
    pub total: u64,
}

/// What an image store holds and what of it is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub images: u64,
    pub layers: u64,
    /// Bytes of the layers' tars.
    pub bytes: u64,
    pub damaged: Vec<DamagedPart>,
}

impl VerifyReport {
    /// Whether everything is right, perhaps after repairs.
    pub fn is_good(&self) -> bool {
        self.damaged.iter().all(|part| part.repaired)
    }
}

/// Something that was found damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPart {
    /// `layer sha256:…`, `configuration sha256:…`, `file index`, …
    pub part: String,
    /// The file and what differs.
    pub why: String,
    /// Ids of the images that were not whole because of it.
    pub images: Vec<String>,
    pub repaired: bool,
    /// Why it is not repaired, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
