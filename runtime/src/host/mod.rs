//! The host's network as netlink tells of it: interfaces, addresses, and which container is behind which interface.

mod firewall;
mod gro;
mod listeners;
mod nat;
mod netlink;
mod programs;
mod proxies;
mod routes;
mod sock_diag;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use firewall::passed_by;
pub use gro::set_gro;
pub use listeners::{Listener, listeners};
pub use nat::{NatRules, read as read_nat};
pub use netlink::{Netlink, NetlinkError, is_global};
pub use proxies::listening_proxies;
pub use routes::{Gateways, LocalRoute};
pub use sock_diag::{End, close_connections, close_datagrams, close_stored, namespace_of};
pub use sockets::{Socket, established};

/// An interface of the host's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Index of the bridge or bond that it belongs to.
    pub master: Option<u32>,
    /// For a veth whose other end is in another namespace: the kernel's id of that namespace, and the peer's index there.
    pub peer: Option<(i32, u32)>,
    /// Whether it is a veth.
    pub is_veth: bool,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Whether it has Ethernet frames.
    pub is_ethernet: bool,
    /// Whether its packets begin with their IP header: WireGuard, tun.
    pub is_tunnel: bool,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Its own MAC address; all zero where it has none.
    pub mac: [u8; 6],
}

/// Everything that decisions ask of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Interfaces by index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Addresses with the index of their interface.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Broadcast addresses of the networks that interfaces are in.
    pub broadcasts: BTreeSet<Ipv4Addr>,
    /// What is the host's own by the local routing table: addresses of interfaces, and others, prefixes of them even.
    pub local: BTreeSet<LocalRoute>,
    /// Where the default routes of containers with several networks lead, by container id.
    pub gateways: BTreeMap<String, Gateways>,
    /// The kernel's ids of containers' network namespaces, by container id.
    pub namespaces: BTreeMap<String, i32>,
    /// The processes whose namespaces these are, by container id.
    pub sandboxes: BTreeMap<String, u32>,
    /// MAC addresses of veths' other ends, by the index of this end.
    pub peer_macs: BTreeMap<u32, [u8; 6]>,
    /// Bridges that the host sends to and hears from with loopback addresses of IPv4 (`route_localnet`).
    pub localnet: BTreeSet<u32>,
    /// Whether the host's rules of IP see what crosses its bridges (`br_netfilter`).
    pub bridges_filter: bool,
    /// What the host's own rules do with sources.
    pub nat: Arc<NatRules>,
}

impl Host {
    /// The interface of that name.
    pub fn by_name(&self, name: &str) -> Option<&Interface> {
        self.interfaces.values().find(|i| i.name == name)
    }

    /// The host's own addresses, each as a prefix: all that interfaces have and the local routing table says, but loopback ones.
    pub fn own_addresses(&self) -> impl Iterator<Item = LocalRoute> + '_ {
        let whole = |a: &IpAddr| (*a, if a.is_ipv4() { 32 } else { 128 });
        let of_interfaces = self.addresses.iter().map(move |(a, _)| whole(a));
        of_interfaces.chain(self.local.iter().copied()).filter(|(a, _)| !a.is_loopback())
    }

    /// Addresses of an interface.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter(move |(_, i)| *i == index).map(|(a, _)| *a)
    }
}
