//! A host with two isolated containers, as tables.

use runtime_common::decide::{Decision, endpoint, endpoint_known, gate, uplink};
use runtime_common::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, Address, ENDPOINT_ISOLATED, Endpoint, FlowKey, Link, LinkKey, Publication,
    PublicationKey, Tuple, Zone,
};
use runtime_common::packet::{Headers, Message, ethernet, headers};
use runtime_common::{Addr, Verdict};

use super::frame::Frame;
use memory_tables::Memory;
use packet_builder::{PacketBuilder, ip};

pub const HOST: &str = "192.0.2.1";
pub const HOST6: &str = "2001:db8::1";
pub const CLIENT: &str = "198.51.100.7";
pub const CLIENT6: &str = "2001:db8:9::9";
/// Addresses of the containers behind interfaces 2 and 3.
pub const WEB: (&str, &str) = ("172.17.0.2", "fd00:17::2");
pub const DB: (&str, &str) = ("172.17.0.3", "fd00:17::3");

/// Room to read headers into.
pub const EMPTY: Headers = Headers {
    key: FlowKey {
        tuple: Tuple { src: Addr::ANY_V6, dst: Addr::ANY_V6, sport: 0, dport: 0 },
        protocol: 0,
        zone: 0,
        reserved: 0,
    },
    id: 0,
    bytes: 0,
    l4: 0,
    seq: 0,
    end: 0,
    ack: 0,
    option: 0,
    window: 0,
    window_scale: 0,
    flags: 0,
    message: Message::Other,
    ttl: 0,
    v4: false,
    first_fragment: false,
    ended: false,
};

/// Reads the headers of a packet.
pub fn read(packet: &[u8], zone: Zone) -> Result<Headers, Verdict> {
    let frame = Frame(packet.to_vec());
    let mut h = EMPTY;
    headers(&frame, ethernet(&frame)?.ethertype, zone, &mut h).map(|()| h)
}

pub fn addr(s: &str) -> Addr {
    Addr::from(ip(s))
}

/// The tables, and the containers by interface.
pub struct World {
    pub tables: Memory,
    pub endpoints: [Endpoint; 2],
}

impl World {
    pub fn new() -> Self {
        let mut tables = Memory::default();
        tables.now.set(1);
        let endpoints = [(2, WEB), (3, DB)].map(|(n, (v4, v6))| {
            let mac = [2, 0, 0, 0, 17, n];
            tables.rules.insert(n.into(), 100 + u64::from(n));
            for a in [v4, v6] {
                let flags = ENDPOINT_ISOLATED as u8;
                let value = Address { ifindex: n.into(), bridge: 1, mac, kind: ADDRESS_ENDPOINT, flags };
                tables.addresses.insert(addr(a), value);
            }
            let endpoint = Endpoint {
                generation: 100 + u64::from(n),
                container: n.into(),
                ipv4: addr(v4),
                ipv6: addr(v6),
                gateway4: addr("172.17.0.1"),
                gateway6: addr("fd00:17::1"),
                rule: n.into(),
                bridge: 1,
                mac,
                flags: ENDPOINT_ISOLATED,
            };
            tables.endpoints.insert(n.into(), endpoint);
            endpoint
        });
        for a in [HOST, HOST6, "172.17.0.1", "fd00:17::1"] {
            tables.addresses.insert(addr(a), Address { kind: ADDRESS_HOST, ..Address::default() });
        }
        World { tables, endpoints }
    }

    /// Publishes a port of the first container under a rule.
    pub fn publish(&mut self, host: &str, port: u16, protocol: u8, container_port: u16, rule: u32, generation: u64) {
        let key = PublicationKey { addr: addr(host), port: port.to_be(), protocol, reserved: 0 };
        let value = Publication {
            generation,
            addr: addr(if ip(host).is_ipv4() { WEB.0 } else { WEB.1 }),
            rule,
            ifindex: 2,
            bridge: 1,
            port: container_port.to_be(),
            mac: self.endpoints[0].mac,
            ..Publication::default()
        };
        self.tables.publications.insert(key, value);
        self.tables.rules.insert(rule, generation);
    }

    /// Opens a port of the second container to the first.
    pub fn link(&mut self, port: u16, protocol: u8, rule: u32) {
        for (recipient, source) in [(WEB.0, DB.0), (WEB.1, DB.1)] {
            let key =
                LinkKey { recipient: addr(recipient), source: addr(source), port: port.to_be(), protocol, reserved: 0 };
            self.tables.links.insert(key, Link { generation: 500, rule, reserved: 0 });
        }
        self.tables.rules.insert(rule, 500);
    }

    /// What is decided where a packet comes from outside.
    pub fn uplink(&self, packet: &PacketBuilder) -> Decision {
        let packet = packet.build();
        let mut h = read(&packet, Zone::Uplink).unwrap();
        uplink(&Frame(packet), &self.tables, &mut h)
    }

    /// What is decided where a container sends a packet; 0 or 1.
    pub fn endpoint(&self, which: usize, packet: &PacketBuilder) -> Decision {
        let packet = packet.build();
        let mut h = read(&packet, Zone::Endpoint).unwrap();
        let frame = Frame(packet);
        let (mac, ifindex) = (ethernet(&frame).unwrap().src, 2 + which as u32);
        endpoint_known(&self.tables, ifindex, mac, &h)
            .unwrap_or_else(|| endpoint(&frame, &self.tables, &self.endpoints[which], ifindex, &mut h))
    }

    /// What is decided where a packet is about to enter a container by the bridge.
    pub fn gate(&self, which: usize, packet: &PacketBuilder) -> Decision {
        self.gate_from(1, which, packet)
    }

    /// As [`World::gate`], where it came in by another interface than the uplink.
    pub fn gate_from(&self, ingress: u32, which: usize, packet: &PacketBuilder) -> Decision {
        let packet = packet.build();
        let mut h = read(&packet, Zone::Gate).unwrap();
        gate(&Frame(packet), &self.tables, &self.endpoints[which], &mut h, ingress)
    }
}
