//! Worlds and packets by chance: always the same for the same seed.
//!
//! Most packets have to do with what the world serves, or with packets before them: answers, errors about them, the next hook on
//! their way, somebody else's answers. The host build is run along, to know what became of those.

use std::net::IpAddr;

use fastrand::Rng;

use crate::host::Host;
use crate::packet::{ACK, Body, Edit, FIN, Ip, L4, PSH, Packet, RST, SYN};
use crate::world::{
    At, CONTAINERS, Case, Change, Container, Event, Fate, KNOWN, Link, NAMES, NEW, Name, Network, Opens, Outcome,
    Policy, Publication, World, ip, named, nth_address,
};

/// Ports that clients use: few, so that conversations meet.
const CLIENT_PORTS: [u16; 5] = [40000, 40001, 8080, 53, 6000];
/// Ports that are published and served.
const SERVER_PORTS: [u16; 4] = [8080, 8081, 53, 80];

/// A packet that was somewhere, as it was afterwards.
struct Seen {
    at: At,
    before: Packet,
    after: Option<Ip>,
}

struct Generator {
    rng: Rng,
    world: World,
    host: Host,
    seen: Vec<Seen>,
}

/// The number of a case's own random numbers: of a seed and the case's number.
fn seed_of(seed: u64, n: u64) -> u64 {
    // Neighbours are to have nothing in common (splitmix64, Vigna 2015).
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// How many cases in a row share a world: the kernel's maps take longer to fill than to ask.
pub const CASES_OF_A_WORLD: u64 = 16;

/// A case, and what the host build with these interfaces made of each of its packets, and of the tables.
pub fn case(seed: u64, n: u64, ifindexes: [u32; 9]) -> (Case, Vec<Outcome>, Host) {
    let world = world(&mut Rng::with_seed(seed_of(seed ^ 0x5eed, n / CASES_OF_A_WORLD)));
    let host = Host::with(&world, ifindexes);
    let mut g = Generator { rng: Rng::with_seed(seed_of(seed, n)), host, world, seen: vec![] };
    let (mut events, mut outcomes) = (vec![], vec![]);
    let most = if g.one_in(8) { 25 } else { 9 };
    for _ in 0..g.rng.usize(1..most) {
        if g.rng.u8(0..100) < 6
            && let Some(change) = g.change()
        {
            g.host.change(&change);
            events.push(Event::Change(change));
            continue;
        }
        let (at, packet) = g.packet();
        let bytes = packet.bytes(at.macs());
        let outcome = g.host.run(at, &bytes);
        let after = packet.ip().filter(|_| packet.edits.is_empty()).map(|ip| observed(ip, &outcome));
        g.seen.push(Seen { at, before: packet.clone(), after });
        events.push(Event::Packet(at, packet));
        outcomes.push(outcome);
    }
    (Case { world: g.world, events }, outcomes, g.host)
}

fn world(rng: &mut Rng) -> World {
    let mut world = World {
        networks: [70, 40].map(|isolated| Network { isolated: rng.u8(0..100) < isolated, masquerade: rng.bool() }),
        shared: rng.u8(0..4) == 0,
        local_prefix: rng.u8(0..8) == 0,
        learning: rng.u8(0..20) == 0,
        ..World::default()
    };
    if rng.u8(0..8) == 0 {
        world.unknown.push(rng.usize(KNOWN));
    }
    if rng.u8(0..6) == 0 {
        world.sockets.push(6000);
    }
    let known: Vec<Name> = KNOWN.filter(|c| world.knows(*c)).collect();
    for _ in 0..rng.usize(0..6) {
        let host = ip(rng.choice(["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"]).unwrap());
        let protocol = rng.choice([6, 6, 17, 17, 132]).unwrap();
        let port = rng.choice(SERVER_PORTS).unwrap();
        if world.publications.iter().any(|p| (p.host, p.port, p.protocol) == (host, port, protocol)) {
            continue;
        }
        // SCTP keeps its port: its checksum covers it.
        let container_port = if protocol == 132 { port } else { rng.choice(SERVER_PORTS).unwrap() };
        let policy = policy(rng, host.is_ipv4());
        let to = rng.choice(known.iter().copied()).unwrap();
        world.publications.push(Publication { host, port, protocol, to, container_port, policy });
    }
    for _ in 0..rng.usize(0..4) {
        let (recipient, source) =
            (rng.choice(known.iter().copied()).unwrap(), rng.choice(known.iter().copied()).unwrap());
        let opens = match rng.u8(0..4) {
            0 => Opens::All,
            1 => Opens::Ping,
            _ => Opens::Port(rng.choice(SERVER_PORTS).unwrap(), rng.choice([6, 17, 132]).unwrap()),
        };
        let link = Link { recipient, source, opens };
        if recipient != source && !world.links.contains(&link) {
            world.links.push(link);
        }
    }
    world
}

fn policy(rng: &mut Rng, v4: bool) -> Policy {
    let mut policy = Policy::default();
    let source = |rng: &mut Rng| named(rng.choice(["client", "far", "db", "one"]).unwrap(), v4).unwrap();
    match rng.u8(0..16) {
        0 => policy.closed = true,
        1 | 2 => policy.ask = true,
        3 => (policy.ask, policy.translates) = (true, true),
        4 => policy.only.push(source(rng)),
        5 => policy.not.push(source(rng)),
        6 => policy.limit = Some(rng.u32(1..3)),
        _ => {}
    }
    policy
}

/// An IP packet as it was after the outcome: other addresses and ports.
pub(crate) fn observed(before: &Ip, outcome: &Outcome) -> Ip {
    let mut ip = before.clone();
    let out = &outcome.packet;
    if outcome.fate == Fate::Back || out.len() < 34 {
        return ip;
    }
    let fragment = usize::from(ip.fragment.is_some() && !ip.extensions.contains(&44));
    let (addresses, header) = match ip.is_v4() {
        true => (26..34, 20 + ip.options.len()),
        false => (22..54, 40 + 8 * (ip.extensions.len() + fragment)),
    };
    let l4 = 14 + header;
    let Some(bytes) = out.get(addresses) else {
        return ip;
    };
    let (src, dst) = bytes.split_at(bytes.len() / 2);
    let addr = |b: &[u8]| -> IpAddr {
        match <[u8; 4]>::try_from(b) {
            Ok(a) => a.into(),
            Err(_) => <[u8; 16]>::try_from(b).unwrap().into(),
        }
    };
    (ip.src, ip.dst) = (addr(src), addr(dst));
    if ip.fragment.is_some_and(|(first, ..)| first != 0) {
        return ip;
    }
    let Some(ports) = out.get(l4..l4 + 8) else {
        return ip;
    };
    let word = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    match &mut ip.l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } | L4::Sctp { sport, dport } => {
            (*sport, *dport) = (word(0), word(2));
        }
        L4::Icmp { rest, .. } => rest.copy_from_slice(&ports[4..8]),
        L4::Raw(_) => {}
    }
    ip
}

