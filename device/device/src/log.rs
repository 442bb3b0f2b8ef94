//! Where the program's own messages go: stderr, one line each.

use tracing::Level;

/// Starts it. 0 tells what an operator should know, 1 what is being done, more everything.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(rustix::termios::isatty(std::io::stderr()))
        .init();
}
