//! Containers on networks, as they are served.

use std::net::IpAddr;

/// A container on a network, as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// The container's full id.
    pub container: String,
    /// The network's full id.
    pub network: String,
    /// Whether the network is isolated.
    pub isolated: bool,
    /// Bits `ENDPOINT_MASQUERADE_*`.
    pub masquerade: u16,
    /// Host-side interface.
    pub ifindex: u32,
    /// The network's bridge.
    pub bridge: u32,
    /// The container's MAC address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// Its generation.
    pub generation: u64,
}

impl EndpointPlan {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::from).into_iter().chain(self.ipv6.map(IpAddr::from))
    }

    /// Its address of the same family as `like`.
    pub fn address_like(&self, like: &IpAddr) -> Option<IpAddr> {
        self.addresses().find(|a| a.is_ipv4() == like.is_ipv4())
    }
}

/// One of a container's own endpoints.
#[derive(PartialEq)]
pub(super) struct OwnEndpoint {
    pub plan: EndpointPlan,
    /// Whether its bridge lets loopback addresses through.
    pub routes_loopback: bool,
    /// Whether the container's own default routes leave here: IPv4, IPv6.
    pub leads_out: (bool, bool),
}

impl OwnEndpoint {
    /// Whether the container's default route of that family leaves here.
    pub fn leads_out(&self, like: &IpAddr) -> bool {
        if like.is_ipv4() { self.leads_out.0 } else { self.leads_out.1 }
    }
}

/// Where a publication leads: to the endpoint on which the container's own default route of that family leaves, since there the
/// answers leave.
pub(super) fn own_target<'e>(endpoints: &'e [OwnEndpoint], like: &IpAddr) -> Option<(&'e OwnEndpoint, IpAddr)> {
    let address = |e: &'e OwnEndpoint| Some((e, e.plan.address_like(like)?));
    endpoints.iter().filter(|e| e.leads_out(like)).find_map(address).or_else(|| endpoints.iter().find_map(address))
}