/// The container with an address.
pub(crate) fn owner(a: IpAddr) -> Option<Name> {
    CONTAINERS.iter().position(|c: &Container| c.addr(a.is_ipv4()) == a)
}

impl Generator {
    fn one_in(&mut self, n: u8) -> bool {
        self.rng.u8(0..n) == 0
    }

    fn change(&mut self) -> Option<Change> {
        match self.rng.u8(0..4) {
            0 if !self.world.publications.is_empty() => {
                Some(Change::Unpublish(self.rng.usize(0..self.world.publications.len())))
            }
            1 if !self.world.links.is_empty() => Some(Change::Unlink(self.rng.usize(0..self.world.links.len()))),
            2 => Some(Change::Gone(self.rng.usize(KNOWN))),
            3 => Some(Change::Another(self.rng.usize(KNOWN))),
            _ => None,
        }
    }

    fn packet(&mut self) -> (At, Packet) {
        let (at, mut packet) = match self.rng.u8(0..100) {
            0..45 if !self.seen.is_empty() => self.follow_up(),
            0..80 => self.new_flow(),
            80..85 => self.neighbours(),
            _ => self.soup(),
        };
        if self.one_in(6) {
            self.spoil(&mut packet);
        }
        (at, packet)
    }

    fn addr(&mut self, v4: bool) -> IpAddr {
        nth_address(self.rng.usize(0..NAMES.len()), v4)
    }

    /// Addresses that clients have.
    fn outside(&mut self, v4: bool) -> IpAddr {
        named(self.rng.choice(["client", "client", "far", "stranger"]).unwrap(), v4).unwrap()
    }

    fn at_uplink(&mut self) -> At {
        if self.one_in(4) { At::Xdp } else { At::Uplink }
    }

