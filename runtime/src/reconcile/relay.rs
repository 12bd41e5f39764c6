//! Publications on IPv6 addresses of containers that have IPv4 alone: no packet can be rewritten into those, so that the
//! daemon relays what is said.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};

use runtime_common::Protocol;

use super::cache::OwnEndpoint;
use crate::model::Publication;
use crate::model::filter::Filter;

/// Where clients come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayKey {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's address; `::` for all of them.
    pub address: Ipv6Addr,
    /// The host's port.
    pub port: u16,
}

impl RelayKey {
    /// Where a publication would be relayed; `None` for what cannot be.
    pub fn of(publication: &Publication) -> Option<RelayKey> {
        let protocol = publication.container_port.protocol;
        match publication.host_addr {
            IpAddr::V6(address) if protocol != Protocol::Sctp => {
                Some(RelayKey { protocol, address, port: publication.host_port })
            }
            _ => None,
        }
    }
}

/// What is relayed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The container.
    pub container: String,
    /// Its address and port.
    pub to: SocketAddrV4,
    /// Who may use it.
    pub filter: Filter,
    /// Changes with the publication, the filter and the container's endpoint: conversations of an older one are over.
    pub generation: u64,
    /// It was made on the running container.
    pub live: bool,
    /// The engine serves it as long as it is well: a port that is free for a moment may be one that it is about to take.
    pub patient: bool,
}

/// All that is to be relayed.
pub type Relays = BTreeMap<RelayKey, Relay>;

/// The endpoint that a publication is relayed to, where none has an address of its family.
pub(super) fn target<'e>(endpoints: &'e [OwnEndpoint], p: &Publication) -> Option<(&'e OwnEndpoint, IpAddr)> {
    RelayKey::of(p)?;
    endpoints.iter().find_map(|e| Some((e, e.plan.ipv4?.into())))
}
