//! Subnets and addresses: which is free. Pure.
//!
//! Invariant: a chosen subnet overlaps nothing in `taken`; a chosen address is a host address of its
//! subnet, and no gateway, broadcast or used address.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IPv4 network in prefix form; the host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

/// Text that is no subnet.
#[derive(Debug, thiserror::Error)]
#[error("invalid subnet {0}: it must be like 172.20.0.0/16, from /8 to /30")]
pub struct BadSubnet(pub String);

impl Subnet {
    /// The subnet around an address; host bits are dropped. `None` if the prefix is above 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { base: Ipv4Addr::from(u32::from(address) & mask), prefix })
    }

    /// First address, that of the network itself.
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Last address; the broadcast address of an ordinary subnet.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) | !mask(self.prefix).unwrap_or(0))
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.base <= address && address <= self.last()
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.base <= other.last() && other.base <= self.last()
    }

    /// Whether a host may have the address: neither the network's nor the broadcast address.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.base && address != self.last()
    }

    /// The first host address.
    pub fn first_host(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(1))
    }
}

fn mask(prefix: u8) -> Option<u32> {
    match prefix {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix)),
        _ => None,
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Self, BadSubnet> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|bits| (8..=30).contains(bits))?;
            Self::new(address.parse().ok()?, prefix)
        };
        parse().ok_or_else(|| BadSubnet(text.to_owned()))
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The subnets that are tried, in order: Docker's.
pub fn candidates() -> impl Iterator<Item = Subnet> {
    let large = (17..=31).map(|b| (Ipv4Addr::new(172, b, 0, 0), 16));
    let small = (0..16).map(|c| (Ipv4Addr::new(192, 168, c * 16, 0), 20));
    let last = (0..=255).map(|b| (Ipv4Addr::new(10, 201, b, 0), 24));
    large.chain(small).chain(last).filter_map(|(address, prefix)| Subnet::new(address, prefix))
}

/// The first candidate that overlaps nothing taken.
pub fn free_subnet(taken: &[Subnet]) -> Option<Subnet> {
    candidates().find(|candidate| !taken.iter().any(|other| candidate.overlaps(*other)))
}

/// The lowest host address of `range` (or of the subnet) that is not used.
pub fn free_address(
    subnet: Subnet,
    range: Option<Subnet>,
    used: impl Fn(Ipv4Addr) -> bool,
) -> Option<Ipv4Addr> {
    let range = range.unwrap_or(subnet);
    (u32::from(range.base)..=u32::from(range.last()))
        .map(Ipv4Addr::from)
        .find(|address| subnet.is_host(*address) && !used(*address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet() -> impl Strategy<Value = Subnet> {
        (any::<u32>(), 8_u8..=30)
            .prop_map(|(bits, prefix)| Subnet::new(bits.into(), prefix).unwrap())
    }

    proptest! {
        #[test]
        fn text_round_trips(subnet in subnet()) {
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
        }

        #[test]
        fn overlapping_is_symmetric_and_means_a_shared_end(a in subnet(), b in subnet()) {
            prop_assert_eq!(a.overlaps(b), b.overlaps(a));
            // Prefixes nest or are apart.
            prop_assert_eq!(a.overlaps(b), a.contains(b.base()) || b.contains(a.base()));
        }

        #[test]
        fn a_chosen_subnet_is_apart_from_all_taken(taken in prop::collection::vec(subnet(), 0..40)) {
            if let Some(free) = free_subnet(&taken) {
                prop_assert!(taken.iter().all(|other| !free.overlaps(*other)));
            } else {
                prop_assert!(candidates().all(|c| taken.iter().any(|t| t.overlaps(c))));
            }
        }

        #[test]
        fn addresses_are_given_until_none_is_left(bits in any::<u32>(), prefix in 26_u8..=30) {
            let subnet = Subnet::new(bits.into(), prefix).unwrap();
            let mut used = std::collections::BTreeSet::from([subnet.first_host()]);
            while let Some(address) = free_address(subnet, None, |a| used.contains(&a)) {
                prop_assert!(subnet.is_host(address));
                prop_assert!(used.insert(address));
            }
            prop_assert_eq!(used.len(), (1 << (32 - prefix)) - 2);
        }
    }

    #[test]
    fn a_range_narrows_the_choice_and_bad_text_is_refused() {
        let subnet: Subnet = "10.0.0.0/24".parse().unwrap();
        let range: Subnet = "10.0.0.128/30".parse().unwrap();
        let chosen = free_address(subnet, Some(range), |a| a == Ipv4Addr::new(10, 0, 0, 128));
        assert_eq!(chosen, Some(Ipv4Addr::new(10, 0, 0, 129)));
        for bad in ["10.0.0.0", "10.0.0.0/7", "10.0.0.0/31", "10.0.0/24", "/24", "10.0.0.0/x"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
