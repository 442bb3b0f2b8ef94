//! The runtime helper as a program of its own, for the tests of this crate: what `minke-device` does
//! when its first argument is `runtime`.

use std::process::ExitCode;

fn main() -> ExitCode {
    minke_engine_runtime::main(std::env::args().skip(2))
}
