//! What the parts say about themselves: lines on standard error.

use tracing::level_filters::LevelFilter;

/// Says warnings and news; `MINKE_LOG` is `error`, `warn`, `info` (when missing), `debug` or `trace`.
pub fn init() {
    let level = std::env::var("MINKE_LOG").ok().and_then(|word| word.parse().ok());
    let level: LevelFilter = level.unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
