//! The kernel's verified programs, by its own test run, with a world in their maps.

use std::net::UdpSocket;
use std::process::Command;

use aya::maps::lpm_trie::Key;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use runtime_common::decide::Scratch;
use runtime_common::maps::{
    ADDRESS_ENDPOINT, Address, Config, Endpoint, FilterKey, Flow, FlowKey, LAYOUT, Limit, Link, LinkKey, Publication,
    PublicationKey, Uplink, address_bit, port_bit,
};
use runtime_common::{Addr, VERDICT_SLOTS, Verdict};

use crate::entries::{Entries, Removed, addresses};
use crate::harness::Kernel;
use crate::packet::Mac;
use crate::world::{
    At, Change, Fate, GATEWAYS, HOST, INTERFACES, MAC_BRIDGE, MAC_CLIENT, MAC_UPLINK, Outcome, World, ip,
};

const SCRATCH: usize = size_of::<Scratch>();

/// The programs with a world in their maps, and interfaces in a network namespace of this thread's own.
pub struct KernelWorld {
    kernel: Kernel,
    /// Indexes of [`INTERFACES`].
    pub ifindexes: [u32; 9],
    world: World,
    entries: Entries,
    sockets: Vec<UdpSocket>,
    /// How many changes there were.
    changes: u64,
    counters: [u64; VERDICT_SLOTS],
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// The interfaces, addresses and routes that [`crate::world`] tells of.
fn interfaces() -> [u32; 9] {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let [[gw0, gw0_v6], [gw1, gw1_v6]] = GATEWAYS;
    let mut script = format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
         ip link set lo up
         ip link add up0 address {up} type veth peer up0p
         ip link add up1 type veth peer up1p
         ip addr add {v4}/24 dev up0
         ip -6 addr add {v6}/64 dev up0
         ip link set up0 up
         ip link set up0p up
         ip neigh add 192.0.2.9 lladdr {client} dev up0
         ip -6 neigh add 2001:db8::9 lladdr {client} dev up0
         ip route add default via 192.0.2.254\n",
        up = text(MAC_UPLINK),
        client = text(MAC_CLIENT),
        v4 = HOST[0],
        v6 = HOST[1],
    );
    for (bridge, v4, v6) in [("br0", gw0, gw0_v6), ("br1", gw1, gw1_v6)] {
        script += &format!(
            "ip link add {bridge} address {} type bridge\nip addr add {v4}/16 dev {bridge}\n\
             ip -6 addr add {v6}/64 dev {bridge}\nip link set {bridge} up\n",
            text(MAC_BRIDGE)
        );
    }
    for name in &INTERFACES[4..] {
        script += &format!("ip link add {name} address {} type veth peer {name}p\n", text(MAC_BRIDGE));
    }
    sh(&script);
    INTERFACES.map(|name| nix::net::if_::if_nametoindex(name).unwrap())
}

impl KernelWorld {
    /// Loads the programs; needs root.
    pub fn load() -> Self {
        // What one packet leaves in the scratch room the next one finds: on one processor, always the same.
        let mut one = CpuSet::new();
        one.set(sched_getcpu().unwrap()).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let ifindexes = interfaces();
        let mut kernel = Kernel::load(4096);
        let uplink = Uplink { ipv4: Addr::from(ip(HOST[0])), ipv6: Addr::from(ip(HOST[1])), ..Uplink::default() };
        kernel.map("UPLINKS").insert(ifindexes[0], uplink, 0).unwrap();
        kernel.map("UNSERVED").insert(ifindexes[1], 0u32, 0).unwrap();
        let mut world = KernelWorld {
            kernel,
            ifindexes,
            world: World::default(),
            entries: Entries::default(),
            sockets: vec![],
            changes: 0,
            counters: [0; VERDICT_SLOTS],
        };
        world.become_world(&World::default());
        world
    }

    /// Makes the maps those of a world.
    pub fn become_world(&mut self, world: &World) {
        self.clear();
        self.world = world.clone();
        self.kernel.set("CONFIG", 0, Config { layout: LAYOUT, enforce: (!world.learning).into() });
        self.sockets = world.sockets.iter().map(|port| UdpSocket::bind(("::", *port)).unwrap()).collect();
        let entries = Entries::of(world, &self.ifindexes);
        self.fill(&entries);
        self.entries = entries;
    }

