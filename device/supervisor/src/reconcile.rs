//! The loop around `plan`: the only place with tasks, timers and errors of steps.
//!
//! ```text
//!   look ─> plan ─> begin the steps that are not under way ─> publish ─> wait ─┐
//!    ^                     a step ended · new target · engine event · timer  <─┘
//! ```
//!
//! A step that failed is left out for a while, longer each time; the others go on. A new target
//! drops every step under way, which is as safe as a crash there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use minke_engine_client::Engine;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::narrate::Narrator;
use crate::observe::Observer;
use crate::perform::{PerformError, Performer};
use crate::plan::{Plan, plan};
use crate::state::{ContainerId, Observed, Target};
use crate::step::{Step, Wait};

#[cfg(test)]
pub(crate) mod tests;

/// First wait after a failure; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Longest wait after failures.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// A look without a reason.
const IDLE: Duration = Duration::from_secs(300);

/// What the loop saw and does, for reports and the device API.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// With the wishes of people in it; `None` until there is one.
    pub target: Option<Arc<Target>>,
    pub observed: Arc<Observed>,
    pub plan: Arc<Plan>,
    pub under_way: BTreeSet<Step>,
    pub failures: BTreeMap<Step, Failure>,
    /// Why the engine cannot be looked at.
    pub engine_error: Option<String>,
    /// Counts looks.
    pub round: u64,
}

impl Status {
    /// Everything is as it should be.
    pub fn is_settled(&self) -> bool {
        self.engine_error.is_none() && self.target.is_some() && self.plan.is_converged()
    }
}

/// A step that did not succeed, so far.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub count: u32,
    pub reason: String,
    until: Instant,
}

/// The loop's parts.
pub(crate) struct Reconciler<E> {
    pub engine: E,
    pub observer: Observer,
    pub performer: Performer<E>,
    pub narrator: Narrator,
    pub target: watch::Receiver<Option<Arc<Target>>>,
    /// Something may have changed: look now.
    pub wake: Arc<Notify>,
    pub status: watch::Sender<Status>,
}

type Done = (Step, Result<(), PerformError>);

