//! Randomness from the kernel: identities, keys and jitter.

use std::fs::File;
use std::io::{self, Read};

/// `count` random bytes as lower-case hexadecimal digits.
pub fn hex(count: usize) -> io::Result<String> {
    let mut bytes = vec![0; count];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A number of `0.0..1.0`; one half where the kernel gives no randomness.
pub(crate) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
