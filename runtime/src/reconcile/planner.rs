//! The plan: which interfaces are what, what the maps are to say, and what /etc/hosts of recipients is to say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use runtime_common::Addr;
use runtime_common::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, Address, ENDPOINT_ISOLATED, Endpoint, Link, LinkKey, PREFIX_BROADCAST, PREFIX_HOST,
    PREFIX_ISOLATED, PREFIX_NETWORK, Uplink,
};

use super::cache::{Basis, Cache, Made};
use super::endpoint::EndpointPlan;
use super::generation::generation;
use super::links::add_links;
use super::options::{ISOLATE_LABEL, Isolate, Options};
use super::plan::Plan;
use super::publish::publish;
use super::{quota, swarm, uplinks};
use crate::datapath::{Desired, Role, Sources};
use crate::host::{Host, Interface};
use crate::model::live::Live;
use crate::model::{Container, Network, Snapshot};

/// Makes the plan. `cache` is the one of the plan before; it makes no difference but to the time that it takes.
pub fn plan(snapshot: &Snapshot, host: &Host, live: &Live, options: &Options, cache: &mut Cache) -> Plan {
    let mut p = Plan::default();
    for network in snapshot.networks.values().filter(|n| is_served(n)) {
        add_network(&mut p, snapshot, host, network, options);
    }
    // As many as there are containers: found by their order from here on.
    p.endpoints.sort_by(|a, b| a.container.cmp(&b.container));
    uplinks::add(&mut p, snapshot, host, options);
    for (address, length) in host.own_addresses() {
        if length == if address.is_ipv4() { 32 } else { 128 } {
            p.desired.addresses.insert(address.into(), Address { kind: ADDRESS_HOST, ..Address::default() });
        } else if let Ok(net) = IpNet::new(address, length) {
            p.desired.prefixes.insert(prefix_key(&net), PREFIX_HOST);
        }
    }
    // Those of containers' networks are addresses of theirs that nobody has.
    let subnets: Vec<IpNet> =
        snapshot.networks.values().flat_map(|n| &n.subnets).filter_map(|s| s.parse().ok()).collect();
    for broadcast in host.broadcasts.iter().copied().map(IpAddr::from) {
        if !subnets.iter().any(|s| s.contains(&broadcast)) {
            p.desired.prefixes.insert(prefix_key(&broadcast.into()), PREFIX_BROADCAST);
        }
    }
    let changed: HashSet<&str> = live.publications.iter().map(|l| l.container.as_str()).collect();
    let mut used = cache.next();
    let mut parts: Vec<(&Container, Made)> = Vec::new();
    for container in snapshot.containers.values() {
        if !container.publications.is_empty() || changed.contains(container.id.as_str()) {
            for basis in Basis::all_of(&p, snapshot, host, live, options, container) {
                let made = cache.take(&basis).unwrap_or_else(|| publish(&basis, &mut used.lists));
                parts.push((container, made.clone()));
                used.keep(basis, made);
            }
        }
    }
    used.forget_lists();
    *cache = used;
    // Without its endpoint nothing of a container is open.
    p.refused = refuse(&p, snapshot, &parts);
    p.endpoints.retain(|e| !p.refused.contains_key(&e.container));
    for endpoint in &p.endpoints {
        add_endpoint(&mut p.desired, host, endpoint);
    }
    for (_, made) in parts.iter().filter(|(c, _)| !p.refused.contains_key(&c.id)) {
        p.problems.extend(made.problems.iter().cloned());
        p.desired.published.push(made.published.clone());
        p.relays.push(&made.relays);
    }
    let opened = snapshot.containers.values().map(|c| (c, add_links(&mut p, snapshot, live, c))).collect();
    open_links(&mut p, opened);
    p.problems.extend(p.refused.values().chain(p.closed_links.values()).cloned());
    p
}

