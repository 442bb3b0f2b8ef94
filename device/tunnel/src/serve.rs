//! The loop: wait until there is somebody to dial, dial, stay, back off, again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use minke_device_cloud_client::{Backoff, ConfigFile};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dial::dial;
use crate::endpoint::{Endpoint, NoEndpoint};
use crate::options::TunnelOptions;
use crate::proxy::Proxies;
use crate::random;
use crate::session::{self, End};

/// A session that lasted this long was a good one: the next dial comes soon.
const GOOD_SESSION: Duration = Duration::from_secs(60);

/// Keeps a tunnel up until `stop`.
pub async fn serve(options: TunnelOptions, stop: CancellationToken) {
    let options = Arc::new(options);
    let mut backoff = Backoff::new(options.backoff.0, options.backoff.1);
    let mut reason = None;
    while !stop.is_cancelled() {
        let (config, endpoint) = match find(&options) {
            Ok(found) => found,
            Err(why) => {
                // Said once, not every few seconds.
                if reason.as_ref() != Some(&why) {
                    tracing::info!(%why, "no tunnel yet");
                    reason = Some(why);
                }
                rest(options.config_poll, &stop).await;
                continue;
            }
        };
        reason = None;
        let asked_to_wait = once(&options, &config, &endpoint, &mut backoff, &stop).await;
        if let Some(asked) = asked_to_wait {
            let wait = backoff.failed(asked, random::fraction());
            rest_unless_changed(wait, &options, &config, &endpoint, &stop).await;
        }
    }
}

/// Dials and stays. Answers `None` to dial again at once, else what the server asked to wait.
async fn once(
    options: &Arc<TunnelOptions>,
    config: &ConfigFile,
    endpoint: &Endpoint,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Option<Option<Duration>> {
    let proxies = Proxies::from_env();
    let socket = tokio::select! {
        socket = dial(endpoint, options, &proxies) => socket,
        () = stop.cancelled() => return None,
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(
                server = endpoint.server.authority(),
                error = chain(&error),
                "no tunnel"
            );
            return Some(error.retry_after());
        }
    };
    tracing::info!(server = endpoint.server.authority(), "the tunnel is up");
    let begun = Instant::now();
    let options = Arc::new(options.with(&config.get()));
    let end = session::run(socket, endpoint, config, &options, stop).await;
    tracing::info!(reason = chain(&end), "the tunnel is down");
    if begun.elapsed() >= GOOD_SESSION {
        backoff.succeeded();
    }
    match end {
        End::Changed | End::Stopped => None,
        End::Closed | End::Silent | End::Broken(_) => Some(None),
    }
}

fn find(options: &TunnelOptions) -> Result<(ConfigFile, Endpoint), NoEndpoint> {
    let config = ConfigFile::open(&options.config).map_err(|_| NoEndpoint::NotProvisioned)?;
    let endpoint = Endpoint::of(&config.get())?;
    Ok((config, endpoint))
}

async fn rest(time: Duration, stop: &CancellationToken) {
    // Stopping early is the point of the second arm; both are cancel-safe.
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}

/// A new server or key is tried at once, not when the old one's wait is over.
async fn rest_unless_changed(
    time: Duration,
    options: &TunnelOptions,
    config: &ConfigFile,
    endpoint: &Endpoint,
    stop: &CancellationToken,
) {
    let end = Instant::now() + time;
    while !stop.is_cancelled() && Instant::now() < end {
        rest(options.config_poll.min(end - Instant::now()), stop).await;
        if Endpoint::of(&config.get()).ok().as_ref() != Some(endpoint) {
            return;
        }
    }
}

/// The error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