    /// What the daemon writes, anew: a case's changes and used up limits are undone.
    pub fn restore(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.fill(&entries);
        self.entries = entries;
    }

    fn fill(&mut self, e: &Entries) {
        self.changes = 0;
        let k = &mut self.kernel;
        for (rule, generation) in &e.rules {
            k.set("RULES", *rule, *generation);
        }
        for (ifindex, endpoint) in &e.endpoints {
            k.map::<u32, Endpoint>("ENDPOINTS").insert(ifindex, endpoint, 0).unwrap();
        }
        for (addr, value) in &e.addresses {
            k.map::<Addr, Address>("ADDRESSES").insert(addr, value, 0).unwrap();
        }
        for (addr, bits, kind) in &e.prefixes {
            k.set_prefix("PREFIXES", &Key::new((*bits).into(), *addr), *kind);
        }
        for (key, value) in &e.publications {
            k.map::<PublicationKey, Publication>("PUBLICATIONS").insert(key, value, 0).unwrap();
        }
        for (key, value) in &e.filters {
            k.set_prefix("FILTERS", &Key::new(192, *key), *value);
        }
        for (generation, limit) in &e.limits {
            k.map::<u64, Limit>("LIMITS").insert(generation, limit, 0).unwrap();
        }
        for (key, value) in &e.links {
            k.map::<LinkKey, Link>("LINKS").insert(key, value, 0).unwrap();
        }
        for (map, element, bit) in bits(e) {
            let value = k.element(map, element) | bit;
            k.set(map, element, value);
        }
    }

    fn clear(&mut self) {
        self.sockets.clear();
        let e = std::mem::take(&mut self.entries);
        let k = &mut self.kernel;
        for (rule, _) in &e.rules {
            k.set("RULES", *rule, 0u64);
        }
        // What a change of the world has removed already is no longer there.
        for (ifindex, _) in &e.endpoints {
            let _ = k.map::<u32, Endpoint>("ENDPOINTS").remove(ifindex);
        }
        for (addr, _) in &e.addresses {
            let _ = k.map::<Addr, Address>("ADDRESSES").remove(addr);
        }
        for (addr, bits, _) in &e.prefixes {
            k.remove_prefix::<Addr, u32>("PREFIXES", &Key::new((*bits).into(), *addr));
        }
        for (key, _) in &e.publications {
            let _ = k.map::<PublicationKey, Publication>("PUBLICATIONS").remove(key);
        }
        for (key, _) in &e.filters {
            k.remove_prefix::<FilterKey, u32>("FILTERS", &Key::new(192, *key));
        }
        for (generation, _) in &e.limits {
            let _ = k.map::<u64, Limit>("LIMITS").remove(generation);
        }
        for (key, _) in &e.links {
            let _ = k.map::<LinkKey, Link>("LINKS").remove(key);
        }
        for (map, element, _) in bits(&e) {
            k.set(map, element, 0u64);
        }
    }

    /// Carries out a change.
    pub fn change(&mut self, change: &Change) {
        self.changes += 1;
        let removed = Removed::by(change, self.changes, &self.world, &self.ifindexes);
        let k = &mut self.kernel;
        for rule in &removed.rules {
            k.set("RULES", *rule, 0u64);
        }
        // What has gone before cannot go again.
        for key in &removed.publications {
            let _ = k.map::<PublicationKey, Publication>("PUBLICATIONS").remove(key);
        }
        for key in &removed.links {
            let _ = k.map::<LinkKey, Link>("LINKS").remove(key);
        }
        if let Some((ifindex, addrs)) = removed.endpoint {
            let _ = k.map::<u32, Endpoint>("ENDPOINTS").remove(&ifindex);
            for a in addrs {
                let _ = k.map::<Addr, Address>("ADDRESSES").remove(&a);
            }
        }
        if let Some((ifindex, endpoint)) = removed.another {
            k.set("RULES", endpoint.rule, endpoint.generation);
            for (addr, value) in addresses(&endpoint, ifindex) {
                k.map::<Addr, Address>("ADDRESSES").insert(addr, value, 0).unwrap();
            }
            k.map::<u32, Endpoint>("ENDPOINTS").insert(ifindex, endpoint, 0).unwrap();
        }
    }

