//! A host with containers: interfaces and routes in a network namespace of the test's own, and the maps to match.

use std::process::Command;

use aya::maps::lpm_trie::Key;
use runtime_common::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, Address, ChecksumDeltas, Config, ENDPOINT_ISOLATED, Endpoint, FLOW_ANSWERED,
    FLOW_PORT_HALVES, Flow, FlowAction, FlowKey, LAYOUT, Link, LinkKey, PUBLICATION_CLOSED, Publication,
    PublicationKey, Tuple, Uplink as UplinkEntry, Zone, address_bit, port_bit,
};
use runtime_common::{Addr, Verdict};

use crate::kernel::{Kernel, Outcome};
use packet_builder::{PacketBuilder, icmp, ip, ones_complement};

/// The host, as seen from outside.
pub const HOST: &str = "192.0.2.1";
/// The same.
pub const HOST6: &str = "2001:db8::1";
/// A client next door whose MAC address the host knows.
pub const CLIENT: &str = "192.0.2.9";
/// The same.
pub const CLIENT6: &str = "2001:db8::9";
/// A client behind a router whose MAC address is not known yet.
pub const FAR: &str = "198.51.100.7";
/// The uplink's own.
pub const MAC_UPLINK: [u8; 6] = [2, 0, 0, 0, 1, 0];
/// Of `CLIENT`.
pub const MAC_CLIENT: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// Of the isolated network's bridge.
pub const MAC_BRIDGE: [u8; 6] = [2, 0, 0, 0, 17, 1];

/// A container of the world.
#[derive(Debug)]
pub struct Container {
    /// Its name, which is its interface's.
    pub name: &'static str,
    /// Its IPv4 address.
    pub v4: &'static str,
    /// Its IPv6 address.
    pub v6: &'static str,
    /// Its MAC address.
    pub mac: [u8; 6],
    bridge: &'static str,
    gateways: (&'static str, &'static str),
    isolated: bool,
}

const fn container(name: &'static str, v4: &'static str, v6: &'static str, last: u8) -> Container {
    let gateways = ("172.17.0.1", "fd00:17::1");
    Container { name, v4, v6, mac: [2, 0, 0, 0, 17, last], bridge: "br0", gateways, isolated: true }
}

/// On the isolated network.
pub static WEB: Container = container("web", "172.17.0.2", "fd00:17::2", 2);
/// The link-local address that follows from its MAC address.
pub const WEB_LINK_LOCAL: &str = "fe80::ff:fe00:1102";
/// The same of `DB`.
pub const DB_LINK_LOCAL: &str = "fe80::ff:fe00:1103";
/// On the isolated network as well.
pub static DB: Container = container("db", "172.17.0.3", "fd00:17::3", 3);
/// On another network, which is not isolated.
pub static ONE: Container = open("one", "172.18.0.2", "fd00:18::2", 0x12);
/// Beside `ONE`.
pub static TWO: Container = open("two", "172.18.0.3", "fd00:18::3", 0x13);
/// A container's interface that no map knows.
pub const UNKNOWN: &str = "new";

const fn open(name: &'static str, v4: &'static str, v6: &'static str, last: u8) -> Container {
    let gateways = ("172.18.0.1", "fd00:18::1");
    Container { name, v4, v6, mac: [2, 0, 0, 0, 18, last], bridge: "br1", gateways, isolated: false }
}

/// Where a packet is given to a program.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// `uplink_ingress`.
    Uplink,
    /// `uplink_xdp`.
    Xdp,
    /// `from_endpoint` of an interface.
    Leaving(&'static str),
    /// `to_endpoint` of an interface, the packet having come in by another (`""`: the host made it).
    Entering(&'static str, &'static str),
}

pub use At::{Entering, Leaving, Uplink, Xdp};

const PASS: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_REDIRECT: i32 = 4;

/// The kernel side with its maps filled.
pub struct World {
    /// The loaded programs and their maps.
    pub kernel: Kernel,
    rules: u32,
}

