//! The device API on port 48484, as balena's clients and services know it.
//!
//! Handlers only read what the loop published and write wishes; the loop does the work. One that
//! must answer when something has been done waits for the loop to say so.

mod auth;
mod body;
mod error;
mod v1;
mod v2;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use minke_common_model::ids::{AppId, AppUuid};
use minke_common_model::reported_state::DeviceReport;
use minke_device_cloud_client::{PollHealth, TunnelLease};
use minke_device_keeper::Client as Keeper;
use tokio::sync::{Notify, watch};

use crate::api_keys::ApiKeys;
use crate::device_view::DeviceView;
use crate::locks;
use crate::memory::{Memory, Wishes};
use crate::reconcile::Status;
use crate::state::{ContainerId, Locks, ObservedContainer};
use crate::step::Wait;
use error::ApiError;

#[cfg(test)]
mod tests;

/// Largest request body, in bytes.
const MAX_BODY: usize = 10 * 1024 * 1024;
/// How long a request waits for the loop.
const PATIENCE: Duration = Duration::from_secs(300);

/// What handlers see of the supervisor.
pub(crate) struct Api {
    pub keys: ApiKeys,
    pub status: watch::Receiver<Status>,
    pub report: watch::Receiver<DeviceReport>,
    pub view: watch::Receiver<Arc<DeviceView>>,
    pub memory: Memory,
    /// Makes the loop look.
    pub wake: Arc<Notify>,
    /// Makes the follower of the target look.
    pub look: Arc<Notify>,
    /// Until when the tunnel said that it is up.
    pub tunnel: TunnelLease,
    /// `None` until the device is provisioned.
    pub health: watch::Receiver<Option<Arc<PollHealth>>>,
    pub keeper: Keeper,
    /// The directory of the services' update locks.
    pub lock_root: PathBuf,
    pub is_managed: bool,
}

/// Every route.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let guarded = Router::new()
        .route("/v1/device", get(v1::device))
        .route("/v1/device/host-config", get(v1::host_config).patch(v1::set_host_config))
        .route("/v1/update", post(v1::update))
        .route("/minke/v1/tunnel", post(v1::tunnel))
        .route("/v1/blink", post(v1::blink))
        .route("/v1/regenerate-api-key", post(v1::regenerate_api_key))
        .route("/v1/restart", post(v1::restart))
        .route("/v1/purge", post(v1::purge))
        .route("/v1/reboot", post(v1::reboot))
        .route("/v1/shutdown", post(v1::shutdown))
        .route("/v1/apps/{app}", get(v1::app))
        .route("/v1/apps/{app}/stop", post(v1::stop))
        .route("/v1/apps/{app}/start", post(v1::start))
        .route("/v2/applications/state", get(v2::apps_state))
        .route("/v2/applications/{app}/state", get(v2::app_state))
        .route("/v2/applications/{app}/restart", post(v2::restart))
        .route("/v2/applications/{app}/purge", post(v2::purge))
        .route("/v2/applications/{app}/restart-service", post(v2::restart_service))
        .route("/v2/applications/{app}/stop-service", post(v2::stop_service))
        .route("/v2/applications/{app}/start-service", post(v2::start_service))
        .route("/v2/state/status", get(v2::status))
        .route("/v2/version", get(v2::version))
        .route("/v2/device/name", get(v2::device_name))
        .route("/v2/containerId", get(v2::container_id))
        .route("/v2/local/device-info", get(v2::device_info))
        .layer(middleware::from_fn_with_state(api.clone(), auth::check));
    Router::new()
        .route("/ping", get(v1::ping))
        .route("/v1/healthy", get(v1::healthy))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

impl Api {
    /// The app that a request names.
    fn app(&self, id: AppId) -> Result<AppUuid, ApiError> {
        let status = self.status.borrow();
        let target = status.target.as_ref().ok_or(ApiError::NoApp(id))?;
        let found = target.apps.iter().find(|(_, app)| app.id == id);
        found.map(|(uuid, _)| uuid.clone()).ok_or(ApiError::NoApp(id))
    }

    fn containers(&self, app: &AppUuid) -> Vec<(ContainerId, ObservedContainer)> {
        let observed = self.status.borrow().observed.clone();
        let containers = observed.containers_of(app).map(|(id, c)| (id.clone(), c.clone()));
        containers.collect()
    }

    /// Refuses while a service of the app holds its lock, unless `force`.
    fn check_lock(&self, app: AppId, force: bool) -> Result<(), ApiError> {
        // Looked at now: files tell nobody when they change.
        let is_locked = locks::state(&self.lock_root, app) == Locks::Theirs;
        let wishes = self.memory.wishes();
        match is_locked && !force && !wishes.override_locks {
            true => Err(ApiError::Locked(app)),
            false => Ok(()),
        }
    }

    /// Makes a wish and waits until the loop has fulfilled it. One that a lock or a failure stands
    /// against is taken back: nobody waits for it any more.
    async fn fulfil(
        &self,
        app: (AppId, &AppUuid),
        wish: impl FnOnce(&mut Wishes),
        mut is_done: impl FnMut(&Status) -> bool,
    ) -> Result<(), ApiError> {
        let (id, uuid) = app;
        let mut status = self.status.clone();
        let change = self.memory.wish(wish);
        let wished = status.borrow().round;
        self.wake.notify_one();
        let is_locked =
            |status: &Status| status.plan.waits.contains(&Wait::UpdateLock(uuid.clone()));
        let ended = async {
            // That round may have begun before the wish was made; the one after it has not, but
            // comes only if it is asked for when there is nothing to do.
            status.wait_for(|status| status.round > wished).await?;
            self.wake.notify_one();
            let is_seen = |status: &Status| status.engine_error.is_none();
            let ended = status.wait_for(|status| {
                status.round > wished + 1
                    && is_seen(status)
                    && (is_done(status) || is_locked(status))
            });
            ended.await.map(|status| is_locked(&status))
        };
        let failed = match tokio::time::timeout(PATIENCE, ended).await {
            Ok(Ok(false)) => return Ok(()),
            Ok(Ok(true)) => ApiError::Locked(id),
            Ok(Err(_)) => ApiError::NotDone("the supervisor is ending".to_owned()),
            Err(_) => {
                let status = self.status.borrow();
                let failure = status.failures.values().next();
                let reason = status.engine_error.clone();
                let reason = reason.or_else(|| failure.map(|failure| failure.reason.clone()));
                ApiError::NotDone(reason.unwrap_or_else(|| "it takes too long".to_owned()))
            }
        };
        self.memory.take_back(&change);
        self.wake.notify_one();
        Err(failed)
    }

    /// Has the named containers made anew.
    async fn recreate(
        &self,
        app: AppId,
        ids: Vec<ContainerId>,
        force: bool,
    ) -> Result<(), ApiError> {
        let uuid = self.app(app)?;
        self.check_lock(app, force)?;
        let (wished, of) = (ids.clone(), uuid.clone());
        self.fulfil(
            (app, &uuid),
            move |wishes| {
                wishes.must_go.extend(wished);
                if force {
                    wishes.force.insert(of);
                }
            },
            |status| {
                let is_gone = ids.iter().all(|id| !status.observed.containers.contains_key(id));
                is_gone && !status.plan.unsettled.contains(&uuid)
            },
        )
        .await
    }
}