    /// Whether the kernel's test run takes a packet there at all.
    pub fn takes(at: At, packet: &[u8]) -> bool {
        let least = match packet.get(12..14) {
            _ if matches!(at, At::Xdp) => 14,
            Some([0x08, 0x00]) => 34,
            Some([0x86, 0xdd]) => 54,
            _ => 15,
        };
        packet.len() >= least
    }

    /// Runs a packet of which `expected` is to become: what the kernel counted is looked for in full only where it is not that.
    /// Where to a packet was redirected the kernel does not tell: it is believed.
    pub fn run(&mut self, at: At, packet: &[u8], expected: &Outcome) -> Outcome {
        let i = &self.ifindexes;
        let (program, interfaces) = match at {
            At::Uplink => ("uplink_ingress", Some((i[0], i[0]))),
            At::Xdp => (crate::harness::XDP, None),
            At::From(c) => ("from_endpoint", Some((i[4 + c], i[4 + c]))),
            At::To(c, from) => ("to_endpoint", Some((i[4 + c], from.map_or(0, |from| i[from])))),
        };
        let (code, packet) = self.kernel.run_once(program, packet, interfaces);
        let fate = match (at, code) {
            (At::Xdp, 1) | (At::Uplink | At::From(_) | At::To(..), 2) => Fate::Drop,
            (At::Xdp, 2) | (At::Uplink | At::From(_) | At::To(..), -1) => Fate::Pass,
            (At::Xdp, 4) | (At::Uplink | At::From(_) | At::To(..), 7) => match expected.fate {
                Fate::Pass | Fate::Drop => Fate::Out,
                fate => fate,
            },
            _ => panic!("{program} returned {code}"),
        };
        Outcome { verdict: self.counted(expected.verdict), fate, packet }
    }

    /// The verdict that was counted since the last time.
    fn counted(&mut self, expected: Option<&'static str>) -> Option<&'static str> {
        let expected = expected.and_then(|name| Verdict::ALL.iter().find(|v| v.name() == name));
        if let Some(v) = expected {
            let known = &mut self.counters[*v as usize];
            let now = self.kernel.counter(*v);
            if now == *known + 1 {
                *known = now;
                return Some(v.name());
            }
        }
        let mut found = None;
        for v in Verdict::ALL {
            let now = self.kernel.counter(*v);
            if now != self.counters[*v as usize] {
                found = Some(v.name());
            }
            self.counters[*v as usize] = now;
        }
        found
    }

    /// Whether anything was counted that nobody has seen.
    pub fn surplus(&mut self) -> Option<&'static str> {
        self.counted(None)
    }

    /// All conversations: of `FLOWS`, then of `PENDING`.
    pub fn flows(&mut self) -> [Vec<(FlowKey, Flow)>; 2] {
        ["FLOWS", "PENDING"].map(|map| self.kernel.map(map).iter().map(Result::unwrap).collect())
    }

    /// Forgets all conversations.
    pub fn forget(&mut self) {
        self.kernel.forget_conversations();
        self.kernel.clear("SCRATCH", [0u8; SCRATCH]);
    }
}

/// Bits that say where it is worth to look.
fn bits(e: &Entries) -> Vec<(&'static str, u32, u64)> {
    let mut bits = vec![];
    for (addr, value) in &e.addresses {
        let (element, bit) = address_bit(addr, false);
        bits.push(("ADDRESS_BITS", element, bit));
        if value.kind == ADDRESS_ENDPOINT {
            let (element, bit) = address_bit(addr, true);
            bits.push(("ADDRESS_BITS", element, bit));
        }
    }
    for (key, _) in &e.publications {
        let (element, bit) = port_bit(u16::from_be(key.port), key.protocol);
        bits.push(("PORTS", element, bit));
    }
    bits
}
