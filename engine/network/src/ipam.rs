//! Subnets and addresses: which is free. Pure, and the same for both versions of the protocol.
//!
//! Invariant: a chosen subnet overlaps nothing in `taken`; a chosen address is a host address of its
//! subnet, and no gateway, broadcast or used address.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address of either version, as a number.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display + FromStr {
    /// How long it is.
    const BITS: u8;
    /// Which prefixes a network of containers may have: (shortest, longest).
    const PREFIXES: (u8, u8);
    /// What a subnet looks like.
    const EXAMPLE: &'static str;
    /// The last address of a subnet is for everybody.
    const HAS_BROADCAST: bool;

    /// As a number of [`BITS`](Self::BITS) bits.
    fn number(self) -> u128;
    /// From a number; higher bits are dropped.
    fn of_number(number: u128) -> Self;
}

impl Address for Ipv4Addr {
    const BITS: u8 = 32;
    const PREFIXES: (u8, u8) = (8, 30);
    const EXAMPLE: &'static str = "172.20.0.0/16, from /8 to /30";
    const HAS_BROADCAST: bool = true;

    fn number(self) -> u128 {
        u32::from(self).into()
    }

    fn of_number(number: u128) -> Self {
        Self::from(number as u32)
    }
}

impl Address for Ipv6Addr {
    const BITS: u8 = 128;
    const PREFIXES: (u8, u8) = (8, 126);
    const EXAMPLE: &'static str = "fd00:20::/64, from /8 to /126";
    const HAS_BROADCAST: bool = false;

    fn number(self) -> u128 {
        self.into()
    }

    fn of_number(number: u128) -> Self {
        Self::from(number)
    }
}

/// A network in prefix form; the host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<A> {
    base: A,
    prefix: u8,
}

/// An IPv4 network.
pub type Subnet = Prefix<Ipv4Addr>;
/// An IPv6 network.
pub type Subnet6 = Prefix<Ipv6Addr>;

/// Text that is no subnet.
#[derive(Debug, thiserror::Error)]
#[error("invalid subnet {text}: it must be like {example}")]
pub struct BadSubnet {
    text: String,
    example: &'static str,
}

impl<A: Address> Prefix<A> {
    /// The subnet around an address; host bits are dropped. `None` if the prefix is too long.
    pub fn new(address: A, prefix: u8) -> Option<Self> {
        (prefix <= A::BITS).then(|| Self {
            base: A::of_number(address.number() & !host_bits::<A>(prefix)),
            prefix,
        })
    }

    /// First address, that of the network itself.
    pub fn base(self) -> A {
        self.base
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Last address; the broadcast address of an ordinary IPv4 subnet.
    pub fn last(self) -> A {
        A::of_number(self.base.number() | host_bits::<A>(self.prefix))
    }

    /// Whether the address is in it.
    pub fn contains(self, address: A) -> bool {
        self.base <= address && address <= self.last()
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.base <= other.last() && other.base <= self.last()
    }

    /// Whether a host may have the address: neither the network's nor the broadcast address.
    pub fn is_host(self, address: A) -> bool {
        let broadcast = A::HAS_BROADCAST && address == self.last();
        self.contains(address) && address != self.base && !broadcast
    }

    /// The first host address.
    pub fn first_host(self) -> A {
        A::of_number(self.base.number().saturating_add(1))
    }
}

/// The bits behind a prefix, all set.
fn host_bits<A: Address>(prefix: u8) -> u128 {
    match A::BITS - prefix {
        0 => 0,
        bits => u128::MAX >> (128 - u32::from(bits)),
    }
}

impl<A: Address> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl<A: Address> FromStr for Prefix<A> {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Self, BadSubnet> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (shortest, longest) = A::PREFIXES;
            let fits = |bits: &u8| (shortest..=longest).contains(bits);
            Self::new(address.parse().ok()?, prefix.parse().ok().filter(fits)?)
        };
        parse().ok_or_else(|| BadSubnet { text: text.to_owned(), example: A::EXAMPLE })
    }
}

impl<A: Address> Serialize for Prefix<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, A: Address> Deserialize<'de> for Prefix<A> {
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

/// The IPv6 subnets that are tried: unique local ones (RFC 4193) whose global part comes from `seed`,
/// so that engines of one site do not choose the same.
pub fn candidates6(seed: &str) -> impl Iterator<Item = Subnet6> {
    // FNV-1a: any spreading hash does.
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let site = (0xfd_u128 << 120) | (u128::from(hash >> 24) << 80);
    (0..4096).filter_map(move |number| Subnet6::new(Ipv6Addr::of_number(site | (number << 64)), 64))
}

/// The first candidate that overlaps nothing taken.
pub fn free_subnet<A: Address>(
    mut candidates: impl Iterator<Item = Prefix<A>>,
    taken: &[Prefix<A>],
) -> Option<Prefix<A>> {
    candidates.find(|candidate| !taken.iter().any(|other| candidate.overlaps(*other)))
}

/// The lowest host address of `range` (or of the subnet) that is not used.
pub fn free_address<A: Address>(
    subnet: Prefix<A>,
    range: Option<Prefix<A>>,
    used: impl Fn(A) -> bool,
) -> Option<A> {
    let range = range.unwrap_or(subnet);
    (range.base.number()..=range.last().number())
        .map(A::of_number)
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

    fn subnet6() -> impl Strategy<Value = Subnet6> {
        (any::<u128>(), 8_u8..=126)
            .prop_map(|(bits, prefix)| Subnet6::new(bits.into(), prefix).unwrap())
    }

    proptest! {
        #[test]
        fn text_round_trips(subnet in subnet(), subnet6 in subnet6()) {
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
            prop_assert_eq!(subnet6.to_string().parse::<Subnet6>().unwrap(), subnet6);
        }

        #[test]
        fn overlapping_is_symmetric_and_means_a_shared_end(
            a in subnet(), b in subnet(), c in subnet6(), d in subnet6(),
        ) {
            prop_assert_eq!(a.overlaps(b), b.overlaps(a));
            // Prefixes nest or are apart.
            prop_assert_eq!(a.overlaps(b), a.contains(b.base()) || b.contains(a.base()));
            prop_assert_eq!(c.overlaps(d), c.contains(d.base()) || d.contains(c.base()));
        }

        #[test]
        fn a_chosen_subnet_is_apart_from_all_taken(taken in prop::collection::vec(subnet(), 0..40)) {
            if let Some(free) = free_subnet(candidates(), &taken) {
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
        for bad in ["fd00::", "fd00::/127", "10.0.0.0/24", "fd00::1::/64"] {
            assert!(bad.parse::<Subnet6>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subnets_of_version_6_are_unique_local_and_differ_by_engine() {
        let first = free_subnet(candidates6("one"), &[]).unwrap();
        let second = free_subnet(candidates6("one"), &[first]).unwrap();
        assert!(first.base().is_unique_local() && !first.overlaps(second));
        assert_ne!(free_subnet(candidates6("two"), &[]).unwrap(), first);
        assert_eq!(free_address(first, None, |_| false), Some(first.first_host()));
    }
}
