//! Taking over a running host: conversations that are older than the datapath go on.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use runtime_common::Protocol;
use runtime_common::maps::{ADDRESS_ENDPOINT, ALL_PROTOCOLS, LinkKey};
use runtime_common::packet::TCP;

use crate::datapath::{Seed, SeedKind};
use crate::host::{Socket, established};
use crate::model::live::Live;
use crate::model::{Port, Snapshot};
use crate::reconcile::{EndpointPlan, Plan};

/// The conversations of every served container that the rules of before and of now both allow.
pub fn seeds(plan: &Plan, snapshot: &Snapshot, live: &Live) -> Vec<Seed> {
    let mut found = Vec::new();
    let owners: HashMap<IpAddr, &EndpointPlan> =
        plan.endpoints.iter().flat_map(|e| e.addresses().map(move |a| (a, e))).collect();
    let running = || snapshot.containers.values().filter(|c| c.running && c.pid != 0);
    let mut connected = established(&running().map(|c| c.pid).collect::<Vec<_>>());
    for container in running() {
        // Gone meanwhile: it has no conversations.
        let Some(sockets) = connected.remove(&container.pid) else { continue };
        let published: HashSet<Port> = live.open_publications(container).map(|p| p.container_port).collect();
        for socket in sockets {
            let own = plan
                .endpoints_of(&container.id)
                .find(|e| e.address_like(&socket.local.ip()) == Some(socket.local.ip()));
            let Some(endpoint) = own else { continue };
            let is_published = published.contains(&Port::new(socket.local.port(), Protocol::Tcp));
            found.extend(seed(plan, &owners, endpoint, &socket, is_published));
        }
    }
    found
}

fn seed(
    plan: &Plan,
    owners: &HashMap<IpAddr, &EndpointPlan>,
    endpoint: &EndpointPlan,
    socket: &Socket,
    is_published: bool,
) -> Option<Seed> {
    let by_stack = Seed {
        local: socket.local,
        remote: socket.remote,
        protocol: socket.protocol,
        generation: endpoint.generation,
        kind: SeedKind::Stack { ifindex: endpoint.ifindex },
    };
    let remote: IpAddr = socket.remote.ip();
    let sibling = plan.desired.addresses.get(&remote.into()).is_some_and(|a| a.kind == ADDRESS_ENDPOINT);
    if !sibling {
        return Some(by_stack);
    }
    let key = LinkKey {
        recipient: socket.local.ip().into(),
        source: remote.into(),
        port: socket.remote.port().to_be(),
        protocol: socket.protocol,
        reserved: 0,
    };
    let all = LinkKey { port: 0, protocol: ALL_PROTOCOLS, ..key };
    if let Some(link) = plan.desired.links.get(&key).or_else(|| plan.desired.links.get(&all)) {
        let source = owners.get(&remote)?;
        return Some(Seed {
            generation: link.generation,
            kind: SeedKind::Link { recipient: (endpoint.ifindex, endpoint.mac), source: (source.ifindex, source.mac) },
            ..by_stack
        });
    }
    // A sibling that came through the host's address: the engine's rules carry it.
    (is_published && socket.protocol == TCP).then_some(by_stack)
}
