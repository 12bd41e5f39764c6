//! Reading the host's network, and hearing of changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use futures_util::{Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::{Handle, MulticastGroup, new_connection, new_connection_with_strict_check, new_multicast_connection};

use super::routes::{Gateways, concerns_local, local_routes};
use super::{Host, Interface};

/// Netlink did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("netlink: {0}")]
pub struct NetlinkError(String);

impl From<std::io::Error> for NetlinkError {
    fn from(e: std::io::Error) -> Self {
        NetlinkError(e.to_string())
    }
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(e: rtnetlink::Error) -> Self {
        NetlinkError(e.to_string())
    }
}

/// A connection to the kernel's routing tables.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
    /// The kernel sends of all its routes only those that are asked for.
    strict: Handle,
}

impl Netlink {
    /// Connects; must be called within a tokio runtime.
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let (connection, strict, _) = new_connection_with_strict_check()?;
        tokio::spawn(connection);
        Ok(Netlink { handle, strict })
    }

    /// Something for every change of an interface, an address or a route to the host itself. What changed is to be read anew.
    pub fn changes() -> Result<impl Stream<Item = ()> + Send + Unpin, NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) = new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        let concerns = |message: &NetlinkMessage<RouteNetlinkMessage>| match &message.payload {
            NetlinkPayload::InnerMessage(message) => concerns_local(message),
            // Something was lost, perhaps.
            _ => true,
        };
        Ok(messages.filter_map(move |(message, _)| std::future::ready(concerns(&message).then_some(()))))
    }

    /// Reads everything. `sandboxes` are the containers' processes by container id; one that is gone is passed over.
    ///
    /// `known` is what was read before: a process's namespace keeps its id for as long as the process lives.
    pub async fn read(&self, sandboxes: &BTreeMap<String, u32>, known: &Host) -> Result<Host, NetlinkError> {
        let mut host = Host { interfaces: self.interfaces().await?, ..Host::default() };
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await? {
            let mut local = None;
            for attribute in &message.attributes {
                match attribute {
                    // For point-to-point interfaces `Address` is the other end's.
                    AddressAttribute::Local(a) => local = Some(*a),
                    AddressAttribute::Address(a) => local = local.or(Some(*a)),
                    _ => {}
                }
            }
            if let Some(address) = local {
                host.addresses.push((address, message.header.index));
                if let (IpAddr::V4(address), false) = (address, address.is_loopback()) {
                    host.broadcasts.extend(broadcast(address, message.header.prefix_len));
                }
            }
        }
        host.addresses.sort();
        host.local = local_routes(&self.strict).await?;
        host.localnet =
            host.interfaces.values().filter(|i| i.is_bridge && routes_localnet(&i.name)).map(|i| i.index).collect();
        host.bridges_filter = bridges_filter();
        for (container, pid) in sandboxes {
            let id = match known.sandboxes.get(container) {
                Some(before) if before == pid => known.namespaces.get(container).copied(),
                _ => self.namespace_id(&PathBuf::from(format!("/proc/{pid}/ns/net"))).await,
            };
            if let Some(id) = id {
                host.namespaces.insert(container.clone(), id);
                host.sandboxes.insert(container.clone(), *pid);
            }
        }
        // Most have one network: nothing to choose.
        let mut veths: HashMap<i32, usize> = HashMap::new();
        for (namespace, _) in host.interfaces.values().filter(|i| i.is_veth).filter_map(|i| i.peer) {
            *veths.entry(namespace).or_default() += 1;
        }
        for (container, namespace) in &host.namespaces {
            if veths.get(namespace).is_some_and(|n| *n > 1)
                && let Some(pid) = host.sandboxes.get(container)
            {
                host.gateways.insert(container.clone(), Gateways::of_process(*pid));
            }
        }
        // Only for containers that are being started, whose namespace nobody has told of yet.
        let known: HashSet<i32> = host.namespaces.values().copied().collect();
        for (index, (namespace, peer)) in
            host.interfaces.values().filter(|i| i.master.is_some()).filter_map(|i| Some((i.index, i.peer?)))
        {
            if !known.contains(&namespace)
                && let Some(mac) = self.peer_mac(namespace, peer).await
            {
                host.peer_macs.insert(index, mac);
            }
        }
        Ok(host)
    }

    async fn interfaces(&self) -> Result<BTreeMap<u32, Interface>, NetlinkError> {
        let mut found = BTreeMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await? {
            let interface = interface(&message);
            found.insert(interface.index, interface);
        }
        Ok(found)
    }

    /// The kernel's id, in this namespace, of the network namespace at `path`.
    async fn namespace_id(&self, path: &Path) -> Option<i32> {
        let file = File::open(path).ok()?;
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(file.as_raw_fd() as u32));
        let answer = self.ask(RouteNetlinkMessage::GetNsId(message)).await?;
        let RouteNetlinkMessage::NewNsId(answer) = answer else { return None };
        answer.attributes.iter().find_map(|a| match a {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        })
    }

    /// MAC address of an interface in another namespace.
    async fn peer_mac(&self, namespace: i32, index: u32) -> Option<[u8; 6]> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfNetnsId(namespace));
        let answer = self.ask(RouteNetlinkMessage::GetLink(message)).await?;
        let RouteNetlinkMessage::NewLink(answer) = answer else { return None };
        answer.attributes.iter().find_map(|a| match a {
            LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })
    }

    async fn ask(&self, message: RouteNetlinkMessage) -> Option<RouteNetlinkMessage> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        let answer = self.handle.clone().request(request).ok()?.next().await?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut i = Interface {
        index: message.header.index,
        name: String::new(),
        master: None,
        peer: None,
        is_veth: false,
        is_bridge: false,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        is_tunnel: matches!(message.header.link_layer_type, LinkLayerType::None | LinkLayerType::Rawip),
        is_loopback: message.header.link_layer_type == LinkLayerType::Loopback,
        mac: [0; 6],
    };
    let (mut link, mut namespace) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => i.name = name.clone(),
            LinkAttribute::Address(mac) => i.mac = mac.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Controller(master) if *master != 0 => i.master = Some(*master),
            LinkAttribute::Link(peer) => link = Some(*peer),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Veth) => i.is_veth = true,
                        LinkInfo::Kind(InfoKind::Bridge) => i.is_bridge = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    i.peer = namespace.zip(link);
    i
}

/// Whether rules of IP see what crosses bridges, of either family.
fn bridges_filter() -> bool {
    ["iptables", "ip6tables"].iter().any(|tables| {
        std::fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{tables}")).is_ok_and(|v| v.trim() == "1")
    })
}

/// Whether loopback addresses of IPv4 are routed on this interface.
fn routes_localnet(interface: &str) -> bool {
    // Either switch does.
    ["all", interface].iter().any(|name| {
        std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet")).is_ok_and(|v| v.trim() == "1")
    })
}

/// The broadcast address of the network that an address of an interface is in, where it has one (RFC 3021).
fn broadcast(address: Ipv4Addr, length: u8) -> Option<Ipv4Addr> {
    (length < 31).then(|| Ipv4Addr::from(address.to_bits() | u32::MAX >> length))
}

/// Whether an address is one that outsiders can know: neither loopback nor link-local.
pub fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}
