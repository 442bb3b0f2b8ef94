//! Damage in the image store, as the daemon meets it.
//!
//! Found before a container is made: the image is not there any more, and the client pulls it, with its
//! own credentials. Found before one is started: fetched again by the digest that it came under, and the
//! container waits for that. Found by reading everything from time to time: fetched again, too. Each time
//! an event says it. What cannot be fetched is tried again later, and by whoever pulls the image.

use std::time::Duration;

use minke_engine_images::{Damage, Error as ImageError, ImageId, Repair};

use crate::containers::container::Container;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Attributes;

/// After a start of the engine, what is needed now goes first.
const SETTLED: Duration = Duration::from_secs(60);
/// Between two layers.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts to fetch what could not be fetched.
const RETRY: Duration = Duration::from_secs(3600);
/// A container that is started so soon after it was made is that of a `run`: its image was looked at then,
/// which takes a look at each of its files.
const JUST_NOW: Duration = Duration::from_millis(500);
/// Signals by which a program ends whose own file is damaged: SIGILL, SIGBUS, SIGSEGV.
const SIGNALS_OF_DAMAGE: [u8; 3] = [4, 7, 11];

/// Looks at an image that a container is to be made of. One that is damaged is not there.
pub(crate) async fn before_create(daemon: &Daemon, name: &str) -> Result<()> {
    // What the name lacks is said by whoever needs the image.
    let Ok(image) = daemon.images.image(name) else { return Ok(()) };
    let damaged = daemon.images.check(&image.id).await?;
    if damaged.is_empty() {
        return Ok(());
    }
    tell(daemon, &damaged, &[]);
    Err(ImageError::NoSuchImage(name.to_owned()).into())
}

/// Looks at the image of a container that is to be started, and fetches again what is damaged.
pub(crate) async fn before_start(daemon: &Daemon, container: &Container) -> Result<()> {
    let looked_at = container.lock().looked_at.take();
    if looked_at.is_some_and(|at| at.elapsed() < JUST_NOW) {
        return Ok(());
    }
    let Some(image) = image_of(container) else { return Ok(()) };
    let damaged = daemon.images.check(&image).await?;
    if damaged.is_empty() {
        return Ok(());
    }
    let repairs = repair(daemon, &damaged).await?;
    let failed = repairs.iter().find_map(|repair| Some((&repair.part, repair.failure.as_ref()?)));
    match failed {
        None => Ok(()),
        Some((part, why)) => {
            let doing = format!("{part} of the container's image is damaged and cannot be fetched");
            Err(Error::system(doing)(why.clone()))
        }
    }
}

/// A program of this container could not be run, or ended by this signal: if its file may be why, the
/// image is read as a whole before the next start.
pub(crate) fn after_end(container: &Container, daemon: &Daemon, signal: Option<u8>) {
    if signal.is_none_or(|signal| SIGNALS_OF_DAMAGE.contains(&signal))
        && let Some(image) = image_of(container)
    {
        daemon.images.suspect(&image, RETRY);
    }
}

fn image_of(container: &Container) -> Option<ImageId> {
    container.lock().config.image_id.parse().ok()
}

/// Reads all images again and again, for as long as the engine runs.
pub(crate) fn watch(daemon: &Daemon) {
    let every = daemon.options.scrub_interval;
    if every.is_zero() {
        return;
    }
    let daemon = daemon.clone();
    tokio::spawn(async move {
        tokio::time::sleep(every.min(SETTLED)).await;
        loop {
            let pause = match round(&daemon).await {
                Ok(()) => daemon.images.scrub_due().unwrap_or(every).clamp(PAUSE, RETRY),
                Err(error) => {
                    tracing::warn!(error = error.message(), "reading the images again");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    });
}

/// Reads one layer if that is due, and tries to mend what is known to be damaged.
async fn round(daemon: &Daemon) -> Result<()> {
    let is_due = daemon.images.scrub_due().is_some_and(|due| due.is_zero());
    let found = if is_due { daemon.images.scrub().await? } else { daemon.images.damaged() };
    if !found.is_empty() {
        repair(daemon, &found).await?;
    }
    Ok(())
}

/// Fetches again what is damaged, and says what was found and what came of it.
async fn repair(daemon: &Daemon, damaged: &[Damage]) -> Result<Vec<Repair>> {
    tell(daemon, damaged, &[]);
    let repairs = daemon.images.repair(damaged, &daemon.pull_options(), |_| {}).await?;
    tell(daemon, damaged, &repairs);
    Ok(repairs)
}

/// Publishes `damage`, or with repairs `repair`, for each image concerned.
fn tell(daemon: &Daemon, damaged: &[Damage], repairs: &[Repair]) {
    for Damage { part, why, images } in damaged {
        let mut attributes = Attributes::from([("part".to_owned(), part.to_string())]);
        let action = match repairs.iter().find(|repair| repair.part == *part) {
            None => {
                attributes.insert("why".to_owned(), why.clone());
                "damage"
            }
            Some(Repair { failure: None, .. }) => "repair",
            Some(Repair { failure: Some(failure), .. }) => {
                tracing::warn!(%part, failure, "damage that stays");
                attributes.insert("error".to_owned(), failure.clone());
                "repair"
            }
        };
        for image in images {
            daemon.events.publish("image", action, &image.to_string(), attributes.clone());
        }
    }
}
