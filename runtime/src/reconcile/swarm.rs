//! The bridge by which the Engine joins containers on overlay networks to the host. It is no network that anybody asked for: no
//! container lists it as its own, and the Engine's own load balancers are on it as well.

use crate::model::{Container, Network, Snapshot};

/// Its name. The Engine makes it when it joins a swarm, and tells of neither that nor of who is connected to it.
pub const GATEWAY: &str = "docker_gwbridge";

/// Whether this is that bridge.
pub fn is_gateway(network: &Network) -> bool {
    network.name == GATEWAY && network.driver == "bridge"
}

/// Whether containers on this network may be on that bridge as well.
pub fn needs_gateway(network: &Network) -> bool {
    !matches!(network.driver.as_str(), "bridge" | "host" | "null" | "macvlan" | "ipvlan")
}

/// Whether a container may be on it now.
pub fn may_use_gateway(container: &Container, snapshot: &Snapshot) -> bool {
    let connected = container.endpoints.iter().filter(|e| !e.id.is_empty());
    let mut networks = connected.filter_map(|e| snapshot.networks.get(&e.network));
    container.running && networks.any(needs_gateway)
}

/// Forgets that a container was on it.
pub fn leave_gateway(snapshot: &mut Snapshot, container: &str) {
    for gateway in snapshot.networks.values_mut().filter(|n| is_gateway(n)) {
        gateway.endpoints.remove(container);
    }
}
