//! What no honest container or neighbour sends.

use std::net::Ipv4Addr;
use std::time::Duration;

use tests::frames::{BROADCAST, Way, Wire, holds};
use tests::sockets::Talk;
use tests::{CLIENT, Container, HOST, Image, Lab};

/// Long enough for a frame that would arrive to have arrived.
const A_WHILE: Duration = Duration::from_millis(300);

struct Scene {
    _up: tests::Up,
    lab: Lab,
    target: Container,
    from: Wire,
    to: Wire,
    honest: Way,
}

/// A recipient that may talk to its source: what is dropped here is dropped for what it is.
fn scene(title: &str) -> Scene {
    let lab = Lab::builder(title).images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let target = lab.run("target", &["-p", "7:7/udp", "echo"]);
    let sender = lab.run("sender", &["--link", "target", "echo"]);
    let way =
        Way { from_mac: sender.ns().mac("eth0"), to_mac: target.ns().mac("eth0"), from: sender.ip(), to: target.ip() };
    Talk::when_up(&sender.ns(), target.at(7));
    let (from, to) = (Wire::open(&sender.ns(), "eth0"), Wire::open(&target.ns(), "eth0"));
    from.send(&way.udp(4000, 7, b"an honest datagram"));
    let arrives = to.find(Duration::from_secs(2), |f| holds(f, b"an honest datagram")).is_some();
    assert!(arrives, "a datagram made by hand passes where it is allowed");
    Scene { _up: up, lab, target, from, to, honest: way }
}

impl Scene {
    #[track_caller]
    fn drops(&self, reason: &str, frame: &[u8], mark: &[u8]) {
        self.lab.assert_dropped(reason, || self.from.send(frame));
        assert!(self.to.find(A_WHILE, |f| holds(f, mark)).is_none(), "dropped as {reason}, and yet it arrives");
    }
}

#[test]
fn a_container_sends_only_from_its_own_addresses() {
    let scene = scene("spoofed sources");
    let way = scene.honest;
    let mac = Way { from_mac: [2, 0, 0, 0, 0, 9], ..way };
    scene.drops("spoofed_mac", &mac.udp(4000, 7, b"another MAC"), b"another MAC");
    let neighbour = Way { from: Ipv4Addr::new(172, 17, 0, 99), ..way };
    scene.drops("spoofed_address", &neighbour.udp(4000, 7, b"a neighbour"), b"a neighbour");
    let stranger = Way { from: CLIENT, ..way };
    scene.drops("spoofed_address", &stranger.udp(4000, 7, b"a stranger"), b"a stranger");
    let gateway = Way { from: Ipv4Addr::new(172, 17, 0, 1), ..way };
    scene.drops("spoofed_address", &gateway.ping(1, b"the gateway"), b"the gateway");
    let target = Way { from: scene.target.ip(), ..way };
    scene.drops("spoofed_address", &target.udp(4000, 7, b"the target itself"), b"the target itself");
}

#[test]
fn a_container_answers_for_its_own_address_alone() {
    let scene = scene("forged ARP");
    let way = scene.honest;
    // An answer that nobody asked for (RFC 826): Ethernet, IPv4, lengths 6 and 4, reply.
    let arp = |mac: [u8; 6], address: Ipv4Addr| {
        let head = [0, 1, 8, 0, 6, 4, 0, 2];
        let body = [&head[..], &mac, &address.octets(), &way.to_mac, &way.to.octets()].concat();
        way.ethernet(0x0806, &body)
    };
    let gateway = Ipv4Addr::new(172, 17, 0, 1);
    scene.drops("spoofed_address", &arp(way.from_mac, gateway), &gateway.octets());
    let mac = [2, 0, 0, 0, 0, 9];
    scene.drops("spoofed_mac", &arp(mac, way.from), &mac);
}

#[test]
fn only_what_ip_needs_passes_between_containers() {
    let scene = scene("other EtherTypes");
    // Local experiments, AppleTalk, MPLS, PPPoE, 802.1X, LLDP (IEEE 802 Numbers).
    for ether_type in [0x88b5, 0x809b, 0x8847, 0x8864, 0x888e, 0x88cc] {
        let mark = format!("EtherType {ether_type:04x}");
        scene.drops("ethertype", &scene.honest.ethernet(ether_type, mark.as_bytes()), mark.as_bytes());
    }
    // In a VLAN, an IPv4 packet that would be allowed without.
    let packet = scene.honest.udp(4000, 7, b"in a VLAN");
    let tagged = [&[0, 5], &packet[12..]].concat();
    scene.drops("ethertype", &scene.honest.ethernet(0x8100, &tagged), b"in a VLAN");
    let everybody = Way { to_mac: BROADCAST, ..scene.honest };
    scene.drops("ethertype", &everybody.ethernet(0x88b5, b"to everybody"), b"to everybody");
}

#[test]
fn nobody_outside_speaks_as_a_container_or_as_the_host_itself() {
    for xdp in ["off", "native", "generic"] {
        let lab = Lab::builder("spoofed from outside").images(&[Image::Echo]).without_client_offloads().build();
        let _up = lab.up(&["--xdp", xdp]);
        let target = lab.run("target", &["-p", "7:7/udp", "echo"]);
        let sibling = lab.run("sibling", &["echo"]);
        tests::sockets::ask_when_up(lab.client(), (HOST, 7), b"words");
        let wire = Wire::open(lab.client(), "eth0");
        let inside = Wire::open(&target.ns(), "eth0");
        let way = Way { from_mac: lab.client().mac("eth0"), to_mac: lab.host().mac("eth0"), from: CLIENT, to: HOST };
        let sources = [
            (sibling.ip(), "spoofed_local"),
            (target.ip(), "spoofed_local"),
            (HOST, "spoofed_local"),
            (Ipv4Addr::LOCALHOST, "loopback"),
            (Ipv4Addr::new(172, 17, 99, 99), "spoofed_local"),
            (Ipv4Addr::UNSPECIFIED, "martian"),
            (Ipv4Addr::BROADCAST, "martian"),
            (Ipv4Addr::new(192, 0, 2, 255), "martian"),
            (Ipv4Addr::new(224, 0, 0, 1), "martian"),
        ];
        for (from, reason) in sources {
            let mark = format!("from {from}");
            let frame = Way { from, ..way }.udp(4000, 7, mark.as_bytes());
            lab.assert_dropped(reason, || wire.send(&frame));
            assert!(inside.find(A_WHILE, |f| holds(f, mark.as_bytes())).is_none(), "--xdp {xdp}: {mark} arrives");
        }
    }
}
