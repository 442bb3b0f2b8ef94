//! Links, addresses and routes through rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind,
    InfoVeth, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::document::ParentKind;
use crate::{NetworkError, Subnet, Subnet6, netns};

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
    pub(crate) subnets6: Vec<Subnet6>,
    /// Interface indices of default routes.
    pub(crate) default_links: Vec<u32>,
    /// The same of IPv6.
    pub(crate) default_links6: Vec<u32>,
}

/// A link that shares one of the host's.
pub(crate) struct Shared<'a> {
    pub(crate) name: &'a str,
    /// Index of the host's link.
    pub(crate) parent: u32,
    pub(crate) kind: ParentKind,
    /// Empty is the kind's default.
    pub(crate) mode: &'a str,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
}

/// Whether a kind of sharing has a mode of this name.
pub(crate) fn is_mode(kind: ParentKind, mode: &str) -> bool {
    match kind {
        ParentKind::Macvlan => macvlan_mode(mode).is_some(),
        ParentKind::Ipvlan => ipvlan_mode(mode).is_some(),
    }
}

fn macvlan_mode(word: &str) -> Option<MacVlanMode> {
    match word {
        "" | "bridge" => Some(MacVlanMode::Bridge),
        "private" => Some(MacVlanMode::Private),
        "vepa" => Some(MacVlanMode::Vepa),
        "passthru" => Some(MacVlanMode::Passthrough),
        _ => None,
    }
}

fn ipvlan_mode(word: &str) -> Option<IpVlanMode> {
    match word {
        "" | "l2" => Some(IpVlanMode::L2),
        "l3" => Some(IpVlanMode::L3),
        "l3s" => Some(IpVlanMode::L3S),
        _ => None,
    }
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

    /// Make a bridge unless it is there. Another link of that name is left alone.
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
            Ok(()) => self.need(name).await,
            Err(_) => match self.list().await?.into_iter().find(|link| link.name == name) {
                Some(link) if link.bridge => Ok(link.index),
                _ => Err(NetworkError::NoBridge(name.to_owned())),
            },
        }
    }

    /// Give a link an address unless it has it.
    pub(crate) async fn ensure_address(
        &self,
        name: &str,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let mut request = self.handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            // Nobody else has it: it need not be asked around for a second before it can be used.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        match request.execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::EXIST) => {
                Err(failed("giving an address to", name)(error))
            }
            _ => Ok(()),
        }
    }

    /// What `route_localnet` is for IPv4: let answers to the host's `::1` come in by this link.
    ///
    /// A published port at `::1` is translated, and so is the answer, back to `::1`. The kernel looks for
    /// its way among the routes of the link that it came by alone, so each link needs one. Whoever sends
    /// to `::1` from outside is dropped before that, with or without it; the host's own packets keep to
    /// the route of its loopback, whose metric is 0.
    pub(crate) async fn ensure_localnet6(
        &self,
        name: &str,
        index: u32,
    ) -> Result<(), NetworkError> {
        /// `RT_TABLE_LOCAL`: what is looked up first.
        const LOCAL: u32 = 255;
        const METRIC: u32 = 1024;
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(Ipv6Addr::LOCALHOST, 128)
            .output_interface(index)
            .table_id(LOCAL)
            .kind(RouteType::Local)
            // Two routes of one metric would be one too many for the kernel.
            .priority(METRIC.saturating_add(index))
            .build();
        match self.handle.route().add(message).execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::EXIST) => {
                Err(failed("routing ::1 to", name)(error))
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

    /// Make a link that shares one of the host's, in the namespace if one is named.
    pub(crate) async fn make_shared(
        &self,
        shared: &Shared<'_>,
        namespace: Option<&Path>,
    ) -> Result<(), NetworkError> {
        let namespace = namespace.map(netns::open).transpose()?;
        let (kind, data) = match shared.kind {
            ParentKind::Macvlan => {
                let mode = macvlan_mode(shared.mode).unwrap_or(MacVlanMode::Bridge);
                (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]))
            }
            ParentKind::Ipvlan => {
                let mode = ipvlan_mode(shared.mode).unwrap_or(IpVlanMode::L2);
                (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)]))
            }
        };
        let mut message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
            .name(shared.name)
            .link(shared.parent)
            .set_info_data(data);
        if let Some(namespace) = &namespace {
            message = message.setns_by_fd(namespace.as_raw_fd());
        }
        if let (Some(mac), ParentKind::Macvlan) = (shared.mac, shared.kind) {
            message = message.address(mac.to_vec());
        }
        if let Some(mtu) = shared.mtu {
            message = message.mtu(mtu);
        }
        match self.handle.link().add(message.build()).execute().await {
            Err(error) if is_errno(&error, rustix::io::Errno::OPNOTSUPP) => {
                let kind = shared.kind.word();
                Err(NetworkError::NotInKernel { kind, source: error.into() })
            }
            done => done.map_err(failed("making a link", shared.name)),
        }
    }

    /// Route everything through a gateway, by a link of this index.
    pub(crate) async fn default_route(
        &self,
        gateway: IpAddr,
        index: u32,
    ) -> Result<(), NetworkError> {
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build(),
        };
        match self.handle.route().add(message).execute().await {
            Err(error) if !is_errno(&error, rustix::io::Errno::EXIST) => {
                Err(failed("routing through", &gateway.to_string())(error))
            }
            _ => Ok(()),
        }
    }

    /// Delete a bridge if it is there. Another link of that name is left alone.
    pub(crate) async fn delete_bridge(&self, name: &str) -> Result<(), NetworkError> {
        match self.list().await?.iter().any(|link| link.name == name && link.bridge) {
            true => self.delete(name).await,
            false => Ok(()),
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

    /// Where the host's routes lead, of both versions.
    pub(crate) async fn routes(&self) -> Result<HostRoutes, NetworkError> {
        let mut found = HostRoutes::default();
        for message in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let mut routes = self.handle.route().get(message).execute();
            while let Some(route) =
                routes.try_next().await.map_err(failed("listing routes of", "the host"))?
            {
                found.take(&route);
            }
        }
        Ok(found)
    }
}

impl HostRoutes {
    fn take(&mut self, route: &RouteMessage) {
        let prefix = route.header.destination_prefix_length;
        let link = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let destination = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => Some(address),
            _ => None,
        });
        match (route.header.address_family, destination) {
            (AddressFamily::Inet, None) if prefix == 0 => self.default_links.extend(link),
            (AddressFamily::Inet6, None) if prefix == 0 => self.default_links6.extend(link),
            (_, Some(RouteAddress::Inet(address))) => {
                self.subnets.extend(Subnet::new(*address, prefix));
            }
            // Every link has link-local and multicast routes: they are in nobody's way.
            (_, Some(RouteAddress::Inet6(address)))
                if !address.is_unicast_link_local() && !address.is_multicast() =>
            {
                self.subnets6.extend(Subnet6::new(*address, prefix));
            }
            _ => {}
        }
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
