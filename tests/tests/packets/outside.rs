//! Sources that nobody outside has, and frames by which a filter might be passed.

use runtime_common::Verdict;
use runtime_common::maps::{PREFIX_BROADCAST, PREFIX_ISOLATED, PREFIX_NETWORK};
use runtime_common::packet::{TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

fn world() -> World {
    let mut w = World::new();
    for (first, bits, kind) in [
        ("172.17.0.0", 96 + 16, PREFIX_ISOLATED),
        ("fd00:17::", 64, PREFIX_ISOLATED),
        ("172.18.0.0", 96 + 16, PREFIX_NETWORK),
        ("fd00:18::", 64, PREFIX_NETWORK),
        ("192.0.2.255", 128, PREFIX_BROADCAST),
    ] {
        w.add_prefix(first, bits, kind);
    }
    for host in ["0.0.0.0", "::"] {
        w.publish(host, 8080, UDP, &WEB, 80);
        w.publish(host, 8080, TCP, &WEB, 80);
    }
    w
}

#[test]
fn a_published_port_is_for_machines_that_there_can_be() {
    let mut w = world();
    let cases = [
        ("a container's", "172.17.0.3", Verdict::SpoofedLocal),
        ("a container's, unused", "172.17.9.9", Verdict::SpoofedLocal),
        ("the broadcast address there", "172.17.255.255", Verdict::SpoofedLocal),
        ("an open network's", "172.18.0.2", Verdict::SpoofedLocal),
        ("an open network's, unused", "172.18.9.9", Verdict::SpoofedLocal),
        ("the host's", HOST, Verdict::SpoofedLocal),
        ("loopback", "127.0.0.1", Verdict::Loopback),
        ("unspecified", "0.0.0.0", Verdict::Martian),
        ("this network", "0.1.2.3", Verdict::Martian),
        ("multicast", "224.0.0.1", Verdict::Martian),
        ("multicast", "239.255.255.250", Verdict::Martian),
        ("broadcast", "255.255.255.255", Verdict::Martian),
        ("the uplink's broadcast address", "192.0.2.255", Verdict::Martian),
    ];
    let cases6 = [
        ("a container's, unused", "fd00:17::99", Verdict::SpoofedLocal),
        ("an open network's, unused", "fd00:18::99", Verdict::SpoofedLocal),
        ("loopback", "::1", Verdict::Loopback),
        ("unspecified", "::", Verdict::Martian),
        ("multicast", "ff02::1", Verdict::Martian),
        ("multicast", "ff0e::1234", Verdict::Martian),
    ];
    for at in [Uplink, Xdp] {
        for (cases, host) in [(&cases[..], HOST), (&cases6[..], HOST6)] {
            for (what, src, verdict) in cases {
                w.expect(what, at, &inbound(udp(src, 1, host, 8080)).build(), *verdict);
                w.expect(what, at, &inbound(tcp(src, 1, host, 8080, SYN)).build(), *verdict);
            }
        }
        // What is for the host is the host's own affair: DHCP, and whoever has no address yet.
        for (what, packet) in [
            ("DHCP", udp("0.0.0.0", 68, "255.255.255.255", 67)),
            ("DHCP, to one", udp("0.0.0.0", 68, HOST, 67)),
            ("a router's query", raw("0.0.0.0", "224.0.0.1", 2).payload(&[0x11, 0, 0, 0, 0, 0, 0, 0])),
            ("is it free", icmp("::", "ff02::1:ff00:1", 135, 0, [0; 4]).payload(&[0; 16])),
            ("somebody else's broadcast", udp(CLIENT, 1, "192.0.2.255", 137)),
        ] {
            w.expect(what, at, &inbound(packet).build(), Verdict::Host);
        }
    }
}

#[test]
fn addresses_of_ipv4_come_by_ipv4() {
    let mut w = world();
    let mapped = |a: &str| format!("::ffff:{a}");
    let raw6 = |src: &str, dst: &str| {
        let mut frame = inbound(udp("2001:db8::5", 1, "2001:db8::6", 8080)).build();
        for (at, a) in [(22, src), (38, dst)] {
            let a: std::net::Ipv6Addr = a.parse().unwrap();
            frame[at..at + 16].copy_from_slice(&a.octets());
        }
        frame
    };
    let cases = [
        (mapped(CLIENT), HOST6.to_owned()),
        (mapped("172.17.0.3"), HOST6.to_owned()),
        (CLIENT6.to_owned(), mapped(HOST)),
        (mapped(CLIENT), mapped(HOST)),
        (mapped(CLIENT), mapped(WEB.v4)),
    ];
    for (src, dst) in &cases {
        for at in [Uplink, Xdp, Entering("web", "up0"), Entering("web", "db")] {
            w.expect(&format!("{src} to {dst}"), at, &raw6(src, dst), Verdict::Martian);
        }
        let mut sent = raw6(src, dst);
        sent[6..12].copy_from_slice(&WEB.mac);
        w.expect(&format!("{src} to {dst}"), Leaving("web"), &sent, Verdict::Martian);
    }
}

#[test]
fn frames_with_a_priority_or_to_everybody_are_decided_like_any_other() {
    let mut w = world();
    let strange = udp(DB.v4, 1, HOST, 8080);
    for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        let packet = inbound(udp(CLIENT, 1, HOST, 8080)).macs(MAC_CLIENT, mac);
        let out = packet.clone().between(CLIENT, WEB.v4).ports(1, 80).ttl(63);
        w.forwards("to everybody", Uplink, &packet, Verdict::Published, &out);
        w.expect("to everybody", Uplink, &strange.clone().macs(MAC_CLIENT, mac).build(), Verdict::SpoofedLocal);
        // What is no packet at all the stack may throw away itself, and groups of IP are its own.
        let group = udp(DB.v4, 1, "224.0.0.251", 5353).macs(MAC_CLIENT, mac).build();
        let mut contradicts_itself = packet.build();
        contradicts_itself[38..40].copy_from_slice(&[0, 4]);
        for frame in [group, contradicts_itself] {
            let outcome = w.run(Uplink, &frame, 1);
            assert_eq!((outcome.code, outcome.counted), (-1, vec![]), "{mac:02x?}");
        }
    }
    // Behind a tag that the kernel has taken off.
    let within = |id: u16| inbound(udp(CLIENT, 1, HOST, 8080)).vlan(id).build();
    w.expect("a priority in a priority", Uplink, &within(0), Verdict::Malformed);
    w.expect("a priority in a priority", Uplink, &within(0x6000), Verdict::Malformed);
    let outcome = w.run(Uplink, &within(0x6007), 1);
    assert_eq!((outcome.code, outcome.counted), (-1, vec![]), "for the VLAN's own interface");
}

