//! Joining a bridge of the machine from a network namespace of one's own.
//!
//! The address is written down as the alias of the device's link on the bridge, so what is taken is
//! what is there, and goes when the device does.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::UnshareFlags;

use super::remains;
use crate::arguments::Virtual;

const INSIDE: &str = "eth0";
/// How often a link of an earlier boot, which the kernel removes by and by, is waited for.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// The bridge's own address and the length of its network's prefix.
struct BridgeAddress {
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
}

/// Enters the device's namespaces and joins the bridge; returns the device's address on it.
pub fn enter(options: &Virtual) -> anyhow::Result<Ipv4Addr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(join(options))
}

async fn join(options: &Virtual) -> anyhow::Result<Ipv4Addr> {
    let bridge = options.bridge.as_deref().context("no bridge to join is named")?;
    let machine = File::open("/proc/self/ns/net").context("cannot open the network namespace")?;
    let (connection, outside, _) =
        rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    let at = bridge_address(&outside, bridge).await?;
    // One device of this network at a time chooses, until its choice is written at its link. The lock
    // goes with the descriptor.
    flock(&machine, FlockOperation::LockExclusive).context("cannot wait for other devices")?;
    let name = format!("mkv{}", remains::id(&options.data));
    let address = choose(&at, bridge, &name, &options.data)?;
    let flags =
        UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    // SAFETY: this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.context("cannot make namespaces")?;
    let (connection, inside, _) =
        rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    make_pair(&inside, &name, &machine).await?;
    let message = LinkUnspec::new_with_name(&name).controller(at.index).up().build();
    outside.link().set(message).execute().await.with_context(|| format!("cannot join {bridge}"))?;
    mark(&outside, &name, address).await?;
    drop(machine);
    configure(&inside, address, &at).await?;
    fs::write(options.data.join("address"), address.to_string())
        .context("cannot note the address")?;
    Ok(address)
}

async fn bridge_address(outside: &Handle, bridge: &str) -> anyhow::Result<BridgeAddress> {
    let index =
        index(outside, bridge).await.with_context(|| format!("there is no bridge {bridge}"))?;
    let mut addresses = outside.address().get().set_link_index_filter(index).execute();
    while let Some(message) = addresses.try_next().await.context("cannot list addresses")? {
        for attribute in &message.attributes {
            if let AddressAttribute::Address(IpAddr::V4(address)) = attribute {
                return Ok(BridgeAddress {
                    index,
                    address: *address,
                    prefix: message.header.prefix_len,
                });
            }
        }
    }
    bail!("the bridge {bridge} has no IPv4 address, which devices on it need as their gateway")
}

/// The address that the device had before if it is free, else the first free one.
fn choose(at: &BridgeAddress, bridge: &str, name: &str, data: &Path) -> anyhow::Result<Ipv4Addr> {
    let taken = taken(bridge, name);
    let mask = u32::MAX.checked_shl(32 - u32::from(at.prefix)).unwrap_or(0);
    let network = at.address.to_bits() & mask;
    let is_free = |address: &Ipv4Addr| {
        let bits = address.to_bits();
        bits & mask == network
            && bits != network
            && bits != network | !mask
            && *address != at.address
            && !taken.contains(address)
    };
    let before = fs::read_to_string(data.join("address")).ok().and_then(|it| it.parse().ok());
    if let Some(before) = before.filter(is_free) {
        return Ok(before);
    }
    (network + 1..network | !mask)
        .map(Ipv4Addr::from_bits)
        .find(is_free)
        .with_context(|| format!("the network of {bridge} has no free address"))
}

/// The addresses that the aliases of the bridge's ports name. The device's own link called `name` is of
/// an earlier boot and about to go: its address is kept.
fn taken(bridge: &str, name: &str) -> BTreeSet<Ipv4Addr> {
    let Ok(ports) = fs::read_dir(format!("/sys/class/net/{bridge}/brif")) else {
        return BTreeSet::new();
    };
    ports
        .flatten()
        .filter(|port| port.file_name() != name)
        .filter_map(|port| {
            let alias = format!("/sys/class/net/{}/ifalias", port.file_name().to_string_lossy());
            fs::read_to_string(alias).ok()?.trim().parse().ok()
        })
        .collect()
}

/// Makes `eth0` here with its other end, called `name`, in the machine's namespace.
async fn make_pair(inside: &Handle, name: &str, machine: &File) -> anyhow::Result<()> {
    let peer: LinkMessage =
        LinkMessageBuilder::<LinkUnspec>::new().name(name).setns_by_fd(machine.as_raw_fd()).build();
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(INSIDE)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    for _ in 0..ATTEMPTS {
        match inside.link().add(message.clone()).execute().await {
            Ok(()) => return Ok(()),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -rustix::io::Errno::EXIST.raw_os_error() =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error).context("cannot make the device's link"),
        }
    }
    bail!("the link {name} of an earlier boot does not go away")
}

/// Writes the address at the link.
async fn mark(outside: &Handle, name: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    use rtnetlink::packet_route::link::LinkAttribute;
    let mut message = LinkUnspec::new_with_name(name).build();
    message.attributes.push(LinkAttribute::IfAlias(address.to_string()));
    outside.link().set(message).execute().await.context("cannot write the address at the link")
}

async fn configure(inside: &Handle, address: Ipv4Addr, at: &BridgeAddress) -> anyhow::Result<()> {
    let up = LinkUnspec::new_with_name("lo").up().build();
    inside.link().set(up).execute().await.context("cannot set up lo")?;
    let index = index(inside, INSIDE).await.context("the device's link is gone")?;
    inside
        .address()
        .add(index, IpAddr::V4(address), at.prefix)
        .execute()
        .await
        .context("cannot give the device its address")?;
    let up = LinkUnspec::new_with_index(index).up().build();
    inside.link().set(up).execute().await.context("cannot set up the device's link")?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(at.address).build();
    inside.route().add(route).execute().await.context("cannot route through the bridge")
}

async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.with_context(|| format!("cannot look for {name}"))?;
    Ok(link.with_context(|| format!("there is no link {name}"))?.header.index)
}
