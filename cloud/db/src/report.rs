//! What devices report: many small writes, put together into few transactions.
//!
//! A report touches the volatile part of a device and its image installs, nothing that a target
//! state says. Reports that come while a transaction is being written wait for the next one and share
//! its commit; each sender is answered when its own report is on disk.
//!
//! A report names releases and images by ids that were looked up before it waited here. What has been
//! removed since is left out: the device cannot know, and the rest of its report is as good as ever.

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use crate::caller::Caller;
use crate::cell::Cell;
use crate::database::Db;
use crate::error::{Error, Result};
use crate::model::{Kind, Model, Resource};
use crate::store::{Engine, Session, Store, list};
use crate::write::{Changes, update_ids};

/// Most reports in one transaction.
const GROUP: usize = 200;
/// Most reports that wait; senders beyond wait to send.
const WAITING: usize = 2_000;

/// What one device says of itself.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Row id of the device.
    pub device: i64,
    /// Volatile fields and links of the device, as in a PATCH; texts beyond a field's limit are cut.
    pub status: Map<String, Value>,
    /// All images that it has or is getting; what is not listed is no more. `None`: not said.
    pub installs: Option<Vec<Install>>,
    /// The device was heard of now and will be again before this time (ms since the epoch).
    pub heard_until: Option<i64>,
}

/// An image on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// Row id of the image.
    pub image: i64,
    /// Row id of the release that brings it.
    pub release: i64,
    /// What is going on with it.
    pub status: String,
    /// Percent, while it is downloaded.
    pub download_progress: Option<i64>,
}

type Waiting = (Report, oneshot::Sender<Result<()>>);

/// The queue to the writer of reports.
#[derive(Debug, Clone)]
pub(crate) struct Reports(mpsc::Sender<Waiting>);

impl Reports {
    /// Starts the writer; it ends when nobody can send any more.
    pub fn start(store: Store) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Waiting>(WAITING);
        tokio::spawn(async move {
            let mut group = Vec::new();
            while receiver.recv_many(&mut group, GROUP).await > 0 {
                write_group(&store, std::mem::take(&mut group)).await;
            }
        });
        Self(sender)
    }
}

impl Db {
    /// Notes that a device was heard of now and will be again before `until` (ms since the epoch).
    pub async fn record_heartbeat(&self, device: i64, until: i64) -> Result<()> {
        let heard_until = Some(until);
        self.report(Report { device, heard_until, ..Report::default() }).await
    }