impl<E: Engine> Reconciler<E> {
    /// Runs until the target's sender is gone.
    pub async fn run(mut self) {
        let mut steps: JoinSet<Done> = JoinSet::new();
        let mut under_way: BTreeSet<Step> = BTreeSet::new();
        let mut failures: BTreeMap<Step, Failure> = BTreeMap::new();
        let mut current: Option<Arc<Target>> = None;
        let mut lost_looks = 0;
        loop {
            let wanted = self.target.borrow_and_update().clone();
            if !is_same(&wanted, &current) {
                // Their effects, if any, are seen by the next look.
                steps.shutdown().await;
                under_way.clear();
                failures.clear();
                current = wanted;
            }
            let pause = match &current {
                None => IDLE,
                Some(target) => match self.look(target).await {
                    Ok((target, observed, plan)) => {
                        lost_looks = 0;
                        self.begin(&target, &plan, &failures, &mut under_way, &mut steps);
                        failures.retain(|step, _| plan.steps.contains(step));
                        let pause = pause(&plan, &failures);
                        self.publish(target, observed, plan, &under_way, &failures);
                        pause
                    }
                    Err(error) => self.engine_lost(&error, &mut lost_looks),
                },
            };
            // Every arm is cancel-safe and none awaits in its body.
            tokio::select! {
                Some(done) = steps.join_next(), if !steps.is_empty() => {
                    let rest = std::iter::from_fn(|| steps.try_join_next());
                    for done in std::iter::once(done).chain(rest) {
                        self.end(done, &mut under_way, &mut failures);
                    }
                }
                changed = self.target.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(
        &self,
        target: &Target,
    ) -> Result<(Arc<Target>, Observed, Plan), minke_engine_client::Error> {
        loop {
            let wished = self.performer.memory.wishes().apply(target);
            let observed = self.observer.observe(&self.engine, &wished).await?;
            let plan = plan(&observed, &wished);
            let here: BTreeSet<ContainerId> = observed.containers.keys().cloned().collect();
            // One that was forced and is to go has settled when nothing of it is left.
            let asked_for = wished.apps.keys().chain(&wished.forced);
            let settled = asked_for.filter(|app| !plan.unsettled.contains(*app)).cloned();
            // A purge that is done is the beginning of the way back: that is what is published.
            if !self.performer.memory.tidy(&here, &settled.collect()) {
                return Ok((Arc::new(wished), observed, plan));
            }
        }
    }

    fn begin(
        &self,
        target: &Arc<Target>,
        plan: &Plan,
        failures: &BTreeMap<Step, Failure>,
        under_way: &mut BTreeSet<Step>,
        steps: &mut JoinSet<Done>,
    ) {
        let now = Instant::now();
        for step in &plan.steps {
            let is_held = failures.get(step).is_some_and(|failure| failure.until > now);
            if is_held || !under_way.insert(step.clone()) {
                continue;
            }
            info!(%step, "begun");
            self.narrator.begun(step, target);
            let (performer, target, step) = (self.performer.clone(), target.clone(), step.clone());
            steps.spawn(async move {
                let result = performer.perform(&step, &target).await;
                (step, result)
            });
        }
    }

    fn end(
        &self,
        done: Result<Done, tokio::task::JoinError>,
        under_way: &mut BTreeSet<Step>,
        failures: &mut BTreeMap<Step, Failure>,
    ) {
        let Ok((step, result)) = done else {
            // A step that panicked: which one is not known, so none is taken for under way.
            warn!("a step broke; all are planned again");
            under_way.clear();
            return;
        };
        under_way.remove(&step);
        let target = self.status.borrow().target.clone();
        match result {
            Ok(()) => {
                failures.remove(&step);
                self.narrator.done(&step, target.as_deref());
            }
            Err(error) => {
                let reason = describe(&error);
                warn!(%step, reason, "failed; it will be planned again");
                self.narrator.failed(&step, target.as_deref(), &reason);
                let count = failures.get(&step).map_or(0, |failure| failure.count) + 1;
                let wait = FIRST_RETRY.saturating_mul(1 << (count - 1).min(16)).min(LONGEST_RETRY);
                failures.insert(step, Failure { count, reason, until: Instant::now() + wait });
            }
        }
    }

    fn publish(
        &self,
        target: Arc<Target>,
        observed: Observed,
        plan: Plan,
        under_way: &BTreeSet<Step>,
        failures: &BTreeMap<Step, Failure>,
    ) {
        self.narrator.waits(&plan);
        self.status.send_modify(|status| {
            status.target = Some(target);
            status.observed = Arc::new(observed);
            status.plan = Arc::new(plan);
            status.under_way = under_way.clone();
            status.failures = failures.clone();
            status.engine_error = None;
            status.round += 1;
        });
    }

    fn engine_lost(&self, error: &minke_engine_client::Error, lost_looks: &mut u32) -> Duration {
        let reason = describe(error);
        if *lost_looks == 0 {
            warn!(reason, "the engine cannot be looked at");
        }
        self.status.send_modify(|status| {
            status.engine_error = Some(reason);
            status.round += 1;
        });
        let wait = Duration::from_millis(100).saturating_mul(1 << (*lost_looks).min(6));
        *lost_looks += 1;
        wait.min(Duration::from_secs(5))
    }
}

fn is_same(one: &Option<Arc<Target>>, other: &Option<Arc<Target>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

/// Until the next look, if nothing happens.
fn pause(plan: &Plan, failures: &BTreeMap<Step, Failure>) -> Duration {
    let now = Instant::now();
    let retry = failures.values().map(|failure| failure.until.saturating_duration_since(now));
    // Files and clocks tell nobody when they change.
    let looks = plan.waits.iter().map(|wait| match wait {
        Wait::HandOver(_) => Duration::from_millis(200),
        Wait::UpdateLock(_) => Duration::from_secs(1),
        Wait::Dependency { .. } => Duration::from_secs(2),
    });
    retry.chain(looks).min().unwrap_or(IDLE)
}

/// An error and its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
