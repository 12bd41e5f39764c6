//! `HOST_SOCKETS`: what each socket of the host dialled. The kernel keeps it with the socket, and tells it with the socket alone
//! (sock_diag), of TCP; connected sockets of UDP are in `HOST_PEERS` too.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{HashMap, Map, MapData};
use runtime_common::maps::{HostPeerKey, HostSocket};

use super::table::read_entries;
use super::{DatapathError, map_error};

const NAME: &str = "HOST_SOCKETS";

/// Sockets of the host that were sent to a container by publications that are gone.
#[derive(Debug)]
pub struct EndedSockets {
    map: OwnedFd,
    generations: BTreeSet<u64>,
    datagrams: HashSet<(u64, SocketAddr)>,
}

impl EndedSockets {
    /// None yet.
    pub(super) fn of(map: &Map) -> Result<Self, DatapathError> {
        let Map::SkStorage(data) = map else {
            return Err(DatapathError::Map { map: NAME, reason: "not a socket storage".into() });
        };
        let map = data.fd().as_fd().try_clone_to_owned().map_err(|e| map_error(NAME, &e))?;
        Ok(EndedSockets { map, generations: BTreeSet::new(), datagrams: HashSet::new() })
    }

    /// Publications of these generations are gone; `peers` is `HOST_PEERS`.
    pub(super) fn add(&mut self, generations: &BTreeSet<u64>, peers: &HashMap<MapData, HostPeerKey, HostSocket>) {
        if generations.is_empty() {
            return;
        }
        self.generations.extend(generations);
        let ended = read_entries(peers).into_iter().filter(|(_, socket)| generations.contains(&socket.generation));
        self.datagrams.extend(ended.map(|(key, socket)| (key.cookie, went_to(&socket))));
    }

    /// Those so far; then there are none.
    pub(super) fn take(&mut self) -> Result<Option<EndedSockets>, DatapathError> {
        if self.generations.is_empty() {
            return Ok(None);
        }
        let map = self.map.try_clone().map_err(|e| map_error(NAME, &e))?;
        let (generations, datagrams) = (std::mem::take(&mut self.generations), std::mem::take(&mut self.datagrams));
        Ok(Some(EndedSockets { map, generations, datagrams }))
    }

    /// Those of UDP, by their cookies and where they are connected to.
    pub fn datagrams(&self) -> &HashSet<(u64, SocketAddr)> {
        &self.datagrams
    }

    /// The map that the kernel keeps their values in.
    pub fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Whether a socket of TCP is one of them that is connected to `peer` and has this value in the map.
    pub fn has(&self, peer: SocketAddr, value: &[u8]) -> bool {
        HostSocket::read(value).is_some_and(|s| went_to(&s) == peer && self.generations.contains(&s.generation))
    }
}

fn went_to(socket: &HostSocket) -> SocketAddr {
    SocketAddr::new(socket.addr.to_ip(), u16::from_be(socket.peer_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_ended_with_its_publication_where_it_still_goes_there() {
        let nothing = std::fs::File::open("/dev/null").unwrap();
        let ended = EndedSockets { map: nothing.into(), generations: BTreeSet::from([7]), datagrams: HashSet::new() };
        let value = |generation: u64, port: u16| {
            let mut bytes = generation.to_ne_bytes().to_vec();
            // What was dialled, where it led, the rule's slot, the port that was dialled, the container's.
            bytes.extend(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
            bytes.extend(std::net::Ipv4Addr::new(172, 17, 0, 2).to_ipv6_mapped().octets());
            bytes.extend(1u32.to_ne_bytes());
            bytes.extend(8000u16.to_be_bytes());
            bytes.extend(port.to_be_bytes());
            bytes
        };
        let peer = "172.17.0.2:80".parse().unwrap();
        assert!(ended.has(peer, &value(7, 80)));
        assert!(!ended.has(peer, &value(8, 80)), "published anew");
        assert!(!ended.has(peer, &value(7, 81)), "it has gone elsewhere since");
        assert!(!ended.has(peer, &[]) && !ended.has(peer, &value(7, 80)[1..]), "nothing, or too little");
    }
}
