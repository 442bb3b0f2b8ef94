//! Networks of containers: bridges, addresses, NAT, published ports and the names files.
//!
//! Invariants:
//! * Only what is ours is touched: links, nft tables and sysctl values that this engine made. Foreign
//!   firewall rules are never changed; where they drop our traffic, that is said ([`ForwardDrop`]).
//! * What runs needs nobody: bridges, veths, rules and names files work on while no daemon runs.
//! * [`Networks::restore`] makes the kernel's state equal to the documents on disk, from any state.
//! * [`Networks::destroy_all`] leaves nothing: no link, rule, namespace file or changed sysctl.
//!
//! Everything takes effect in the network namespace of the calling process, which must be root there.

mod conntrack;
mod document;
mod error;
mod firewall;
mod forward;
mod ipam;
mod link;
mod names;
mod netns;
mod networks;
mod ports;
mod sysctl;

pub use document::{
    AttachOptions, Endpoint, NetworkOptions, NetworkRecord, Parent, ParentKind, Pool6, Port,
    Protocol, Wanted6,
};
pub use error::NetworkError;
pub use forward::ForwardDrop;
pub use ipam::{Subnet, Subnet6};
pub use networks::{NAME_SERVICE_PORT, Namespace, Networks};
