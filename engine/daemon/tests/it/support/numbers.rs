//! Numbers that look random and are the same in every run.

/// A source of numbers (splitmix64).
pub struct Numbers(u64);

/// How many cases a generated test tries: `MINKE_SEEDS`, or so many.
pub fn seeds(usual: u64) -> u64 {
    std::env::var("MINKE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// A number from 0 on, below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    /// One of several words.
    pub fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}
