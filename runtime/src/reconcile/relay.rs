//! Publications on IPv6 addresses of containers that have IPv4 alone: no packet can be rewritten into those, so that the
//! daemon relays what is said.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;

use runtime_common::Protocol;

use super::endpoint::{OwnEndpoint, own_target};
use crate::model::Publication;
use crate::model::filter::Filter;

/// Where clients come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    pub filter: Arc<Filter>,
    /// Changes with the publication, the filter and the container's endpoint: conversations of an older one are over.
    pub generation: u64,
    /// It was made on the running container.
    pub live: bool,
}

/// What of a container's is relayed, in the order of the keys.
pub type Group = Arc<[(RelayKey, Relay)]>;

/// All that is to be relayed, in groups as they were planned. Where two have one key, the first one's counts.
#[derive(Clone, Debug, Default)]
pub struct Relays(Vec<Group>);

impl Relays {
    /// Adds a group.
    pub(super) fn push(&mut self, group: &Group) {
        if !group.is_empty() {
            self.0.push(group.clone());
        }
    }

    /// The relay with a key.
    pub fn get(&self, key: &RelayKey) -> Option<&Relay> {
        let within = |group: &&Group| match (group.first(), group.last()) {
            (Some((first, _)), Some((last, _))) => first <= key && key <= last,
            _ => false,
        };
        self.0.iter().filter(within).find_map(|group| {
            let at = group.binary_search_by_key(key, |(key, _)| *key).ok()?;
            Some(&group[at].1)
        })
    }

    /// All of them; of those with one key, only the first counts.
    pub fn iter(&self) -> impl Iterator<Item = &(RelayKey, Relay)> {
        self.0.iter().flat_map(|group| group.iter())
    }

    /// Those of groups that are not the very same in `other`: most changes concern few.
    pub fn changed_from(&self, other: &Relays) -> impl Iterator<Item = &(RelayKey, Relay)> {
        let same: HashSet<_> = other.0.iter().map(Arc::as_ptr).collect();
        self.0.iter().filter(move |group| !same.contains(&Arc::as_ptr(group))).flat_map(|group| group.iter())
    }
}

/// The endpoint that a publication is relayed to, where none has an address of its family.
pub(super) fn target<'e>(endpoints: &'e [OwnEndpoint], p: &Publication) -> Option<(&'e OwnEndpoint, IpAddr)> {
    RelayKey::of(p)?;
    own_target(endpoints, &Ipv4Addr::UNSPECIFIED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(container: &str, ports: &[u16]) -> Group {
        let relay = |port: &u16| {
            let key = RelayKey { protocol: Protocol::Tcp, address: Ipv6Addr::UNSPECIFIED, port: *port };
            let to = SocketAddrV4::new([172, 17, 0, 2].into(), *port);
            let container = container.to_owned();
            (key, Relay { container, to, filter: Arc::default(), generation: 1, live: false })
        };
        ports.iter().map(relay).collect()
    }

    fn all(groups: &[&Group]) -> Relays {
        let mut relays = Relays::default();
        groups.iter().for_each(|group| relays.push(group));
        relays
    }

    #[test]
    fn of_two_with_one_key_the_first_counts() {
        let (a, b) = (group("a", &[1, 3]), group("b", &[2, 3]));
        let relays = all(&[&a, &b]);
        let whose = |port| {
            let key = RelayKey { protocol: Protocol::Tcp, address: Ipv6Addr::UNSPECIFIED, port };
            relays.get(&key).map(|r| r.container.as_str())
        };
        assert_eq!([1, 2, 3, 4].map(whose), [Some("a"), Some("b"), Some("a"), None]);
    }

    #[test]
    fn what_was_planned_anew_has_changed() {
        let (a, b, empty) = (group("a", &[1]), group("b", &[2]), group("c", &[]));
        let b_again = group("b", &[2]);
        let changed = |new: &Relays, old: &Relays| new.changed_from(old).map(|(k, _)| k.port).collect::<Vec<_>>();
        assert_eq!(changed(&all(&[&a, &b_again, &empty]), &all(&[&a, &b])), [2]);
        assert_eq!(changed(&all(&[&a]), &all(&[&a, &b])), [0; 0]);
        assert_eq!(changed(&all(&[&a, &b]), &all(&[&a])), [2]);
    }
}