#[test]
fn what_hides_its_ports_passes_no_filter_to_the_hosts_own_sockets() {
    let mut w = world();
    let header = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let datagram = [0, 1, 0x1f, 0x90, 0, 8, 0, 0];
    let chain = [60, 60, 60, 60, 60, 17].map(header).concat();
    let long = [&[17, 30][..], &[0; 246]].concat();
    let cases = [
        ("six headers", 60, [&chain[..], &datagram].concat(), Verdict::ProtocolUnsupported),
        ("a long header", 60, [&long[..], &datagram].concat(), Verdict::ProtocolUnsupported),
        (
            "behind a fragment header",
            44,
            [&[60, 0, 0, 0, 0, 0, 0, 9][..], &header(17), &datagram].concat(),
            Verdict::ProtocolUnsupported,
        ),
        (
            "more of the route to go",
            43,
            [&[17, 0, 0, 1, 0, 0, 0, 0][..], &datagram].concat(),
            Verdict::ProtocolUnsupported,
        ),
        ("authenticated", 51, [&[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &datagram].concat(), Verdict::Host),
        ("mobility", 135, [59, 0, 0, 0, 0, 0, 0, 0].to_vec(), Verdict::Host),
    ];
    for (what, protocol, payload, verdict) in cases {
        for at in [Uplink, Xdp] {
            let packet = inbound(raw(CLIENT6, HOST6, protocol).payload(&payload)).build();
            w.expect(what, at, &packet, verdict);
            let beyond = inbound(raw(CLIENT6, "2001:db8:77::1", protocol).payload(&payload)).build();
            w.expect(what, at, &beyond, Verdict::Host);
        }
        // An open network's container speaks to the host as anybody does.
        let from_container = sent(raw(ONE.v6, HOST6, protocol).payload(&payload), &ONE).build();
        let verdict = if verdict == Verdict::Host { Verdict::Network } else { verdict };
        w.expect(what, Leaving("one"), &from_container, verdict);
        let to_sibling = sent(raw(ONE.v6, TWO.v6, protocol).payload(&payload), &ONE).build();
        w.expect(what, Leaving("one"), &to_sibling, Verdict::Network);
    }
}