    /// Stores a report; returns when it is on disk.
    pub async fn report(&self, report: Report) -> Result<()> {
        let gone = || Error::Corrupt("the writer of reports has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.reports.0.send((report, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn write_group(store: &Store, group: Vec<Waiting>) {
    let (reports, answers): (Vec<Report>, Vec<_>) = group.into_iter().unzip();
    let together = reports.len() > 1 && write_all(store, &reports).await.is_ok();
    for (report, answer) in reports.iter().zip(answers) {
        // One bad report must not take the others with it.
        let done = match together {
            true => Ok(()),
            false => write_all(store, std::slice::from_ref(report)).await,
        };
        // A sender that has gone away wants no answer.
        let _ = answer.send(done);
    }
}

async fn write_all(store: &Store, reports: &[Report]) -> Result<()> {
    let mut session = store.write().await?;
    for report in reports {
        write_one(&mut session, report).await?;
    }
    session.commit().await
}

async fn write_one(session: &mut Session, report: &Report) -> Result<()> {
    let device = Model::get()
        .resource("device")
        .ok_or_else(|| Error::Corrupt("the model has no devices".to_owned()))?;
    if !report.status.is_empty() {
        let status = cut(device, &report.status)?;
        let mut changes = Changes::read(device, &status, &Caller::root())?;
        forget_removed(session, device, &mut changes).await?;
        update_ids(session, &Caller::root(), device, &[report.device], changes).await?;
    }
    if let Some(until) = report.heard_until {
        let sql = "UPDATE \"device_status\" SET \"heartbeat_since\" = CASE WHEN \
                   \"heartbeat_expires_at\" > $1 THEN \"heartbeat_since\" ELSE $1 END, \
                   \"heartbeat_expires_at\" = $2 WHERE \"id\" = $3";
        let values = [session.now.into(), until.into(), Cell::Integer(report.device)];
        session.run("noting a heartbeat", sql, values).await?;
    }
    match &report.installs {
        Some(installs) => write_installs(session, report.device, installs).await,
        None => Ok(()),
    }
}

/// Cuts texts to what their fields hold, and sees that nothing else is said.
fn cut(device: &Resource, status: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut cut = Map::new();
    for (name, value) in status {
        let volatile = device.field(name).is_some_and(|f| f.volatile)
            || device.link(name).is_some_and(|l| l.volatile);
        if !volatile {
            return Err(Error::invalid(format!("a device cannot report {name:?}")));
        }
        let value = match (value, device.field(name)) {
            (Value::String(text), Some(field)) if field.kind == Kind::Text => {
                let text = text.chars().filter(|c| *c != '\0').take(field.max);
                Value::String(text.collect())
            }
            (value, _) => value.clone(),
        };
        cut.insert(name.clone(), value);
    }
    Ok(cut)
}

/// On PostgreSQL others write meanwhile: a row that a report names is kept until the report is written.
fn kept(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "",
        Engine::Postgres => "FOR KEY SHARE",
    }
}

/// Says "none" for links to rows that are not there any more.
async fn forget_removed(
    session: &mut Session,
    device: &Resource,
    changes: &mut Changes,
) -> Result<()> {
    for link in device.links.iter().filter(|link| link.volatile) {
        let Some(id) = changes.integer(&link.name) else { continue };
        let target = &Model::get().at(link.to).name;
        let rest = format!("FROM \"{target}\" WHERE \"id\" = $1 {}", kept(session.engine()));
        let rows =
            session.rows("finding what a report names", "\"id\"", &rest, [id.into()]).await?;
        if rows.is_empty() {
            changes.set(&link.name, Cell::Null);
        }
    }
    Ok(())
}

async fn write_installs(session: &mut Session, device: i64, installs: &[Install]) -> Result<()> {
    let now = session.now;
    let kept = kept(session.engine());
    for install in installs {
        let status: String = install.status.chars().filter(|c| *c != '\0').take(255).collect();
        let progress = match install.download_progress {
            Some(progress) => progress.clamp(0, 100).to_string(),
            None => "NULL".to_owned(),
        };
        // A progress is a number, so it can stand in the text; a null would have no type as a value.
        let sql = format!(
            "INSERT INTO \"image_install\" (\"created_at\", \"modified_at\", \"install_date\", \
             \"device\", \"installs__image\", \"is_provided_by__release\", \"status\", \
             \"download_progress\") SELECT CAST($1 AS BIGINT), CAST($1 AS BIGINT), CAST($1 AS BIGINT), \
             d.\"id\", i.\"id\", r.\"id\", CAST($5 AS TEXT), CAST({progress} AS BIGINT) FROM \"device\" d, \
             \"image\" i, \"release\" r WHERE d.\"id\" = $2 AND i.\"id\" = $3 AND r.\"id\" = $4 {kept} \
             ON CONFLICT (\"device\", \"installs__image\") DO UPDATE SET \"modified_at\" = $1, \
             \"is_provided_by__release\" = $4, \"status\" = $5, \"download_progress\" = {progress} \
             WHERE \"image_install\".\"status\" <> excluded.\"status\" OR \
             \"image_install\".\"is_provided_by__release\" <> excluded.\"is_provided_by__release\" \
             OR \"image_install\".\"download_progress\" IS DISTINCT FROM \
             excluded.\"download_progress\""
        );
        let values = [
            now.into(),
            device.into(),
            install.image.into(),
            install.release.into(),
            Cell::Text(status),
        ];
        session.run("storing an image install", &sql, values).await?;
    }
    let named: Vec<i64> = installs.iter().map(|install| install.image).collect();
    let but = match named.is_empty() {
        true => String::new(),
        false => format!("AND \"installs__image\" NOT IN ({})", list(&named)),
    };
    let sql = format!(
        "UPDATE \"image_install\" SET \"status\" = 'deleted', \"download_progress\" = NULL, \
         \"modified_at\" = $1 WHERE \"device\" = $2 AND \"status\" <> 'deleted' {but}"
    );
    session.run("storing image installs", &sql, [now.into(), device.into()]).await.map(drop)
}
