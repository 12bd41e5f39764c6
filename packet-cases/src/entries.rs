//! What a world's daemon writes into the maps: the host build and the kernel are filled from the same.

use runtime_common::Addr;
use runtime_common::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, ALL_PROTOCOLS, Address, ENDPOINT_ISOLATED, ENDPOINT_MASQUERADE_V4,
    ENDPOINT_MASQUERADE_V6, Endpoint, FILTER_ALLOW, FILTER_DENY, FilterKey, Limit, LinkKey, PREFIX_BROADCAST,
    PREFIX_HOST, PREFIX_ISOLATED, PREFIX_NETWORK, PUBLICATION_CLOSED, PUBLICATION_DEFER, PUBLICATION_FILTERED,
    PUBLICATION_HOST_TRANSLATES, PUBLICATION_LIMITED, PUBLICATION_LISTED_ONLY, PublicationKey,
};
use runtime_common::maps::{Link as LinkValue, Publication as PublicationValue};

use crate::world::{
    BROADCAST, CONTAINERS, Change, Container, DB, GATEWAYS, KNOWN, Name, Opens, PREFIXES, TWO, World, hosts, ip,
};

/// Entries of the maps, by name.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// `RULES`
    pub rules: Vec<(u32, u64)>,
    /// `ENDPOINTS`
    pub endpoints: Vec<(u32, Endpoint)>,
    /// `ADDRESSES`
    pub addresses: Vec<(Addr, Address)>,
    /// First bits of an address, and what those are.
    pub prefixes: Vec<(Addr, u8, u32)>,
    /// `PUBLICATIONS`
    pub publications: Vec<(PublicationKey, PublicationValue)>,
    /// `FILTERS`
    pub filters: Vec<(FilterKey, u32)>,
    /// `LIMITS`
    pub limits: Vec<(u64, Limit)>,
    /// `LINKS`
    pub links: Vec<(LinkKey, LinkValue)>,
}

/// Slots in `RULES`, and the generations that are there.
const fn rule_of_container(c: Name) -> (u32, u64) {
    (1 + c as u32, 100 + c as u64)
}
const fn rule_of_publication(n: usize) -> (u32, u64) {
    (20 + n as u32, 200 + n as u64)
}
const fn rule_of_link(n: usize) -> (u32, u64) {
    (60 + n as u32, 600 + n as u64)
}

/// The interface of a container, of those in the order of [`INTERFACES`](crate::world::INTERFACES).
pub fn interface(c: Name, ifindexes: &[u32; 9]) -> u32 {
    ifindexes[4 + c]
}

fn bridge(c: &Container, ifindexes: &[u32; 9]) -> u32 {
    ifindexes[2 + c.network]
}

fn endpoint(world: &World, c: Name, ifindexes: &[u32; 9]) -> Endpoint {
    let container = &CONTAINERS[c];
    let (rule, generation) = rule_of_container(c);
    let network = world.network(c);
    let mut flags = if network.isolated { ENDPOINT_ISOLATED } else { 0 };
    if network.masquerade {
        flags |= ENDPOINT_MASQUERADE_V4 | ENDPOINT_MASQUERADE_V6;
    }
    let gateway = |v6: usize| Addr::from(ip(GATEWAYS[container.network][v6]));
    Endpoint {
        generation,
        container: 1 + if world.shared && c == TWO { DB } else { c } as u64,
        ipv4: Addr::from(container.addr(true)),
        ipv6: Addr::from(container.addr(false)),
        gateway4: gateway(0),
        gateway6: gateway(1),
        rule,
        bridge: bridge(container, ifindexes),
        mac: container.mac,
        flags,
    }
}

/// What is said of a container's addresses.
pub fn addresses(ep: &Endpoint, ifindex: u32) -> [(Addr, Address); 2] {
    let value = Address { ifindex, bridge: ep.bridge, mac: ep.mac, kind: ADDRESS_ENDPOINT, flags: ep.flags as u8 };
    [(ep.ipv4, value), (ep.ipv6, value)]
}

impl Entries {
    /// Of a world whose interfaces have these indexes.
    pub fn of(world: &World, ifindexes: &[u32; 9]) -> Self {
        let mut e = Entries::default();
        for host in hosts() {
            e.addresses.push((Addr::from(*host), Address { kind: ADDRESS_HOST, ..Address::default() }));
        }
        for c in KNOWN.filter(|c| world.knows(*c)) {
            let ep = endpoint(world, c, ifindexes);
            let ifindex = interface(c, ifindexes);
            e.rules.push((ep.rule, ep.generation));
            e.addresses.extend(addresses(&ep, ifindex));
            e.endpoints.push((ifindex, ep));
        }
        for (network, prefixes) in world.networks.iter().zip(PREFIXES) {
            let kind = if network.isolated { PREFIX_ISOLATED } else { PREFIX_NETWORK };
            for (prefix, bits) in prefixes {
                e.prefix(prefix, bits, kind);
            }
        }
        e.prefix(BROADCAST, 32, PREFIX_BROADCAST);
        if world.local_prefix {
            e.prefix("10.99.0.0", 16, PREFIX_HOST);
            e.prefix("fd99::", 64, PREFIX_HOST);
        }
        for (n, p) in world.publications.iter().enumerate() {
            e.publish(p, rule_of_publication(n), ifindexes);
        }
        for (n, link) in world.links.iter().enumerate() {
            let (rule, generation) = rule_of_link(n);
            e.rules.push((rule, generation));
            let value = LinkValue { generation, rule, reserved: 0 };
            e.links.extend(link_keys(link).map(|key| (key, value)));
        }
        e
    }

