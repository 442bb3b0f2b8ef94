//! Random ids, and names for containers that were given none.

use rustix::rand::{GetRandomFlags, getrandom};

/// 64 random hex digits whose first twelve are not all decimal (a short id must not look like a
/// number).
pub(crate) fn random() -> String {
    loop {
        let mut bytes = [0u8; 32];
        fill(&mut bytes);
        let id = hex::encode(bytes);
        if id[..12].bytes().any(|byte| !byte.is_ascii_digit()) {
            return id;
        }
    }
}

fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        // The kernel's generator is ready long before a daemon starts; an interrupted call is tried
        // again.
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or(0);
    }
}

const MANNERS: [&str; 32] = [
    "agile", "amber", "bold", "brisk", "calm", "clear", "coral", "crisp", "deep", "eager", "fair",
    "fleet", "gentle", "glad", "keen", "kind", "light", "lively", "lucid", "mellow", "nimble",
    "pale", "quick", "quiet", "rapid", "silver", "sleek", "steady", "still", "swift", "warm",
    "wide",
];
const WHALES: [&str; 32] = [
    "beluga",
    "baleen",
    "bowhead",
    "calf",
    "cachalot",
    "cetus",
    "dolphin",
    "finback",
    "fluke",
    "grampus",
    "harbour",
    "humpback",
    "krill",
    "lagoon",
    "marlin",
    "minke",
    "narwhal",
    "orca",
    "plankton",
    "porpoise",
    "reef",
    "rorqual",
    "sei",
    "shoal",
    "sound",
    "sperm",
    "spindrift",
    "spout",
    "swell",
    "tide",
    "vaquita",
    "wake",
];

/// A name like `quiet_narwhal`, from a thousand; with a number from the second try on.
pub(crate) fn friendly_name(attempt: u32) -> String {
    let mut bytes = [0u8; 4];
    fill(&mut bytes);
    let (manner, whale) = (MANNERS[bytes[0] as usize % 32], WHALES[bytes[1] as usize % 32]);
    match attempt {
        0 => format!("{manner}_{whale}"),
        _ => format!("{manner}_{whale}{}", u16::from_le_bytes([bytes[2], bytes[3]])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_never_look_like_numbers() {
        let (one, two) = (random(), random());
        assert_ne!(one, two);
        assert_eq!(one.len(), 64);
        assert!(one[..12].parse::<u64>().is_err());
    }
}
