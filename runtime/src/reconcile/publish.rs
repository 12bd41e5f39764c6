//! What a container publishes, as the maps are to say it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use ipnet::IpNet;
use runtime_common::maps::{
    FILTER_ALLOW, FILTER_DENY, PUBLICATION_CLOSED, PUBLICATION_DEFER, PUBLICATION_FILTERED, PUBLICATION_FROM_LOOPBACK,
    PUBLICATION_HOST_TRANSLATES, PUBLICATION_LIMITED, PUBLICATION_LISTED_ONLY, Publication, PublicationKey,
};
use runtime_common::{Addr, Protocol};

use super::cache::{Basis, Made};
use super::endpoint::{OwnEndpoint, own_target};
use super::generation::Identity;
use super::relay::{self, Relay, RelayKey};
use crate::datapath::{Published, Sources};
use crate::model::filter::Filter;
use crate::model::live::EffectivePublication;

/// What of a container's is published, and what is wrong with it. `lists` are the lists of sources that are known already.
pub(super) fn publish(basis: &Basis, lists: &mut HashMap<u64, Arc<Sources>>) -> Made {
    let mut made = Published::default();
    let mut relays = Vec::new();
    let mut problems = Vec::new();
    let mut conditions: Option<Conditions> = None;
    let (container, endpoints) = (&basis.container, &basis.endpoints);
    let begun = Identity::default().with("publication").with(&container.id);
    let begun_closed = Identity::default().with("closed").with("publication").with(&container.id);
    for EffectivePublication { publication, created, filter, closed } in basis.publications() {
        let key = PublicationKey {
            addr: publication.host_addr.into(),
            port: publication.host_port.to_be(),
            protocol: publication.container_port.protocol.number(),
            reserved: 0,
        };
        let port = publication.container_port;
        let identity =
            |begun: Identity| begun.with(publication.host_addr).with(publication.host_port).with(port).with(created);
        let close = || {
            let generation = identity(begun_closed).generation();
            (key, Publication { generation, flags: PUBLICATION_CLOSED, ..Publication::default() })
        };
        if closed {
            made.publications.push(close());
            continue;
        }
        let target = own_target(endpoints, &publication.host_addr);
        let target = target.or_else(|| relay::target(endpoints, &publication));
        let Some((endpoint, address)) = target else { continue };
        if port.protocol == Protocol::Sctp && port.number != publication.host_port {
            problems.push(format!(
                "{}: {}:{} -> {port}: SCTP ports cannot be rewritten; publish it on the same port",
                container.name, publication.host_addr, publication.host_port
            ));
            continue;
        }
        // What cannot be understood must not be served as if nothing had been said.
        let filter = match filter {
            Ok(filter) => filter,
            Err(reason) => {
                problems.push(format!("{}: its published ports are closed: {reason}", container.name));
                made.publications.push(close());
                continue;
            }
        };
        // Ports that come one after the other have the very same.
        let conditions = match conditions.take().filter(|known| Arc::ptr_eq(&known.filter, &filter)) {
            Some(known) => conditions.insert(known),
            None => conditions.insert(Conditions::of(&filter, lists)),
        };
        let generation = identity(begun).with(endpoint.plan.generation).with(conditions.number()).generation();
        if let (IpAddr::V4(address), Some(key)) = (address, RelayKey::of(&publication)) {
            let live = created != 0;
            let to = SocketAddrV4::new(address, port.number);
            relays.push((key, Relay { container: container.id.clone(), to, filter, generation, live }));
            continue;
        }
        let entry = Publication {
            generation,
            list: conditions.add(&mut made, generation),
            addr: address.into(),
            rule: 0,
            ifindex: endpoint.plan.ifindex,
            bridge: endpoint.plan.bridge,
            port: port.number.to_be(),
            flags: conditions.flags
                | from_loopback(endpoint, &address)
                | ask(basis, publication.host_port, SocketAddr::new(address, port.number), port.protocol),
            mac: endpoint.plan.mac,
            reserved: 0,
        };
        made.publications.push((key, entry));
    }
    // A filter that cannot be understood is the same for all of them.
    problems.dedup();
    made.sort();
    relays.sort_by_key(|(key, _)| *key);
    Made { published: Arc::new(made), relays: relays.into(), problems: problems.into() }
}

/// The flags of a publication whose conversations the host's firewall has to let through.
fn ask(basis: &Basis, host_port: u16, to: SocketAddr, protocol: Protocol) -> u16 {
    match &basis.asked {
        None => 0,
        Some(rules) if rules.translates(protocol.name(), host_port, to) => {
            PUBLICATION_DEFER | PUBLICATION_HOST_TRANSLATES
        }
        Some(_) => PUBLICATION_DEFER,
    }
}

/// Who may use a publication, and how often, as the maps say it.
struct Conditions {
    filter: Arc<Filter>,
    flags: u16,
    /// The list of sources with its number; none where no source is named.
    list: Option<(u64, Arc<Sources>)>,
}

impl Conditions {
    fn of(filter: &Arc<Filter>, lists: &mut HashMap<u64, Arc<Sources>>) -> Self {
        let mut flags = 0;
        if filter.names_sources() {
            flags |= PUBLICATION_FILTERED;
        }
        if !filter.allow.is_empty() {
            flags |= PUBLICATION_LISTED_ONLY;
        }
        if filter.max_rate.is_some() {
            flags |= PUBLICATION_LIMITED;
        }
        let list = filter.names_sources().then(|| {
            let sources = sources(filter);
            let mut identity = Identity::default().with("sources");
            for ((addr, bits), value) in &sources {
                identity = identity.with(addr).with(bits).with(value);
            }
            let number = identity.generation();
            let known = lists.entry(number).or_insert_with(|| Arc::new(sources.clone()));
            (number, if **known == sources { known.clone() } else { Arc::new(sources) })
        });
        Conditions { filter: filter.clone(), flags, list }
    }

    /// The number that stands for them: another one where anything of them is another.
    fn number(&self) -> u64 {
        let list = self.list.as_ref().map_or(0, |(number, _)| *number);
        let rate = self.filter.max_rate.unwrap_or_default();
        Identity::default().with(list).with(self.flags).with(rate).generation()
    }

    /// Puts those of a publication into the plan; returns the number of its list.
    fn add(&self, published: &mut Published, generation: u64) -> u64 {
        if let Some(rate) = self.filter.max_rate {
            published.limits.insert(generation, rate);
        }
        let Some((number, sources)) = &self.list else { return 0 };
        published.lists.entry(*number).or_insert_with(|| sources.clone());
        *number
    }
}

/// The sources that a filter names. Denied last: where both name the same prefix, that stays.
fn sources(filter: &Filter) -> Sources {
    let mut found = BTreeMap::new();
    for (nets, value) in [(&filter.allow, FILTER_ALLOW), (&filter.deny, FILTER_DENY)] {
        for net in nets {
            // An IPv4 prefix lies behind the 96 bits that every mapped address begins with.
            let bits = u32::from(net.prefix_len()) + if matches!(net, IpNet::V4(_)) { 96 } else { 0 };
            found.insert((Addr::from(net.network()), bits), value);
        }
    }
    found
}

/// Whether the host's sockets that are bound to a loopback address reach the container.
fn from_loopback(endpoint: &OwnEndpoint, address: &IpAddr) -> u16 {
    // IPv6 needs no leave of the bridge: its answers do not come through it.
    if address.is_ipv6() || endpoint.routes_loopback { PUBLICATION_FROM_LOOPBACK } else { 0 }
}
