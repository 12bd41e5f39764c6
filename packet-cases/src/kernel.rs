//! The kernel's verified programs, by its own test run, with a world in their maps.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::process::Command;

use aya::Pod;
use aya::maps::lpm_trie::Key;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use runtime_common::decide::Scratch;
use runtime_common::maps::{ADDRESS_ENDPOINT, Config, LAYOUT, Uplink, address_bit, port_bit};
use runtime_common::{Addr, Verdict};

use crate::entries::{Entries, Removed, addresses};
use crate::host::Remembered;
use crate::packet::Mac;
use crate::world::{
    At, Change, Fate, GATEWAYS, HOST, INTERFACES, MAC_BRIDGE, MAC_CLIENT, MAC_UPLINK, Outcome, World, ip,
};
use packet_lab::kernel::Kernel;

const SCRATCH: usize = size_of::<Scratch>();

/// The programs with a world in their maps, and interfaces in a network namespace of this thread's own.
pub struct KernelWorld {
    kernel: Kernel,
    /// Indexes of [`INTERFACES`].
    pub ifindexes: [u32; 9],
    world: World,
    /// What the world's daemon has written.
    written: Written,
    /// What of that is not there any more, or has been written by a program since.
    changed: Vec<Place>,
    sockets: Vec<UdpSocket>,
    /// How many changes there were.
    changes: u64,
    counters: Vec<u64>,
}