    /// The first packet of a protocol to a port.
    fn first(&mut self, src: IpAddr, dst: IpAddr, dport: u16, protocol: u8) -> Ip {
        let sport = self.rng.choice(CLIENT_PORTS).unwrap();
        let flags = match self.rng.u8(0..10) {
            0 => ACK,
            1 => *[RST, RST | ACK, SYN | ACK, FIN | ACK, ACK | PSH].get(self.rng.usize(0..5)).unwrap(),
            _ => SYN,
        };
        let l4 = match protocol {
            6 => L4::Tcp { sport, dport, flags, seq: 1000, ack: if flags & ACK != 0 { 2 } else { 0 } },
            17 => L4::Udp { sport, dport, checksum: !self.one_in(8) },
            132 => L4::Sctp { sport, dport },
            _ => L4::Icmp { kind: if src.is_ipv4() { 8 } else { 128 }, code: 0, rest: [0, self.rng.u8(0..3), 0, 1] },
        };
        Ip::new(src, dst, l4)
    }

    fn new_flow(&mut self) -> (At, Packet) {
        let v4 = self.rng.bool();
        let protocol = self.rng.choice([6, 6, 17, 17, 132, 1]).unwrap();
        let port = self.rng.choice(SERVER_PORTS).unwrap();
        match self.rng.u8(0..6) {
            // To a published port, from outside or from a container.
            0..3 if !self.world.publications.is_empty() => {
                let p = self.rng.choice(self.world.publications.iter()).unwrap().clone();
                let v4 = p.host.is_ipv4();
                let host = if p.host.is_unspecified() {
                    named(self.rng.choice(["host", "host", "gateway0", "gateway1", "routed"]).unwrap(), v4).unwrap()
                } else {
                    p.host
                };
                if self.one_in(3) {
                    let c = self.rng.usize(0..5);
                    let src = CONTAINERS[c].addr(v4);
                    return (At::From(c), self.first(src, host, p.port, p.protocol).into());
                }
                let src = self.outside(v4);
                (self.at_uplink(), self.first(src, host, p.port, p.protocol).into())
            }
            // Between containers, mostly along a link.
            3 => {
                let (mut a, mut b) = (self.rng.usize(0..5), self.rng.usize(0..5));
                let (mut port, mut protocol) = (port, protocol);
                if !self.world.links.is_empty() && !self.one_in(3) {
                    let link = *self.rng.choice(self.world.links.iter()).unwrap();
                    (a, b) = (link.recipient, link.source);
                    match link.opens {
                        Opens::Port(p, q) => (port, protocol) = (p, q),
                        Opens::Ping => protocol = 1,
                        Opens::All => {}
                    }
                }
                let first = self.first(CONTAINERS[a].addr(v4), CONTAINERS[b].addr(v4), port, protocol);
                if self.one_in(5) {
                    let interface = 4 + a;
                    return (At::To(b, Some(interface)), first.into());
                }
                (At::From(a), first.into())
            }
            // From a container to the outside.
            4 => {
                let c = self.rng.usize(0..5);
                let dst = self.outside(v4);
                (At::From(c), self.first(CONTAINERS[c].addr(v4), dst, port, protocol).into())
            }
            // To a container directly.
            _ => {
                let c = self.rng.usize(0..5);
                let dst = CONTAINERS[c].addr(v4);
                let src = if self.one_in(3) { self.addr(v4) } else { self.outside(v4) };
                let first = self.first(src, dst, port, protocol).into();
                match self.rng.u8(0..4) {
                    0 => (self.at_uplink(), first),
                    1 => (At::To(c, None), first),
                    2 => (At::To(c, Some(1)), first),
                    _ => (At::To(c, Some(0)), first),
                }
            }
        }
    }

    /// Something that has to do with an earlier packet.
    fn follow_up(&mut self) -> (At, Packet) {
        // Mostly the last one: conversations are to go on.
        let last = self.seen.len() - 1;
        let index = if self.rng.bool() { last } else { self.rng.usize(0..=last) };
        let (at, before, after) = {
            let seen = &self.seen[index];
            (seen.at, seen.before.clone(), seen.after.clone())
        };
        let Some(after) = after else {
            return (at, before);
        };
        let there = match owner(after.dst) {
            Some(c) => At::From(c),
            None => self.at_uplink(),
        };
        match self.rng.u8(0..12) {
            // Again.
            0 => (at, before),
            // Once more with other flags.
            1 => {
                let mut again = before;
                if let Some(Ip { l4: L4::Tcp { flags, seq, ack, .. }, .. }) = again.ip_mut() {
                    *flags = self.rng.choice([ACK, ACK, ACK, FIN | ACK, RST, SYN, RST | ACK]).unwrap();
                    *seq = 1001;
                    *ack = if *flags & ACK != 0 { self.rng.choice([2001, 2001, 2]).unwrap() } else { 0 };
                }
                (at, again)
            }
            // On its way through the stack.
            2 | 3 if owner(after.dst).is_some() => {
                let from = match at {
                    At::From(c) => Some(4 + c),
                    At::To(..) => Some(self.rng.usize(0..9)),
                    _ => Some(0),
                };
                (At::To(owner(after.dst).unwrap(), from), after.into())
            }
            4 => (there, self.error(&after, there)),
            // Somebody else answers.
            5 => (At::From(self.rng.usize(0..5)), self.answer(&after).into()),
            6 => match owner(after.src) {
                Some(c) => {
                    let from = Some(self.rng.usize(0..9)).filter(|_| !matches!(at, At::To(_, None)));
                    (At::To(c, from), self.answer(&after).into())
                }
                None => (self.at_uplink(), self.answer(&after).into()),
            },
            _ => (there, self.answer(&after).into()),
        }
    }

