//! Connections whose rule has ended: who is to be told.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use aya::maps::{HashMap, MapData};
use runtime_common::maps::{FLOW_REPLY, Flow, FlowKey, Zone};
use runtime_common::packet::TCP;

use super::table::read_entries;

/// A container's end of a TCP connection whose rule has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPeer {
    /// Its address and port in the container.
    pub local: SocketAddr,
    /// The other end as the container sees it.
    pub remote: SocketAddr,
    /// Whether the other end is in a container as well, and among the results.
    pub both: bool,
}

/// The containers' ends of the answered TCP connections under these generations.
pub(super) fn ended(flows: &HashMap<MapData, FlowKey, Flow>, generations: &BTreeSet<u64>) -> Vec<EndedPeer> {
    // 0 is none: as if it had ended, nearly every flow would be one of them.
    let is_of_them = |flow: &Flow| {
        [flow.generation, flow.client_generation].iter().any(|needed| *needed != 0 && generations.contains(needed))
    };
    let of_them = read_entries(flows).into_iter().filter(|(_, flow)| is_of_them(flow));
    of_them.flat_map(|(key, flow)| ends(&key, &flow)).collect()
}

/// Each conversation is judged by its forward entry.
fn ends(key: &FlowKey, flow: &Flow) -> Vec<EndedPeer> {
    if key.protocol != TCP || flow.state & FLOW_REPLY != 0 {
        return Vec::new();
    }
    let address = |addr: runtime_common::Addr, port: u16| SocketAddr::new(addr.to_ip(), u16::from_be(port));
    let (from, to) = (&key.tuple, &flow.to);
    let opener =
        (key.zone == Zone::Endpoint as u8).then(|| (address(from.src, from.sport), address(from.dst, from.dport)));
    let server = (flow.ifindex != 0).then(|| (address(to.dst, to.dport), address(to.src, to.sport)));
    let both = opener.is_some() && server.is_some();
    [opener, server].into_iter().flatten().map(|(local, remote)| EndedPeer { local, remote, both }).collect()
}

#[cfg(test)]
mod tests {
    use runtime_common::maps::{FlowAction, Tuple};

    use super::*;

    fn tuple(src: &str, dst: &str) -> Tuple {
        let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        Tuple { src: src.ip().into(), dst: dst.ip().into(), sport: src.port().to_be(), dport: dst.port().to_be() }
    }

    fn peer(local: &str, remote: &str, both: bool) -> EndedPeer {
        EndedPeer { local: local.parse().unwrap(), remote: remote.parse().unwrap(), both }
    }

    #[test]
    fn of_a_published_connection_the_containers_end() {
        let key = FlowKey::new(tuple("192.0.2.2:40000", "192.0.2.1:8000"), TCP, Zone::Uplink);
        let to = tuple("192.0.2.2:40000", "172.17.0.2:7");
        let flow = Flow { to, ifindex: 5, action: FlowAction::Publish as u8, ..Flow::default() };
        assert_eq!(ends(&key, &flow), [peer("172.17.0.2:7", "192.0.2.2:40000", false)]);
        assert_eq!(ends(&key, &Flow { state: FLOW_REPLY, ..flow }), []);
        assert_eq!(ends(&FlowKey { protocol: 17, ..key }, &flow), []);
    }

    #[test]
    fn of_siblings_both_ends_as_each_sees_it() {
        // Through the host's address: the client dialled that, and the server sees the client.
        let key = FlowKey::new(tuple("172.17.0.3:40000", "192.0.2.1:8000"), TCP, Zone::Endpoint);
        let flow = Flow { to: tuple("172.17.0.3:40000", "172.17.0.2:7"), ifindex: 5, ..Flow::default() };
        let (client, server) =
            (peer("172.17.0.3:40000", "192.0.2.1:8000", true), peer("172.17.0.2:7", "172.17.0.3:40000", true));
        assert_eq!(ends(&key, &flow), [client, server]);
    }

    #[test]
    fn of_a_containers_own_connection_its_end() {
        let key = FlowKey::new(tuple("172.17.0.3:40000", "192.0.2.9:80"), TCP, Zone::Endpoint);
        let flow = Flow { to: key.tuple, action: FlowAction::Stack as u8, ..Flow::default() };
        assert_eq!(ends(&key, &flow), [peer("172.17.0.3:40000", "192.0.2.9:80", false)]);
    }
}
