//! Links, addresses and routes through rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::{NetworkError, Subnet, netns};

/// A netlink connection in the network namespace that it was opened in.
pub(crate) struct Links {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

/// The host's end and the container's end of a veth.
pub(crate) struct Veth<'a> {
    pub(crate) host: &'a str,
    pub(crate) container: &'a str,
    pub(crate) bridge: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    /// The port may not talk to other isolated ports of the bridge.
    pub(crate) isolated: bool,
    /// Frames may go back out of the port that they came in by: a container that calls its own
    /// published port, on hosts where bridged packets pass the firewall (`bridge-nf-call-iptables`).
    pub(crate) hairpin: bool,
}

/// What is known of a link of the host.
#[derive(Clone, Debug)]
pub(crate) struct HostLink {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    pub(crate) bridge: bool,
    pub(crate) veth: bool,
}

/// What is known of the host's routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostRoutes {
    pub(crate) subnets: Vec<Subnet>,
    /// Interface indices of default routes.
    pub(crate) default_links: Vec<u32>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn failed(action: &'static str, link: &str) -> impl Fn(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Link { action, link: link.to_owned(), source: source.into() }
}

fn is_errno(error: &rtnetlink::Error, errno: rustix::io::Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if message.raw_code() == -errno.raw_os_error())
}

impl Links {
    /// In this process's own network namespace.
    pub(crate) fn here() -> Result<Self, NetworkError> {
        let opened = rtnetlink::new_connection();
        Self::from_connection(opened.map_err(|source| NetworkError::Link {
            action: "opening a netlink socket for",
            link: "the host".to_owned(),
            source: source.into(),
        })?)
    }

    /// In the namespace that `path` names.
    pub(crate) fn inside(path: &Path) -> Result<Self, NetworkError> {
        let runtime = tokio::runtime::Handle::current();
        let connection = netns::enter(path, || {
            let _guard = runtime.enter();
            rtnetlink::new_connection()
        })?;
        Self::from_connection(connection)
    }

    #[allow(clippy::type_complexity, reason = "it is rtnetlink's own triple")]
    fn from_connection<C, M>((connection, handle, _): (C, Handle, M)) -> Result<Self, NetworkError>
    where
        C: Future<Output = ()> + Send + 'static,
    {
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// Index of a link, if there is one of that name.
    pub(crate) async fn index(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        match self.handle.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is_errno(&error, rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(failed("looking for", name)(error)),
        }
    }

    async fn need(&self, name: &str) -> Result<u32, NetworkError> {
        self.index(name).await?.ok_or_else(|| NetworkError::Link {
            action: "looking for",
            link: name.to_owned(),
            source: io::Error::from(io::ErrorKind::NotFound).into(),
        })
    }

    /// Set a link up.
    pub(crate) async fn set_up(&self, name: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().set(message).execute().await.map_err(failed("setting up", name))
    }

    /// Make a bridge unless it is there.
    pub(crate) async fn ensure_bridge(
        &self,
        name: &str,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<u32, NetworkError> {
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).build();
        match self.handle.link().add(message).execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::EXIST) => {
                Err(failed("making bridge", name)(error))
            }
            _ => self.need(name).await,
        }
    }

    /// Give a link an address unless it has it.
    pub(crate) async fn ensure_address(
        &self,
        name: &str,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let request = self.handle.address().add(index, IpAddr::V4(address), prefix);
        match request.execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::EXIST) => {
                Err(failed("giving an address to", name)(error))
            }
            _ => Ok(()),
        }
    }

    /// Make a veth with its peer already inside the namespace: moving it there costs eight times more.
    /// The peer is left down: the kernel cannot set it up before the two are a pair.
    pub(crate) async fn make_veth(
        &self,
        veth: &Veth<'_>,
        namespace: &Path,
    ) -> Result<(), NetworkError> {
        let namespace = netns::open(namespace)?;
        let peer: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.container)
            .address(veth.mac.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.host)
            .mtu(veth.mtu)
            .controller(veth.bridge)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up()
            .build();
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(failed("making veth", veth.host))?;
        let mut port = Vec::new();
        if veth.isolated {
            port.push(InfoBridgePort::Isolated(true));
        }
        if veth.hairpin {
            port.push(InfoBridgePort::HairpinMode(true));
        }
        if port.is_empty() {
            return Ok(());
        }
        let index = self.need(veth.host).await?;
        let message = LinkUnspec::new_with_index(index)
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(port))
            .build();
        let request = self.handle.link().set_port(message);
        request.execute().await.map_err(failed("setting the bridge port of", veth.host))
    }

    /// Route everything through a gateway.
    pub(crate) async fn default_route(&self, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        match self.handle.route().add(message).execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::EXIST) => {
                Err(failed("routing through", &gateway.to_string())(error))
            }
            _ => Ok(()),
        }
    }

    /// Delete a link if it is there.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), NetworkError> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::NODEV) => {
                Err(failed("deleting", name)(error))
            }
            _ => Ok(()),
        }
    }

    /// All links.
    pub(crate) async fn list(&self) -> Result<Vec<HostLink>, NetworkError> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing", "the links"))?;
        Ok(messages.iter().map(host_link).collect())
    }

    /// IPv4 routes and addresses of the host.
    pub(crate) async fn routes(&self) -> Result<HostRoutes, NetworkError> {
        let mut found = HostRoutes::default();
        let message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(message).execute();
        while let Some(route) =
            routes.try_next().await.map_err(failed("listing routes of", "the host"))?
        {
            if route.header.address_family != AddressFamily::Inet {
                continue;
            }
            let prefix = route.header.destination_prefix_length;
            let (mut destination, mut link) = (None, None);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        destination = Some(*address);
                    }
                    RouteAttribute::Oif(index) => link = Some(*index),
                    _ => {}
                }
            }
            match (destination, prefix) {
                (None, 0) => found.default_links.extend(link),
                (Some(address), _) => found.subnets.extend(Subnet::new(address, prefix)),
                (None, _) => {}
            }
        }
        Ok(found)
    }
}

fn host_link(message: &LinkMessage) -> HostLink {
    let mut link = HostLink {
        index: message.header.index,
        name: String::new(),
        mtu: 1500,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        bridge: false,
        veth: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                link.veth |= infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    link
}