/// Who is served nothing, since the kernel's tables have no room for what it wants: a line for each, by the container's id.
fn refuse(p: &Plan, snapshot: &Snapshot, parts: &[(&Container, Made)]) -> BTreeMap<String, String> {
    let by_container = || parts.chunk_by(|(a, _), (b, _)| a.id == b.id).filter_map(|c| Some((c.first()?.0, c)));
    let total =
        |count: fn(&Made) -> usize| by_container().map(move |(c, all)| (c, all.iter().map(|(_, m)| count(m)).sum()));
    let mut refused = quota::refuse(&quota::PUBLICATIONS, total(|m| m.published.publications.len() + m.relays.len()));
    refused.extend(quota::refuse(&quota::LIMITS, total(|m| m.published.limits.len())));
    refused.extend(quota::refuse_lists(&quota::FILTERS, by_container().map(|(c, all)| (c, lists_of(all)))));
    let endpoints = p.endpoints.chunk_by(|a, b| a.container == b.container);
    let endpoints = endpoints.filter_map(|e| Some((snapshot.containers.get(&e.first()?.container)?, e.len())));
    refused.extend(quota::refuse(&quota::ENDPOINTS, endpoints));
    for (id, line) in &mut refused {
        let name = snapshot.containers.get(id).map_or(id.as_str(), |c| c.name.as_str());
        *line = format!("container {name} is closed: {line}");
    }
    refused
}

/// The lists of sources of a container, by their numbers.
fn lists_of<'m>(parts: &'m [(&Container, Made)]) -> BTreeMap<u64, &'m Arc<Sources>> {
    parts.iter().flat_map(|(_, made)| made.published.lists.iter().map(|(number, list)| (*number, list))).collect()
}

/// Opens what links open, as far as there is room for it.
fn open_links(p: &mut Plan, opened: Vec<(&Container, BTreeMap<LinkKey, Link>)>) {
    let refused = quota::refuse(&quota::LINKS, opened.iter().map(|(c, links)| (*c, links.len())));
    for (container, links) in opened {
        match refused.get(&container.id) {
            Some(line) => {
                let line = format!("container {}: its links open nothing: {line}", container.name);
                p.closed_links.insert(container.id.clone(), line);
            }
            None => p.desired.links.extend(links),
        }
    }
}

/// Whether the datapath has anything to do with a network.
fn is_served(network: &Network) -> bool {
    network.driver == "bridge"
}

fn is_isolated(network: &Network, options: &Options) -> bool {
    match options.isolate {
        Isolate::All => true,
        Isolate::None => false,
        Isolate::Default => network.is_default_bridge || network.labels.get(ISOLATE_LABEL).is_some_and(|v| v == "true"),
    }
}

