//! The host that packets come to: what its daemon has told the datapath, as plain data.
//!
//! ```text
//!   client 192.0.2.9, known next door  --+
//!   far 198.51.100.7, behind 192.0.2.254 +-- up0 host 192.0.2.1 -- br0 172.17.0.1/16: web .2, db .3
//!                                                              +-- br1 172.18.0.1/16: one .2, two .3
//! ```
//! The same with 2001:db8::/64, fd00:17::/64 and fd00:18::/64; there is no IPv6 route beyond next door. `up1` leads outside as
//! well and has no program, `new` is a container's interface that nobody has told of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use crate::packet::{Mac, Packet};

/// MAC address of `up0`.
pub const MAC_UPLINK: Mac = [2, 0, 0, 0, 1, 0];
/// That of the client next door.
pub const MAC_CLIENT: Mac = [2, 0, 0, 0, 9, 9];
/// That of both bridges.
pub const MAC_BRIDGE: Mac = [2, 0, 0, 0, 17, 1];

/// Interfaces, by the number that [`Name`]s have.
pub const INTERFACES: [&str; 9] = ["up0", "up1", "br0", "br1", "web", "db", "one", "two", "new"];

/// A container of the world: an index into [`CONTAINERS`].
pub type Name = usize;

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Its name, and that of its host-side interface.
    pub name: &'static str,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its MAC address.
    pub mac: Mac,
    /// Its network: 0 or 1.
    pub network: usize,
}

/// All containers; the last one's interface alone is known, and nothing of it.
pub const CONTAINERS: [Container; 5] = [
    Container {
        name: "web",
        v4: Ipv4Addr::new(172, 17, 0, 2),
        v6: Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 2),
        mac: [2, 0, 0, 0, 17, 2],
        network: 0,
    },
    Container {
        name: "db",
        v4: Ipv4Addr::new(172, 17, 0, 3),
        v6: Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 3),
        mac: [2, 0, 0, 0, 17, 3],
        network: 0,
    },
    Container {
        name: "one",
        v4: Ipv4Addr::new(172, 18, 0, 2),
        v6: Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 2),
        mac: [2, 0, 0, 0, 18, 2],
        network: 1,
    },
    Container {
        name: "two",
        v4: Ipv4Addr::new(172, 18, 0, 3),
        v6: Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 3),
        mac: [2, 0, 0, 0, 18, 3],
        network: 1,
    },
    Container {
        name: "new",
        v4: Ipv4Addr::new(172, 17, 0, 9),
        v6: Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 9),
        mac: [2, 0, 0, 0, 17, 9],
        network: 0,
    },
];
/// Of the second container.
pub const DB: Name = 1;
/// Of the fourth.
pub const TWO: Name = 3;
/// Of the last container.
pub const NEW: Name = 4;
/// Of the containers that the daemon tells of.
pub const KNOWN: std::ops::Range<Name> = 0..NEW;

/// The host's address on each network, by family.
pub const GATEWAYS: [[&str; 2]; 2] = [["172.17.0.1", "fd00:17::1"], ["172.18.0.1", "fd00:18::1"]];
/// The host's own addresses outside.
pub const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// Everybody next door.
pub const BROADCAST: &str = "192.0.2.255";
/// Prefixes of the networks, by family.
pub const PREFIXES: [[(&str, u8); 2]; 2] =
    [[("172.17.0.0", 16), ("fd00:17::", 64)], [("172.18.0.0", 16), ("fd00:18::", 64)]];

/// Addresses by name: IPv4 and IPv6.
pub const NAMES: &[(&str, &str, &str)] = &[
    ("client", "192.0.2.9", "2001:db8::9"),
    ("far", "198.51.100.7", "2001:db8:9::9"),
    ("stranger", "203.0.113.5", "2001:db8::5"),
    ("host", "192.0.2.1", "2001:db8::1"),
    ("gateway0", "172.17.0.1", "fd00:17::1"),
    ("gateway1", "172.18.0.1", "fd00:18::1"),
    ("web", "172.17.0.2", "fd00:17::2"),
    ("db", "172.17.0.3", "fd00:17::3"),
    ("one", "172.18.0.2", "fd00:18::2"),
    ("two", "172.18.0.3", "fd00:18::3"),
    ("new", "172.17.0.9", "fd00:17::9"),
    ("nobody0", "172.17.0.77", "fd00:17::77"),
    ("nobody1", "172.18.0.77", "fd00:18::77"),
    ("routed", "10.99.0.5", "fd99::5"),
    ("loopback", "127.0.0.1", "::1"),
    ("loopback2", "127.0.0.2", "::1"),
    ("any", "0.0.0.0", "::"),
    ("multicast", "224.0.0.251", "ff02::fb"),
    ("everybody", BROADCAST, "ff02::1"),
    ("broadcast", "255.255.255.255", "ff02::1"),
    ("linklocal", "169.254.1.1", "fe80::2"),
];

/// Those, to be asked for by the million.
static NAMED: LazyLock<Vec<[IpAddr; 2]>> = LazyLock::new(|| NAMES.iter().map(|(_, a, b)| [ip(a), ip(b)]).collect());
/// All of the host's own addresses.
static HOSTS: LazyLock<Vec<IpAddr>> =
    LazyLock::new(|| HOST.iter().chain(GATEWAYS.iter().flatten()).map(|a| ip(a)).collect());

