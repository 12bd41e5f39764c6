//! Links: what they open, and what a recipient's /etc/hosts says of them.

use std::collections::BTreeMap;

use runtime_common::maps::{ALL_PROTOCOLS, Link, LinkKey};
use runtime_common::packet::{ICMP, ICMPV6};

use super::endpoint::EndpointPlan;
use super::generation::generation;
use super::plan::{HostsPlan, Plan};
use super::swarm::is_gateway;
use crate::model::hosts::{is_writable, link_entries};
use crate::model::live::{EffectiveLink, Live};
use crate::model::{Container, Port, Snapshot};

/// What a container's links want: its hosts file, and on isolated networks what they open.
/// What they open is returned, to be opened where there is room for it.
pub(super) fn add_links(
    p: &mut Plan,
    snapshot: &Snapshot,
    live: &Live,
    recipient: &Container,
) -> BTreeMap<LinkKey, Link> {
    let mut opened = BTreeMap::new();
    let mut entries = Vec::new();
    for link in live.links_of(recipient) {
        let Some(source) = snapshot.containers.get(&link.link.source) else { continue };
        let ports = open_ports(source, live);
        let mut named = false;
        let is_own = |network: &str| snapshot.networks.get(network).is_some_and(|n| !is_gateway(n));
        if !is_writable(&link.link.alias) {
            let (name, alias) = (&recipient.name, &link.link.alias);
            p.problems.push(format!(
                "{name}: the alias {alias:?} of a link cannot stand in /etc/hosts: it is left out there"
            ));
        }
        let pairs: Vec<_> = p
            .endpoints_of(&recipient.id)
            .filter(|r| is_own(&r.network))
            .flat_map(|r| p.endpoints_of(&source.id).filter(|s| s.network == r.network).map(move |s| (r, s)))
            .map(|(r, s)| (r.clone(), s.clone()))
            .collect();
        for (r, s) in pairs {
            if !named {
                entries.extend(link_entries(&link.link.alias, source, s.ipv4, s.ipv6));
                named = true;
            }
            if r.isolated {
                open(&mut opened, &r, &s, &link, &ports);
            }
        }
    }
    let removed = live.removed_aliases(recipient);
    if let Some(path) = recipient.hosts_path.as_ref().filter(|_| !(entries.is_empty() && removed.is_empty())) {
        p.hosts.push(HostsPlan { container: recipient.id.clone(), path: path.clone(), entries, removed });
    }
    opened
}

/// What a link to this source opens: what it exposes, and what is published on it.
pub fn open_ports(source: &Container, live: &Live) -> Vec<Port> {
    let published = live.open_publications(source).map(|p| p.container_port);
    let mut ports: Vec<Port> = source.exposed.iter().copied().chain(published).collect();
    ports.sort();
    ports.dedup();
    ports
}

fn open(
    opened: &mut BTreeMap<LinkKey, Link>,
    r: &EndpointPlan,
    s: &EndpointPlan,
    link: &EffectiveLink,
    ports: &[Port],
) {
    let generation = generation(&[
        "link",
        &r.generation.to_string(),
        &s.generation.to_string(),
        &link.created.to_string(),
        if link.all_ports { "all" } else { "exposed" },
    ]);
    let value = Link { generation, rule: 0, reserved: 0 };
    for recipient in r.addresses() {
        let Some(source) = s.address_like(&recipient) else { continue };
        let key = |port: u16, protocol| LinkKey {
            recipient: recipient.into(),
            source: source.into(),
            port: port.to_be(),
            protocol,
            reserved: 0,
        };
        let echo = if recipient.is_ipv4() { ICMP } else { ICMPV6 };
        if link.all_ports {
            opened.entry(key(0, ALL_PROTOCOLS)).or_insert(value);
            continue;
        }
        for key in [key(0, echo)].into_iter().chain(ports.iter().map(|p| key(p.number, p.protocol.number()))) {
            opened.entry(key).or_insert(value);
        }
    }
}