/// An element of a map: the map's name, and the key's bytes.
type Place = (&'static str, Vec<u8>);
/// Values' bytes.
type Written = HashMap<Place, Vec<u8>>;

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

fn keep_to(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Has this thread run on one processor alone: the nth of those that it may run on, from the first again after the last.
pub fn keep_to_a_processor(n: usize) {
    let may = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let processors: Vec<usize> = (0..CpuSet::count()).filter(|p| may.is_set(*p).unwrap()).collect();
    keep_to(processors[n % processors.len()]);
}

impl KernelWorld {
    /// Loads the programs; needs root.
    pub fn load() -> Self {
        // What one packet leaves in the scratch room the next one finds: on one processor, always the same.
        keep_to(sched_getcpu().unwrap());
        let ifindexes = interfaces();
        // More than a case needs. An LRU map hands every processor some of its room.
        let mut kernel = Kernel::with_room(64, 512, 512);
        let uplink = Uplink { ipv4: Addr::from(ip(HOST[0])), ipv6: Addr::from(ip(HOST[1])), ..Uplink::default() };
        kernel.map("UPLINKS").insert(ifindexes[0], uplink, 0).unwrap();
        kernel.map("UNSERVED").insert(ifindexes[1], 0u32, 0).unwrap();
        let counters = kernel.counters();
        let mut world = KernelWorld {
            kernel,
            ifindexes,
            world: World::default(),
            written: HashMap::new(),
            changed: vec![],
            sockets: vec![],
            changes: 0,
            counters,
        };
        world.become_world(&World::default());
        world
    }

    /// Makes the maps those of a world.
    pub fn become_world(&mut self, world: &World) {
        self.restore();
        if self.world.sockets != world.sockets {
            self.sockets.clear();
            self.sockets = world.sockets.iter().map(|port| UdpSocket::bind(("::", *port)).unwrap()).collect();
        }
        self.world = world.clone();
        let before = std::mem::replace(&mut self.written, written(world, &self.ifindexes));
        for ((map, key), value) in before.iter().filter(|(place, _)| !self.written.contains_key(*place)) {
            self.kernel.remove(map, key, value.len());
        }
        for (place, value) in self.written.iter().filter(|(place, value)| before.get(*place) != Some(*value)) {
            self.kernel.put(place.0, &place.1, value);
        }
    }

    /// What the daemon has written, anew: a case's changes and used up limits are undone.
    pub fn restore(&mut self) {
        self.changes = 0;
        let limits = self.written.keys().filter(|(map, _)| *map == "LIMITS");
        for place in self.changed.drain(..).chain(limits.cloned()) {
            self.kernel.put(place.0, &place.1, &self.written[&place]);
        }
    }

    /// Carries out a change.
    pub fn change(&mut self, change: &Change) {
        self.changes += 1;
        let removed = Removed::by(change, self.changes, &self.world, &self.ifindexes);
        let mut gone: Vec<Place> = vec![];
        gone.extend(removed.rules.iter().map(|rule| ("RULES", bytes(rule))));
        gone.extend(removed.publications.iter().map(|key| ("PUBLICATIONS", bytes(key))));
        gone.extend(removed.links.iter().map(|key| ("LINKS", bytes(key))));
        if let Some((ifindex, addrs)) = removed.endpoint {
            gone.push(("ENDPOINTS", bytes(&ifindex)));
            gone.extend(addrs.iter().map(|a| ("ADDRESSES", bytes(a))));
        }
        for place in gone {
            // What is not known cannot go.
            if let Some(value) = self.written.get(&place) {
                self.kernel.remove(place.0, &place.1, value.len());
                self.changed.push(place);
            }
        }
        if let Some((ifindex, endpoint)) = removed.another {
            // All of it was there before, and is put back with the rest.
            self.kernel.put("RULES", &bytes(&endpoint.rule), &bytes(&endpoint.generation));
            for (addr, value) in addresses(&endpoint, ifindex) {
                self.kernel.put("ADDRESSES", &bytes(&addr), &bytes(&value));
            }
            self.kernel.put("ENDPOINTS", &bytes(&ifindex), &bytes(&endpoint));
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
            At::Xdp => (packet_lab::kernel::XDP, None),
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
        let now = self.kernel.counters();
        let found = Verdict::ALL.iter().rfind(|v| now[**v as usize] != self.counters[**v as usize]);
        self.counters = now;
        found.map(|v| v.name())
    }

    /// Whether anything was counted that nobody has seen.
    pub fn surplus(&mut self) -> Option<&'static str> {
        self.counted(None)
    }

    /// All conversations, and what is known of fragments. All of it is forgotten, and what a packet has left in the scratch room.
    pub fn take_remembered(&mut self) -> Remembered {
        let k = &mut self.kernel;
        let remembered = Remembered {
            flows: k.take_conversations("FLOWS").into_iter().collect(),
            pending: k.take_conversations("PENDING").into_iter().collect(),
            fragments: k.take_all("FRAGMENTS").into_iter().collect(),
        };
        k.clear("SCRATCH", [0u8; SCRATCH]);
        remembered
    }

    /// Forgets all of that.
    pub fn forget(&mut self) {
        drop(self.take_remembered());
    }
}

fn bytes<T: Pod>(value: &T) -> Vec<u8> {
    // SAFETY: plain data without padding, as long as its type is.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn written(world: &World, ifindexes: &[u32; 9]) -> Written {
    let e = Entries::of(world, ifindexes);
    let config = Config { layout: LAYOUT, enforce: (!world.learning).into() };
    let mut w: Written = [(("CONFIG", bytes(&0u32)), bytes(&config))].into();
    w.extend(e.rules.iter().map(|(rule, generation)| (("RULES", bytes(rule)), bytes(generation))));
    w.extend(e.endpoints.iter().map(|(ifindex, endpoint)| (("ENDPOINTS", bytes(ifindex)), bytes(endpoint))));
    w.extend(e.addresses.iter().map(|(addr, value)| (("ADDRESSES", bytes(addr)), bytes(value))));
    let prefix = |addr: &Addr, bits: u8| bytes(&Key::new(bits.into(), *addr));
    w.extend(e.prefixes.iter().map(|(addr, bits, kind)| (("PREFIXES", prefix(addr, *bits)), bytes(kind))));
    w.extend(e.publications.iter().map(|(key, value)| (("PUBLICATIONS", bytes(key)), bytes(value))));
    w.extend(e.filters.iter().map(|(key, value)| (("FILTERS", bytes(&Key::new(192, *key))), bytes(value))));
    w.extend(e.limits.iter().map(|(generation, limit)| (("LIMITS", bytes(generation)), bytes(limit))));
    w.extend(e.links.iter().map(|(key, value)| (("LINKS", bytes(key)), bytes(value))));
    let mut words: HashMap<(&str, u32), u64> = HashMap::new();
    for (map, element, bit) in bits(&e) {
        *words.entry((map, element)).or_default() |= bit;
    }
    w.extend(words.into_iter().map(|((map, element), word)| ((map, bytes(&element)), bytes(&word))));
    w
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