    fn answer(&mut self, to: &Ip) -> Ip {
        let mut ip = to.clone();
        std::mem::swap(&mut ip.src, &mut ip.dst);
        ip.ttl = 64;
        ip.data = vec![7; self.rng.usize(0..20)];
        match &mut ip.l4 {
            L4::Tcp { sport, dport, flags, seq, ack } => {
                std::mem::swap(sport, dport);
                let opened = *flags & (SYN | ACK) == SYN;
                (*seq, *ack) = if opened { (2000, seq.wrapping_add(1)) } else { (*ack, seq.wrapping_add(1)) };
                *flags = if opened { SYN | ACK } else { ACK };
                match self.rng.u8(0..16) {
                    0 => *flags = RST | ACK,
                    1 => *flags = FIN | ACK,
                    2 => *ack = 5,
                    3 => *flags = SYN,
                    _ => {}
                }
            }
            L4::Udp { sport, dport, .. } | L4::Sctp { sport, dport } => std::mem::swap(sport, dport),
            L4::Icmp { kind, .. } => {
                *kind = match *kind {
                    8 => 0,
                    0 => 8,
                    128 => 129,
                    129 => 128,
                    other => other,
                }
            }
            L4::Raw(_) => {}
        }
        ip
    }

    /// An ICMP error about a packet.
    fn error(&mut self, about: &Ip, at: At) -> Packet {
        let v4 = about.is_v4();
        let src = match (self.rng.u8(0..4), at) {
            (0, _) => self.addr(v4),
            (1, At::From(c)) => CONTAINERS[c].addr(v4),
            (1, _) => named("far", v4).unwrap(),
            _ => about.dst,
        };
        let dst = if self.one_in(8) { self.addr(v4) } else { about.src };
        let (kind, code) = self
            .rng
            .choice(if v4 { [(3, 1), (3, 3), (3, 4), (11, 0)] } else { [(1, 4), (1, 0), (2, 0), (3, 0)] })
            .unwrap();
        let rest = if matches!((v4, kind, code), (true, 3, 4) | (false, 2, 0)) {
            [0, 0, 0x05, self.rng.choice([0x14, 0xdc]).unwrap()]
        } else {
            [0; 4]
        };
        let mut ip = Ip::new(src, dst, L4::Icmp { kind, code, rest });
        ip.data = about.bytes();
        let room = self.rng.choice([ip.data.len(), 68, 48, 28]).unwrap();
        ip.data.truncate(room);
        ip.into()
    }

    /// ARP, neighbour discovery and what else belongs to the link.
    fn neighbours(&mut self) -> (At, Packet) {
        let c = self.rng.usize(0..5);
        let other = self.rng.usize(0..5);
        let at = if self.one_in(3) { At::To(other, Some(4 + c)) } else { At::From(c) };
        let own = if self.one_in(4) { self.addr(true) } else { CONTAINERS[c].addr(true) };
        if self.rng.bool() {
            let mac = CONTAINERS[if self.one_in(4) { other } else { c }].mac;
            let target = CONTAINERS[other].addr(true);
            let body = Body::Arp(self.rng.u16(1..3), mac, own, target);
            return (at, Packet { macs: None, vlan: None, body, edits: vec![] });
        }
        let src = if self.one_in(3) { self.addr(false) } else { CONTAINERS[c].addr(false) };
        let dst = if self.one_in(3) { self.addr(false) } else { CONTAINERS[other].addr(false) };
        let kind = self.rng.choice([135, 136, 135, 136, 133, 134, 137, 130]).unwrap();
        let mut ip = Ip::new(src, dst, L4::Icmp { kind, code: 0, rest: [0x60, 0, 0, 0] });
        let target = if self.rng.bool() { dst } else { self.addr(false) };
        if let IpAddr::V6(a) = target {
            ip.data = a.octets().to_vec();
        }
        for _ in 0..self.rng.usize(0..3) {
            // Source's and target's link-layer address, MTU, nonce, and what is none (RFC 4861, RFC 3971).
            let option = self.rng.choice([1, 1, 2, 2, 5, 14, 3, 200]).unwrap();
            let mac = CONTAINERS[if self.one_in(4) { other } else { c }].mac;
            ip.data.extend([option, self.rng.choice([1, 1, 1, 1, 0, 4]).unwrap()]);
            ip.data.extend(mac);
        }
        ip.ttl = if self.one_in(5) { 64 } else { 255 };
        (at, ip.into())
    }