/// Runs a script of the shell.
///
/// # Panics
/// Where it fails.
pub fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn mac(m: [u8; 6]) -> String {
    m.map(|b| format!("{b:02x}")).join(":")
}

/// An address as maps have it.
pub fn addr(s: &str) -> Addr {
    Addr::from(ip(s))
}

/// A tuple as maps have it.
pub fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    Tuple { src: addr(src), dst: addr(dst), sport: sport.to_be(), dport: dport.to_be() }
}

/// The index of an interface, 0 for no name.
pub fn ifindex(name: &str) -> u32 {
    if name.is_empty() { 0 } else { nix::net::if_::if_nametoindex(name).unwrap() }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

impl World {
    /// With tables of some size.
    pub fn new() -> Self {
        World::with_flows(4096)
    }

    /// With shares of a table for so many conversations.
    pub fn with_shares(conversations: u32) -> Self {
        World::new();
        // More than is kept for other tests, whose shares are others.
        World::with_kernel(Kernel::sharing(5_000, (4_096, 1_024), conversations))
    }

    /// A namespace for this thread, and so for this test, which ends with it.
    pub fn with_flows(flows: u32) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0");
        // One process for all lines: an emulated machine takes longer to start each than for the rest of a test.
        let mut script = format!(
            "link set lo up
             link add up0 address {} type veth peer up0p
             addr add {HOST}/24 dev up0
             addr add {HOST6}/64 dev up0
             link set up0 up
             link set up0p up
             neigh add {CLIENT} lladdr {mac} dev up0
             neigh add {CLIENT6} lladdr {mac} dev up0
             route add default via 192.0.2.254
             link add {UNKNOWN} type veth peer {UNKNOWN}p\n",
            mac(MAC_UPLINK),
            mac = mac(MAC_CLIENT),
        );
        for (bridge, v4, v6) in [("br0", "172.17.0.1/16", "fd00:17::1/64"), ("br1", "172.18.0.1/16", "fd00:18::1/64")] {
            script += &format!(
                "link add {bridge} address {} type bridge\naddr add {v4} dev {bridge}\n\
                 addr add {v6} dev {bridge}\nlink set {bridge} up\n",
                mac(MAC_BRIDGE)
            );
        }
        for c in [&WEB, &DB, &ONE, &TWO] {
            // The MAC address is not the container's, but what arrives for the bridge is addressed like this.
            script += &format!("link add {0} address {1} type veth peer {0}p\n", c.name, mac(MAC_BRIDGE));
        }
        sh(&format!("ip -batch - <<END\n{script}END"));
        World::again(flows)
    }

    /// The programs and the maps once more, for the same interfaces.
    pub fn again(flows: u32) -> Self {
        World::with_kernel(Kernel::load(flows))
    }

    fn with_kernel(kernel: Kernel) -> Self {
        let mut world = World { kernel, rules: 0 };
        world.enforce(true);
        for a in [HOST, HOST6, "172.17.0.1", "fd00:17::1", "172.18.0.1", "fd00:18::1"] {
            world.add_host_address(a);
        }
        for c in [&WEB, &DB, &ONE, &TWO] {
            world.add(c);
        }
        world.kernel.map("UPLINKS").insert(ifindex("up0"), UplinkEntry::default(), 0).unwrap();
        world
    }

    /// An address of the host's.
    pub fn add_host_address(&mut self, host: &str) {
        let value = Address { kind: ADDRESS_HOST, ..Address::default() };
        self.add_address(addr(host), value);
    }

    fn add_address(&mut self, addr: Addr, value: Address) {
        self.kernel.map::<Addr, Address>("ADDRESSES").insert(addr, value, 0).unwrap();
        self.set_bit("ADDRESS_BITS", address_bit(&addr, false));
        if value.kind == ADDRESS_ENDPOINT {
            self.set_bit("ADDRESS_BITS", address_bit(&addr, true));
        }
    }

    /// What addresses that begin with so many bits of this one are.
    pub fn add_prefix(&mut self, first: &str, bits: u32, kind: u32) {
        self.kernel.set_prefix("PREFIXES", &Key::new(bits, addr(first)), kind);
    }

    fn set_bit(&mut self, map: &'static str, (element, bit): (u32, u64)) {
        let bits = self.kernel.element(map, element) | bit;
        self.kernel.set(map, element, bits);
    }

    /// Whether drops are carried out.
    pub fn enforce(&mut self, on: bool) {
        self.kernel.set("CONFIG", 0, Config { layout: LAYOUT, enforce: on.into() });
    }

    /// A rule slot with a generation of its own.
    fn rule(&mut self) -> (u32, u64) {
        self.rules += 1;
        let generation = 1000 + u64::from(self.rules);
        self.kernel.set("RULES", self.rules, generation);
        (self.rules, generation)
    }

    /// Gives a rule another generation, as if what it belongs to had been taken away and something else had its place.
    pub fn end(&mut self, rule: u32) {
        self.kernel.set("RULES", rule, 77u64);
    }

    fn add(&mut self, c: &Container) {
        let (rule, generation) = self.rule();
        let flags = if c.isolated { ENDPOINT_ISOLATED } else { 0 };
        let bridge = ifindex(c.bridge);
        let endpoint = Endpoint {
            generation,
            container: ifindex(c.name).into(),
            ipv4: addr(c.v4),
            ipv6: addr(c.v6),
            gateway4: addr(c.gateways.0),
            gateway6: addr(c.gateways.1),
            rule,
            bridge,
            mac: c.mac,
            flags,
        };
        self.kernel.map("ENDPOINTS").insert(ifindex(c.name), endpoint, 0).unwrap();
        let value =
            Address { ifindex: ifindex(c.name), bridge, mac: c.mac, kind: ADDRESS_ENDPOINT, flags: flags as u8 };
        for a in [c.v4, c.v6] {
            self.add_address(addr(a), value);
        }
    }

    /// Makes of two containers one that is on both networks.
    pub fn join(&mut self, one: &Container, other: &Container) {
        let mut endpoints = self.kernel.map::<u32, Endpoint>("ENDPOINTS");
        let (container, other) = (endpoints.get(&ifindex(one.name), 0).unwrap().container, ifindex(other.name));
        let joined = Endpoint { container, ..endpoints.get(&other, 0).unwrap() };
        endpoints.insert(other, joined, 0).unwrap();
    }

    /// Publishes a port of a container, and returns the rule.
    pub fn publish(&mut self, host: &str, port: u16, protocol: u8, to: &Container, container_port: u16) -> u32 {
        let (rule, generation) = self.rule();
        let value = Publication {
            generation,
            list: 0,
            addr: addr(if ip(host).is_ipv4() { to.v4 } else { to.v6 }),
            rule,
            ifindex: ifindex(to.name),
            bridge: ifindex(to.bridge),
            port: container_port.to_be(),
            flags: 0,
            mac: to.mac,
            reserved: 0,
        };
        let key = publication_key(host, port, protocol);
        self.kernel.map("PUBLICATIONS").insert(key, value, 0).unwrap();
        self.set_bit("PORTS", port_bit(port, protocol));
        rule
    }

    /// Takes a publication away.
    pub fn unpublish(&mut self, host: &str, port: u16, protocol: u8) {
        self.kernel
            .map::<PublicationKey, Publication>("PUBLICATIONS")
            .remove(&publication_key(host, port, protocol))
            .unwrap();
    }

    /// Marks a publication as closed.
    pub fn close(&mut self, host: &str, port: u16, protocol: u8) {
        let key = publication_key(host, port, protocol);
        let mut map = self.kernel.map::<PublicationKey, Publication>("PUBLICATIONS");
        let value = Publication { flags: PUBLICATION_CLOSED, ..map.get(&key, 0).unwrap() };
        map.insert(key, value, 0).unwrap();
    }

    /// Opens a port of `source` to `recipient`, on both families, and returns the rule.
    pub fn link(&mut self, recipient: &Container, source: &Container, port: u16, protocol: u8) -> u32 {
        let (rule, generation) = self.rule();
        for (r, s) in [(recipient.v4, source.v4), (recipient.v6, source.v6)] {
            let key = LinkKey { recipient: addr(r), source: addr(s), port: port.to_be(), protocol, reserved: 0 };
            self.kernel.map("LINKS").insert(key, Link { generation, rule, reserved: 0 }, 0).unwrap();
        }
        rule
    }

    /// Two flows that translate into each other, of packets from the container `web` and to it.
    pub fn translate_to_and_fro(&mut self, tuples: [Tuple; 2], protocol: u8, zone: Zone, action: FlowAction) {
        let (rule, generation) = self.rule();
        let web = self.kernel.map::<u32, Endpoint>("ENDPOINTS").get(&ifindex("web"), 0).unwrap();
        for (from, to) in [(tuples[0], tuples[1]), (tuples[1], tuples[0])] {
            let flow = Flow {
                generation,
                rule,
                to,
                sums: ChecksumDeltas::between(&from, &to),
                ifindex: ifindex("web"),
                mac: WEB.mac,
                action: action as u8,
                state: FLOW_ANSWERED,
                from_ifindex: ifindex("web"),
                from_mac: web.mac,
                ..Flow::default()
            };
            let key = FlowKey::new(from, protocol, zone);
            self.kernel.set("FLOW_PORTS", key.port_element(), FLOW_PORT_HALVES);
            self.kernel.map("FLOWS").insert(key, flow, 0).unwrap();
        }
    }

    /// Forgets every conversation.
    pub fn forget(&mut self) {
        self.kernel.forget_conversations();
    }

    /// All entries of `FLOWS` or `PENDING`.
    pub fn flows(&mut self, map: &str) -> Vec<(FlowKey, Flow)> {
        self.kernel.map(map).iter().map(Result::unwrap).collect()
    }

    /// Runs the program of a place.
    pub fn run(&mut self, at: At, packet: &[u8], repeat: u32) -> Outcome {
        match at {
            Uplink => self.kernel.classify("uplink_ingress", packet, ifindex("up0"), ifindex("up0"), repeat),
            Xdp => self.kernel.xdp(packet, repeat),
            Leaving(name) => self.kernel.classify("from_endpoint", packet, ifindex(name), ifindex(name), repeat),
            Entering(name, from) => self.kernel.classify("to_endpoint", packet, ifindex(name), ifindex(from), repeat),
        }
    }

    /// Expects a packet to be left as it is: passed or dropped, as `verdict` says.
    #[track_caller]
    pub fn expect(&mut self, what: &str, at: At, packet: &[u8], verdict: Verdict) {
        let outcome = self.run(at, packet, 1);
        // XDP leaves it to the next hook to say so.
        let drop = verdict as u32 >= 32 && !(matches!(at, Xdp) && verdict == Verdict::TtlExceeded);
        let code = match (at, drop) {
            (Xdp, true) => XDP_DROP,
            (Xdp, false) => XDP_PASS,
            (_, true) => SHOT,
            (_, false) => PASS,
        };
        // What XDP passes is counted by the hook that sees it next.
        let counted = if matches!(at, Xdp) && !drop { vec![] } else { vec![(verdict, 1)] };
        assert_eq!((outcome.code, &outcome.counted), (code, &counted), "{what} at {at:?}");
        assert_eq!(outcome.packet, packet, "{what} at {at:?}: changed");
    }

    /// Expects a packet to open a flow through a publication, and to have become `out`.
    #[track_caller]
    pub fn forgets_and_forwards(&mut self, at: At, packet: &PacketBuilder, out: &PacketBuilder) {
        self.forget();
        self.forwards("a new flow", at, packet, Verdict::Published, out);
    }

    /// Expects a packet to have become the ICMP error about it, from `from` to its sender: of a type and code, with
    /// an MTU.
    #[track_caller]
    pub fn answers_with_error(
        &mut self,
        what: &str,
        at: At,
        packet: &PacketBuilder,
        verdict: Verdict,
        from: &str,
        (kind, mtu): ([u8; 2], u16),
    ) {
        let outcome = self.run(at, &packet.build(), 1);
        assert_eq!((outcome.code, &outcome.counted), (REDIRECT, &vec![(verdict, 1)]), "{what} at {at:?}");
        let about = &packet.build()[14..];
        let quoted = &about[..about.len().min(128) & !3];
        let mtu = mtu.to_be_bytes();
        let mut error = icmp(from, &packet.src.to_string(), kind[0], kind[1], [0, 0, mtu[0], mtu[1]]).payload(quoted);
        error = error.macs(packet.mac_dst, packet.mac_src).id(0);
        let mut expected = error.build();
        if packet.src.is_ipv4() {
            // Precedence and "do not fragment", and the header checksum anew.
            (expected[15], expected[20], expected[24], expected[25]) = (0xc0, 0x40, 0, 0);
            let sum = ones_complement(&expected[14..34], &[]).to_be_bytes();
            expected[24..26].copy_from_slice(&sum);
        }
        assert_eq!(hex(&outcome.packet), hex(&expected), "{what} at {at:?}");
    }

    /// Expects a packet to be redirected, and to have become `out`.
    #[track_caller]
    pub fn forwards(&mut self, what: &str, at: At, packet: &PacketBuilder, verdict: Verdict, out: &PacketBuilder) {
        let code = if matches!(at, Xdp) { XDP_REDIRECT } else { REDIRECT };
        self.becomes(what, at, packet, verdict, code, out);
    }

    /// Expects a packet to go on to the host's stack, and to have become `out`.
    #[track_caller]
    pub fn passes_as(&mut self, what: &str, at: At, packet: &PacketBuilder, verdict: Verdict, out: &PacketBuilder) {
        self.becomes(what, at, packet, verdict, PASS, out);
    }

    #[track_caller]
    fn becomes(
        &mut self,
        what: &str,
        at: At,
        packet: &PacketBuilder,
        verdict: Verdict,
        code: i32,
        out: &PacketBuilder,
    ) {
        let outcome = self.run(at, &packet.build(), 1);
        assert_eq!((outcome.code, &outcome.counted), (code, &vec![(verdict, 1)]), "{what} at {at:?}");
        assert_eq!(hex(&outcome.packet), hex(&out.build()), "{what} at {at:?}");
    }
}