    fn prefix(&mut self, prefix: &str, bits: u8, kind: u32) {
        let addr = ip(prefix);
        let mapped = if addr.is_ipv4() { 96 } else { 0 };
        self.prefixes.push((Addr::from(addr), mapped + bits, kind));
    }

    fn publish(&mut self, p: &crate::world::Publication, (rule, generation): (u32, u64), ifindexes: &[u32; 9]) {
        let policy = &p.policy;
        let mut flags = 0;
        for (set, flag) in [
            (policy.closed, PUBLICATION_CLOSED),
            (policy.ask, PUBLICATION_DEFER),
            (policy.ask && policy.translates, PUBLICATION_HOST_TRANSLATES),
            (!policy.only.is_empty() || !policy.not.is_empty(), PUBLICATION_FILTERED),
            (!policy.only.is_empty(), PUBLICATION_LISTED_ONLY),
            (policy.limit.is_some(), PUBLICATION_LIMITED),
        ] {
            flags |= if set { flag } else { 0 };
        }
        // Another number than the generation: nothing may take one for the other.
        let list = !generation;
        let container = &CONTAINERS[p.to];
        let value = PublicationValue {
            generation,
            list,
            addr: Addr::from(container.addr(p.host.is_ipv4())),
            rule,
            ifindex: interface(p.to, ifindexes),
            bridge: bridge(container, ifindexes),
            port: p.container_port.to_be(),
            flags,
            mac: container.mac,
            reserved: 0,
        };
        self.rules.push((rule, generation));
        self.publications.push((publication_key(p), value));
        for (sources, what) in [(&policy.only, FILTER_ALLOW), (&policy.not, FILTER_DENY)] {
            self.filters.extend(sources.iter().map(|a| (FilterKey { list, addr: Addr::from(*a) }, what)));
        }
        self.limits.extend(policy.limit.map(|per_second| (generation, Limit::full(per_second))));
    }
}

/// Key of a publication.
pub fn publication_key(p: &crate::world::Publication) -> PublicationKey {
    PublicationKey { addr: Addr::from(p.host), port: p.port.to_be(), protocol: p.protocol, reserved: 0 }
}

/// Keys of a link: of both families.
pub fn link_keys(link: &crate::world::Link) -> impl Iterator<Item = LinkKey> {
    let (recipient, source, opens) = (&CONTAINERS[link.recipient], &CONTAINERS[link.source], link.opens);
    [true, false].into_iter().map(move |v4| {
        let (port, protocol) = match opens {
            Opens::Port(port, protocol) => (port, protocol),
            Opens::Ping => (0, if v4 { 1 } else { 58 }),
            Opens::All => (0, ALL_PROTOCOLS),
        };
        LinkKey {
            recipient: Addr::from(recipient.addr(v4)),
            source: Addr::from(source.addr(v4)),
            port: port.to_be(),
            protocol,
            reserved: 0,
        }
    })
}

/// What a change does to the maps.
#[derive(Default)]
pub struct Removed {
    /// Slots in `RULES`.
    pub rules: Vec<u32>,
    /// Keys of `PUBLICATIONS`.
    pub publications: Vec<PublicationKey>,
    /// Keys of `LINKS`.
    pub links: Vec<LinkKey>,
    /// Interface and addresses.
    pub endpoint: Option<(u32, [Addr; 2])>,
    /// Interface, and whoever has it instead.
    pub another: Option<(u32, Endpoint)>,
}

impl Removed {
    /// Of a world as it began; `n` is a number that no change of it had before.
    pub fn by(change: &Change, n: u64, world: &World, ifindexes: &[u32; 9]) -> Self {
        let mut removed = Removed::default();
        match change {
            Change::Unpublish(n) => removed.publication(*n, world),
            Change::Unlink(n) => removed.link(*n, world),
            // With everything that leads to it.
            Change::Gone(c) | Change::Another(c) => {
                let ends = |n: &usize| world.publications[*n].to == *c;
                (0..world.publications.len()).filter(ends).for_each(|n| removed.publication(n, world));
                let ends = |n: &usize| world.links[*n].recipient == *c || world.links[*n].source == *c;
                (0..world.links.len()).filter(ends).for_each(|n| removed.link(n, world));
                removed.rules.push(rule_of_container(*c).0);
                let addrs = [true, false].map(|v4| Addr::from(CONTAINERS[*c].addr(v4)));
                removed.endpoint = Some((interface(*c, ifindexes), addrs));
                if matches!(change, Change::Another(_)) && world.knows(*c) {
                    let mut another = endpoint(world, *c, ifindexes);
                    another.generation += 1000 * n;
                    another.container += 1000 * n;
                    removed.another = Some((interface(*c, ifindexes), another));
                }
            }
        }
        removed
    }

    fn publication(&mut self, n: usize, world: &World) {
        self.rules.push(rule_of_publication(n).0);
        self.publications.push(publication_key(&world.publications[n]));
    }

    fn link(&mut self, n: usize, world: &World) {
        self.rules.push(rule_of_link(n).0);
        self.links.extend(link_keys(&world.links[n]));
    }
}