    /// Anything from anywhere to anybody.
    fn soup(&mut self) -> (At, Packet) {
        let v4 = self.rng.bool();
        let (src, dst) = (self.addr(v4), self.addr(v4));
        let c = self.rng.usize(0..=NEW);
        let at = match self.rng.u8(0..4) {
            0 => self.at_uplink(),
            1 => At::From(c),
            2 => At::To(c, None),
            _ => At::To(c, Some(self.rng.usize(0..9))),
        };
        let protocol = self.rng.choice([6, 17, 132, 1]).unwrap();
        let port = self.rng.choice(SERVER_PORTS).unwrap();
        let mut ip = self.first(src, dst, port, protocol);
        match self.rng.u8(0..12) {
            0 => {
                ip.l4 = L4::Raw(self.rng.choice([2, 4, 41, 47, 50, 51, 103, 135, 253]).unwrap());
                // Of IGMP: a query, a report (RFC 3376); of PIM: hello.
                ip.data[0] = self.rng.choice([0x11, 0x16, 0x20]).unwrap();
            }
            1 => ip.l4 = L4::Icmp { kind: self.rng.u8(..), code: self.rng.u8(0..4), rest: [0, 1, 0, 1] },
            _ => {}
        }
        if self.one_in(12) {
            let ethertype = self.rng.choice([0x88cc, 0x8847, 38, 0x0806, 0x0800, 0x86dd]).unwrap();
            let payload = vec![self.rng.u8(..); self.rng.usize(40..60)];
            return (at, Packet { macs: None, vlan: None, body: Body::Other(ethertype, payload), edits: vec![] });
        }
        (at, ip.into())
    }

    /// Does something unusual to a packet.
    fn spoil(&mut self, packet: &mut Packet) {
        let len = packet.bytes(At::Uplink.macs()).len();
        let choice = self.rng.u8(0..16);
        if let (Some(ip), 0..8) = (packet.ip_mut(), choice) {
            match choice {
                0 | 1 => ip.ttl = self.rng.u8(0..3),
                2 => ip.options = self.rng.choice([vec![1, 1, 1, 0], vec![7, 7, 4, 0, 0, 0, 0, 0]]).unwrap(),
                3 => {
                    let kinds = [0, 60, 43, 44, 51, 135];
                    ip.extensions = (0..self.rng.usize(1..6)).map(|_| kinds[self.rng.usize(0..6)]).collect();
                }
                4 | 5 => {
                    // Few identifiers, so that fragments of one datagram meet.
                    ip.id = self.rng.u16(1..3);
                    ip.data = vec![9; 40];
                    ip.fragment =
                        Some(self.rng.choice([(0, 24, true), (24, 16, false), (24, 8, true), (0, 64, true)]).unwrap());
                }
                6 => ip.data = vec![5; self.rng.usize(1400..1600)],
                _ => ip.data = vec![],
            }
            return;
        }
        match choice {
            8 => packet.vlan = Some(self.rng.u16(0..3)),
            9 => {
                packet.macs = Some((
                    CONTAINERS[self.rng.usize(0..5)].mac,
                    self.rng.choice([[0xff; 6], [2, 0, 0, 0, 1, 0], [1, 0, 0x5e, 0, 0, 1], [2; 6]]).unwrap(),
                ))
            }
            // The kernel's test run takes no packet that ends within the IP header.
            10 => packet.edits.push(Edit::Cut(self.rng.usize(54.min(len)..=len))),
            11 => packet.edits.push(Edit::Pad(len + self.rng.usize(1..30))),
            _ => {
                for _ in 0..self.rng.usize(1..4) {
                    let at = self.rng.usize(12..len.clamp(13, 75));
                    packet.edits.push(Edit::Patch(at, vec![self.rng.u8(..)]));
                }
            }
        }
    }
}