fn publication_key(host: &str, port: u16, protocol: u8) -> PublicationKey {
    PublicationKey { addr: addr(host), port: port.to_be(), protocol, reserved: 0 }
}

/// Sixteen bytes a line, so that a failed comparison can be read.
fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.chunks(16).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")).collect()
}

/// As a packet arrives on the uplink.
pub fn inbound(p: PacketBuilder) -> PacketBuilder {
    p.macs(MAC_CLIENT, MAC_UPLINK)
}

/// As a container sends a packet to the host or beyond.
pub fn sent(p: PacketBuilder, by: &Container) -> PacketBuilder {
    p.macs(by.mac, MAC_BRIDGE)
}

/// As a packet reaches a container's own interface by the bridge.
pub fn arriving(p: PacketBuilder, to: &Container) -> PacketBuilder {
    p.macs(MAC_BRIDGE, to.mac)
}

/// What the published packet becomes: nothing but addresses, ports and time to live change; at XDP also both MACs.
pub fn published(p: &PacketBuilder, at: At, to: &Container, port: u16) -> PacketBuilder {
    let (sport, v4) = match p.l4 {
        packet_builder::L4::Tcp { sport, .. }
        | packet_builder::L4::Udp { sport, .. }
        | packet_builder::L4::Sctp { sport, .. } => (sport, p.src.is_ipv4()),
        _ => panic!("no ports here"),
    };
    let (src, dst) = (p.src.to_string(), if v4 { to.v4 } else { to.v6 });
    let out = p.clone().between(&src, dst).ports(sport, port).ttl(p.ttl - 1);
    if matches!(at, Xdp) { out.macs(p.mac_dst, to.mac) } else { out }
}
