//! Chance, where many devices must not do the same at the same moment.

use minke_device_cloud_client::random_hex;

/// A number of `0.0..=1.0`; one half where the kernel gives no randomness.
pub(crate) fn fraction() -> f64 {
    let random = random_hex(4).ok().and_then(|hex| u32::from_str_radix(&hex, 16).ok());
    random.map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