/// All of the host's own addresses.
pub fn hosts() -> &'static [IpAddr] {
    &HOSTS
}

/// The address with that name.
pub fn named(name: &str, v4: bool) -> Option<IpAddr> {
    NAMES.iter().position(|(n, ..)| *n == name).map(|n| nth_address(n, v4))
}

/// The address of the nth name.
pub fn nth_address(n: usize, v4: bool) -> IpAddr {
    NAMED[n][usize::from(!v4)]
}

/// An address that is written out.
#[track_caller]
pub fn ip(s: &str) -> IpAddr {
    s.parse().unwrap_or_else(|_| panic!("{s} is no address"))
}

impl Container {
    /// Its address of a family.
    pub fn addr(&self, v4: bool) -> IpAddr {
        if v4 { self.v4.into() } else { self.v6.into() }
    }
}

/// What the daemon has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Both networks.
    pub networks: [Network; 2],
    /// Whether `db` and `two` are one container on both networks.
    pub shared: bool,
    /// Containers that it has not told of (yet).
    pub unknown: Vec<Name>,
    /// Published ports, the ends of a range each by itself.
    pub publications: Vec<Publication>,
    /// Links.
    pub links: Vec<Link>,
    /// Whether `routed` is the host's by a local route of its prefix.
    pub local_prefix: bool,
    /// Whether decisions are made, but nothing is dropped yet.
    pub learning: bool,
    /// UDP ports of sockets of the host.
    pub sockets: Vec<u16>,
}

/// A network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Whether only links and publications let anything into its containers.
    pub isolated: bool,
    /// Whether what its containers begin with the outside goes out under the host's address.
    pub masquerade: bool,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The host's address, or the family's wildcard.
    pub host: IpAddr,
    /// The host's port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The container.
    pub to: Name,
    /// The container's port.
    pub container_port: u16,
    /// Who may use it.
    pub policy: Policy,
}

/// Who may use a published port, and by which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// It is closed: what arrives is dropped.
    pub closed: bool,
    /// The host's firewall decides about new conversations.
    pub ask: bool,
    /// With `ask`: rules of the host's own rewrite what comes from outside.
    pub translates: bool,
    /// Sources that may use it, and no other may.
    pub only: Vec<IpAddr>,
    /// Sources that may not use it.
    pub not: Vec<IpAddr>,
    /// New conversations in a second.
    pub limit: Option<u32>,
}

/// What a recipient may open at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who opens.
    pub recipient: Name,
    /// Whose port it is.
    pub source: Name,
    /// Which port.
    pub opens: Opens,
}

/// A port of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// A port and its protocol.
    Port(u16, u8),
    /// Echo requests.
    Ping,
    /// Everything.
    All,
}

/// Where a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Arrives on `up0`.
    Uplink,
    /// The same, before the kernel has made a packet of it.
    Xdp,
    /// Sent by a container.
    From(Name),
    /// About to enter a container, having come in by an interface (an index into [`INTERFACES`]); without, the host made it.
    To(Name, Option<usize>),
}

impl At {
    /// Source and destination MAC address that packets have there.
    pub fn macs(self) -> (Mac, Mac) {
        match self {
            At::Uplink | At::Xdp => (MAC_CLIENT, MAC_UPLINK),
            At::From(c) => (CONTAINERS[c].mac, MAC_BRIDGE),
            At::To(c, _) => (MAC_BRIDGE, CONTAINERS[c].mac),
        }
    }
}

/// What happens, one thing after another.
#[allow(clippy::large_enum_variant, reason = "most are packets")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet is somewhere.
    Packet(At, Packet),
    /// The user or the daemon changes something.
    Change(Change),
}

/// A change of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The publication with that index is taken away.
    Unpublish(usize),
    /// The link with that index is taken away.
    Unlink(usize),
    /// A container goes.
    Gone(Name),
    /// A container goes, and another one has its interface and its addresses at once.
    Another(Name),
}

/// A world and what happens in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// How it begins.
    pub world: World,
    /// What happens.
    pub events: Vec<Event>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict that was counted: its name; none where the packet is not looked into, or where XDP leaves it to the next hook.
    pub verdict: Option<&'static str>,
    /// Where it went.
    pub fate: Fate,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to the host's stack, or into the container that it was entering.
    Pass,
    /// Nowhere.
    Drop,
    /// Into a container.
    Into(Name),
    /// To the outside, by the host's routes.
    Out,
    /// Back to where it came from, as an ICMP error.
    Back,
    /// To the host's loopback interface.
    Loopback,
}

impl Default for World {
    /// `br0` isolated, `br1` open, and nothing published.
    fn default() -> Self {
        World {
            networks: [Network { isolated: true, masquerade: false }, Network::default()],
            shared: false,
            unknown: vec![],
            publications: vec![],
            links: vec![],
            local_prefix: false,
            learning: false,
            sockets: vec![],
        }
    }
}

impl World {
    /// Whether the daemon has told of a container.
    pub fn knows(&self, c: Name) -> bool {
        c != NEW && !self.unknown.contains(&c)
    }

    /// The network of a container.
    pub fn network(&self, c: Name) -> Network {
        self.networks[CONTAINERS[c].network]
    }
}
