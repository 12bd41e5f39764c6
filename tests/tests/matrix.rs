//! Who reaches a published port, how, and whom the server sees: every client, family, way of asking and kind of publication.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tests::dial::{How, Shown, dial};
use tests::frames::{Way, Wire};
use tests::sockets::Talk;
use tests::{Builder, CLIENT, Container, HOST, Image, Lab, Netns, Up, wait_for};

const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The host's addresses on Docker's network.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 1);
/// How long a counter may take to move.
const COUNTED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A machine on the LAN.
    External,
    /// A process of the host.
    Host,
    /// Another container on the server's network.
    Sibling,
    /// The server's own container.
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Published {
    /// On every address of the host.
    Everywhere,
    /// On its address on the LAN alone.
    OneAddress,
    /// On its loopback address alone.
    Loopback,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    who: Who,
    family: Family,
    how: How,
    published: Published,
}

/// What is to become of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// It is served, the server sees this address with the client's own port, and packets of this verdict say so.
    Served(IpAddr, &'static str),
    /// The packet is left to the host's stack, where nobody listens: it answers by a reset, or that the port is unreachable.
    RefusedByTheHost,
}

/// The rule.
///
/// A port published on a loopback address is reachable from the host alone. Everything else is reachable by everybody. The
/// client's address is kept, siblings included, wherever routing allows it: a host process has the host's address on the
/// server's network, the gateway, and so has the server itself, whose stack would not take its own address as a stranger's.
fn rule(cell: Cell, addresses: &Addresses) -> Expected {
    let gateway: IpAddr = if cell.family == Family::V4 { GATEWAY.into() } else { GATEWAY6.into() };
    match (cell.who, cell.published) {
        (Who::Host, _) => Expected::Served(gateway, "host_redirected"),
        (_, Published::Loopback) => Expected::RefusedByTheHost,
        (Who::Server, _) => Expected::Served(gateway, "published"),
        (Who::External | Who::Sibling, _) => Expected::Served(addresses.own(cell.who, cell.family), "published"),
    }
}

fn cells() -> impl Iterator<Item = Cell> {
    let all = [Who::External, Who::Host, Who::Sibling, Who::Server].into_iter();
    let all = all.flat_map(|who| [Family::V4, Family::V6].map(|family| (who, family)));
    let all = all.flat_map(|(who, family)| How::ALL.map(|how| (who, family, how)));
    all.flat_map(|(who, family, how)| {
        [Published::Everywhere, Published::OneAddress, Published::Loopback].map(|published| Cell {
            who,
            family,
            how,
            published,
        })
    })
}

/// What a cell's client dials. The host's loopback address is the host's alone: others try the host's address on the LAN.
fn target(cell: Cell) -> SocketAddr {
    let lan: IpAddr = if cell.family == Family::V4 { HOST.into() } else { HOST6.into() };
    let loopback: IpAddr =
        if cell.family == Family::V4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    match cell.published {
        Published::Everywhere => (lan, 8000).into(),
        Published::OneAddress => (lan, 8001).into(),
        Published::Loopback if cell.who == Who::Host => (loopback, 8002).into(),
        Published::Loopback => (lan, 8002).into(),
    }
}

/// The containers' addresses.
struct Addresses {
    sibling: (Ipv4Addr, Ipv6Addr),
    server: (Ipv4Addr, Ipv6Addr),
}

impl Addresses {
    fn own(&self, who: Who, family: Family) -> IpAddr {
        let (v4, v6) = match who {
            Who::External => (CLIENT, CLIENT6),
            Who::Host => (HOST, HOST6),
            Who::Sibling => self.sibling,
            Who::Server => self.server,
        };
        if family == Family::V4 { v4.into() } else { v6.into() }
    }
}

/// A lab with its server and its clients.
struct World {
    _up: Up,
    sibling: Netns,
    server: Netns,
    addresses: Addresses,
    lab: Lab,
}