/// The interfaces of a network, and whose they are. One that is nobody's (yet) stays closed.
fn add_network(p: &mut Plan, snapshot: &Snapshot, host: &Host, network: &Network, options: &Options) {
    let Some(bridge) = network.bridge.as_deref().and_then(|name| host.by_name(name)) else {
        // The engine makes the bridge with the network, but one that was lost comes back only with its next start.
        if network.endpoints.values().any(|e| !e.id.is_empty()) {
            let bridge = network.bridge.as_deref().unwrap_or("(it has no name)");
            p.problems.push(format!("network {}: its bridge {bridge} is not there", network.name));
        }
        return;
    };
    let others = || host.interfaces.values().filter(|i| i.master == Some(bridge.index) && !i.is_veth);
    if others().next().is_none() {
        // Written with the network: its containers are protected before anybody has told of them.
        let kind = if is_isolated(network, options) { PREFIX_ISOLATED } else { PREFIX_NETWORK };
        for subnet in network.subnets.iter().filter_map(|s| s.parse::<IpNet>().ok()) {
            p.desired.prefixes.insert(prefix_key(&subnet), kind);
        }
    }
    // By a port that is no container's, a network card perhaps, comes who is outside: he may have such an address, be the containers'
    // router, and answer them. No program stands there: at the gate he is as closed out as anybody from outside.
    for port in others() {
        let entry = Uplink { bridge_mac: bridge.mac, is_port: 1, ..Uplink::default() };
        p.desired.uplinks.insert(port.index, entry);
    }
    let by = options.masquerade.of(network, &host.nat);
    p.masquerade.insert(network.name.clone(), by);
    let ports = host.interfaces.values().filter(|i| i.master == Some(bridge.index) && i.is_veth);
    // What is nobody's on the bridge of Swarm is the engine's own, which balances its services' load there.
    let closed = !swarm::is_gateway(network);
    let mut strangers: BTreeMap<u32, &str> =
        ports.clone().filter(|_| closed).map(|i| (i.index, i.name.as_str())).collect();
    p.roles.extend(ports.clone().filter(|_| closed).map(|port| (port.index, of_endpoint(port))));
    // The first one of each: containers are many, and so are interfaces.
    let (mut by_namespace, mut by_mac): (HashMap<i32, &Interface>, HashMap<[u8; 6], &Interface>) = Default::default();
    for port in ports {
        if let Some((namespace, _)) = port.peer {
            by_namespace.entry(namespace).or_insert(port);
        }
        if let Some(mac) = host.peer_macs.get(&port.index) {
            by_mac.entry(*mac).or_insert(port);
        }
    }
    for container in snapshot.containers.values() {
        // The network knows an endpoint before the engine answers questions about the container itself.
        let own = container.endpoints.iter().find(|e| e.network == network.id && container.running);
        let Some(e) = network.endpoints.get(&container.id).or(own).filter(|e| !e.id.is_empty()) else { continue };
        let (Some(mac), true) = (e.mac, e.ipv4.is_some() || e.ipv6.is_some()) else { continue };
        let port = match host.namespaces.get(&container.id) {
            Some(namespace) => by_namespace.get(namespace),
            None => by_mac.get(&mac),
        };
        let Some(port) = port else { continue };
        strangers.remove(&port.index);
        p.roles.entry(port.index).or_insert_with(|| of_endpoint(port));
        p.endpoints.push(EndpointPlan {
            container: container.id.clone(),
            network: network.id.clone(),
            isolated: is_isolated(network, options),
            masquerade: options.masquerade.flags(by),
            ifindex: port.index,
            bridge: bridge.index,
            mac,
            ipv4: e.ipv4,
            ipv6: e.ipv6,
            // Without the network's id: the engine makes its default bridge anew when it restarts, under running containers.
            generation: generation(&["endpoint", &container.id, &e.id]),
        });
    }
    for name in strangers.values() {
        p.problems.push(format!(
            "interface {name} on network {} is no container's that is known: it is closed",
            network.name
        ));
    }
}

fn of_endpoint(port: &Interface) -> Role {
    Role { name: port.name.clone(), uplink: false, tunnel: false, bridge_port: false }
}

/// Key of `PREFIXES`: addresses of IPv4 are mapped, and begin with 96 bits that all have.
fn prefix_key(net: &IpNet) -> (Addr, u32) {
    let mapped = if matches!(net, IpNet::V4(_)) { 96 } else { 0 };
    (net.network().into(), mapped + u32::from(net.prefix_len()))
}

fn add_endpoint(desired: &mut Desired, host: &Host, e: &EndpointPlan) {
    let flags = e.masquerade | if e.isolated { ENDPOINT_ISOLATED } else { 0 };
    let gateway =
        |v4: bool| host.addresses_of(e.bridge).find(|a| a.is_ipv4() == v4 && crate::host::is_global(a)).map(Addr::from);
    let entry = Endpoint {
        generation: e.generation,
        container: generation(&["container", &e.container]),
        ipv4: e.ipv4.map(Addr::from).unwrap_or_default(),
        ipv6: e.ipv6.map(Addr::from).unwrap_or_default(),
        gateway4: gateway(true).unwrap_or_default(),
        gateway6: gateway(false).unwrap_or_default(),
        rule: 0,
        bridge: e.bridge,
        mac: e.mac,
        flags,
    };
    desired.endpoints.insert(e.ifindex, entry);
    for address in e.addresses() {
        let entry =
            Address { ifindex: e.ifindex, bridge: e.bridge, mac: e.mac, kind: ADDRESS_ENDPOINT, flags: flags as u8 };
        desired.addresses.insert(address.into(), entry);
    }
}