impl World {
    fn new(builder: Builder, up: &[&str]) -> World {
        let builder = builder.engine_arg("--ipv6").engine_arg("--fixed-cidr-v6=2001:db8:d::/64");
        let lab = builder.images(&[Image::Echo]).build();
        // As careless as a host can be.
        lab.host().run(["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]).ok();
        let up = lab.up(up);
        let specs = ["8000:7", "192.0.2.1:8001:7", "[2001:db8::1]:8001:7", "127.0.0.1:8002:7", "[::1]:8002:7"];
        let specs: Vec<String> = specs.iter().flat_map(|s| [(*s).to_owned(), format!("{s}/udp")]).collect();
        let words = specs.iter().flat_map(|s| ["-p", s]).chain(["echo", "peer", "tcp:[::]:7", "udp:[::]:7"]);
        let server = lab.run("server", &words.collect::<Vec<_>>());
        let sibling = lab.run("sibling", &["echo", "peer", "tcp:[::]:7"]);
        // Addresses of IPv6 are usable only after a moment, the host's own on the network included.
        for container in [&server, &sibling] {
            for address in [IpAddr::from(container.ip()), container.ip6().into()] {
                Talk::when_up(lab.host(), (address, 7));
            }
        }
        let own = |c: &Container| (c.ip(), c.ip6());
        let addresses = Addresses { sibling: own(&sibling), server: own(&server) };
        World { _up: up, sibling: sibling.ns(), server: server.ns(), addresses, lab }
    }

    fn ns(&self, who: Who) -> &Netns {
        match who {
            Who::External => self.lab.client(),
            Who::Host => self.lab.host(),
            Who::Sibling => &self.sibling,
            Who::Server => &self.server,
        }
    }

    /// Tries one cell, from a port of its own; what is wrong with it.
    ///
    /// The last segments of a connection before this one may be counted here as well: where nothing is to be counted, it is tried so many
    /// times more, for what is wrong is so each time.
    fn try_cell(&self, cell: Cell, port: u16, more: u16) -> Result<(), String> {
        let to = target(cell);
        let any: IpAddr =
            if cell.family == Family::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let before = self.lab.counters();
        let shown = dial(self.ns(cell.who), cell.how, Some((any, port).into()), to);
        let counted = |verdict: &str| {
            let more = || (self.lab.counters().packets(verdict) > before.packets(verdict)).then_some(());
            match wait_for(COUNTED, more) {
                Some(()) => Ok(()),
                None => Err(format!("no packet was {verdict}: {}", self.lab.counters().since(&before))),
            }
        };
        match (rule(cell, &self.addresses), shown) {
            (Expected::Served(client, verdict), Ok(shown)) => {
                let expected = Shown { client: (client, port).into(), ours: port, peer: to };
                if shown != expected {
                    return Err(format!("{shown:?} instead of {expected:?}"));
                }
                counted(verdict)
            }
            (Expected::RefusedByTheHost, Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
                counted("host")?;
                let others = self.lab.counters().since(&before);
                match ["published", "host_redirected"].iter().find(|v| others.packets(v) > 0) {
                    Some(_) if more > 0 => self.try_cell(cell, port + 1_000, more - 1),
                    Some(v) => Err(format!("refused, but something was {v}: {others}")),
                    None => Ok(()),
                }
            }
            (expected, shown) => {
                let counted = self.lab.counters().since(&before);
                Err(format!("{expected:?} was expected, it is {shown:?}; counted: {counted}"))
            }
        }
    }

    /// Sends what no ordinary socket would: packets to the host's loopback address, over the wire. What is wrong with that.
    fn try_loopback_on_the_wire(&self, who: Who, family: Family, how: How) -> Result<(), String> {
        let to: IpAddr = if family == Family::V4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let ns = self.ns(who);
        let next_hop = if who == Who::External { self.lab.host().mac("eth0") } else { self.lab.host().mac("docker0") };
        let way = Way { from_mac: ns.mac("eth0"), to_mac: next_hop, from: self.addresses.own(who, family), to };
        let wire = Wire::open(ns, "eth0");
        let before = self.lab.counters();
        wire.send(&match how {
            How::Tcp => way.syn(30_000, 8002),
            How::Connected | How::Unconnected => way.udp(30_000, 8002, b"let me in"),
        });
        let dropped = || (self.lab.counters().packets("loopback") > before.packets("loopback")).then_some(());
        match wait_for(COUNTED, dropped) {
            Some(()) => Ok(()),
            None => Err(format!("no packet was dropped as loopback: {}", self.lab.counters().since(&before))),
        }
    }

    /// Tries all cells, and names those that fail.
    #[track_caller]
    fn assert_the_rule(&self) {
        let mut failed = Vec::new();
        assert_eq!(cells().count(), 4 * 2 * 3 * 3);
        for (n, cell) in cells().enumerate() {
            let mut outcome = self.try_cell(cell, 20_000 + n as u16, 3);
            if outcome.is_ok() && cell.published == Published::Loopback && cell.who != Who::Host {
                outcome = self.try_loopback_on_the_wire(cell.who, cell.family, cell.how);
            }
            if let Err(e) = outcome {
                failed.push(format!("{cell:?}: {e}"));
            }
        }
        assert!(failed.is_empty(), "{} of 72 cells:\n{}", failed.len(), failed.join("\n"));
    }
}

#[test]
fn everybody_gets_what_was_published_for_them() {
    let without_rules = Lab::builder("the matrix, by the datapath alone").without_iptables();
    World::new(without_rules, &[]).assert_the_rule();
}

#[test]
fn dockers_own_rules_and_proxies_change_nothing() {
    let with_proxies = Lab::builder("the matrix, beside Docker's rules").engine_arg("--userland-proxy=true");
    World::new(with_proxies, &[]).assert_the_rule();
}

#[test]
fn xdp_changes_nothing() {
    World::new(Lab::builder("the matrix, with XDP").without_client_offloads(), &["--xdp", "generic"]).assert_the_rule();
}
