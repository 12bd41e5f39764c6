//! What a container may say of itself.

use runtime_common::Verdict;
use runtime_common::packet::{TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

const STRANGER: [u8; 6] = [2, 6, 6, 6, 6, 6];

/// An Ethernet frame of some other protocol.
fn other(ethertype: u16, by: &Container) -> Vec<u8> {
    let mut b = vec![0xff; 6];
    b.extend(by.mac);
    b.extend(ethertype.to_be_bytes());
    b.extend([0; 50]);
    b
}

#[test]
fn an_answered_conversation_is_its_own_containers_alone() {
    let mut w = World::new();
    w.publish("0.0.0.0", 5353, UDP, &WEB, 53);
    w.link(&WEB, &DB, 5432, UDP);
    let (answer, asked) = (udp(WEB.v4, 53, CLIENT, 40000), udp(WEB.v4, 7000, DB.v4, 5432));
    let mut counts = |what: &str, at: At, packet: &PacketBuilder, verdict: Verdict| {
        assert_eq!(w.run(at, &packet.build(), 1).counted, [(verdict, 1)], "{what}");
    };
    counts("question", Uplink, &inbound(udp(CLIENT, 40000, HOST, 5353)), Verdict::Published);
    counts("answer", Leaving("web"), &sent(answer.clone(), &WEB), Verdict::PublishedReply);
    counts("the client goes on", Uplink, &inbound(udp(CLIENT, 40000, HOST, 5353)), Verdict::Published);
    counts("question over a link", Leaving("web"), &sent(asked.clone(), &WEB), Verdict::Linked);
    counts("its answer", Leaving("db"), &sent(udp(DB.v4, 5432, WEB.v4, 7000), &DB), Verdict::LinkedReply);
    for (packet, own) in [(answer, Verdict::PublishedReply), (asked, Verdict::Linked)] {
        counts("its own", Leaving("web"), &sent(packet.clone(), &WEB), own);
        let stranger = packet.clone().macs(STRANGER, MAC_BRIDGE);
        counts("a stranger's MAC address", Leaving("web"), &stranger, Verdict::SpoofedMac);
        counts("by a sibling", Leaving("db"), &sent(packet.clone(), &DB), Verdict::SpoofedAddress);
        counts("by a sibling with its MAC address", Leaving("db"), &sent(packet.clone(), &WEB), Verdict::SpoofedMac);
        counts("by a closed interface", Leaving(UNKNOWN), &sent(packet.clone(), &WEB), Verdict::EndpointClosed);
        counts("its own again", Leaving("web"), &sent(packet, &WEB), own);
    }
    assert_eq!(w.flows("FLOWS").len(), 4);
}

#[test]
fn a_container_has_its_own_addresses_only() {
    let mut w = World::new();
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("its own", sent(udp(WEB.v4, 1, FAR, 53), &WEB).build(), Verdict::Outbound),
        ("its own", sent(udp(WEB.v6, 1, CLIENT6, 53), &WEB).build(), Verdict::Outbound),
        ("a MAC address", udp(WEB.v4, 1, FAR, 53).macs(STRANGER, MAC_BRIDGE).build(), Verdict::SpoofedMac),
        ("a sibling's", udp(DB.v4, 1, FAR, 53).macs(DB.mac, MAC_BRIDGE).build(), Verdict::SpoofedMac),
        ("a sibling's address", sent(udp(DB.v4, 1, FAR, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("a sibling's address", sent(udp(DB.v6, 1, CLIENT6, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("the host's address", sent(udp("172.17.0.1", 1, FAR, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("a loopback address", sent(udp("127.0.0.1", 1, FAR, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("no address", sent(udp("0.0.0.0", 68, "255.255.255.255", 67), &WEB).build(), Verdict::SpoofedAddress),
        ("no address", sent(udp("::", 1, CLIENT6, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("link-local to beyond", sent(udp("fe80::1", 1, CLIENT6, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("link-local multicast", sent(udp(WEB_LINK_LOCAL, 1, "ff02::fb", 5353), &WEB).build(), Verdict::Multicast),
        ("multicast", sent(udp(WEB.v4, 1, "224.0.0.251", 5353), &WEB).build(), Verdict::Multicast),
        ("broadcast", sent(udp(WEB.v4, 1, "255.255.255.255", 67), &WEB).build(), Verdict::Multicast),
        ("spoofed multicast", sent(udp(DB.v4, 1, "224.0.0.251", 5353), &WEB).build(), Verdict::SpoofedAddress),
        ("VLAN", sent(udp(WEB.v4, 1, FAR, 53), &WEB).vlan(7).build(), Verdict::EtherType),
        ("LLDP", other(0x88cc, &WEB), Verdict::EtherType),
        ("802.3", other(38, &WEB), Verdict::EtherType),
        ("MPLS", other(0x8847, &WEB), Verdict::EtherType),
    ];
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("web"), &packet, verdict);
    }
    w.expect("unknown", Leaving(UNKNOWN), &sent(udp(WEB.v4, 1, FAR, 53), &WEB).build(), Verdict::EndpointClosed);
    let frame = arp(WEB.mac, WEB.mac, WEB.v4, DB.v4, false);
    w.expect("unknown", Leaving(UNKNOWN), &frame, Verdict::EndpointClosed);
}

#[test]
fn where_nothing_is_isolated_a_container_may_be_a_router() {
    let mut w = World::new();
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("router advertisement", sent(icmp("fe80::12", "ff02::1", 134, 0, [0; 4]), &ONE).build(), Verdict::Multicast),
        ("redirect", sent(icmp("fe80::12", TWO.v6, 137, 0, [0; 4]), &ONE).build(), Verdict::Network),
        ("LLDP", other(0x88cc, &ONE), Verdict::Network),
        ("another source", sent(udp("10.244.1.7", 1, FAR, 53), &ONE).build(), Verdict::Network),
        ("another source", sent(udp("fe80::12", 1, TWO.v6, 53), &ONE).build(), Verdict::Network),
        ("another MAC address", udp("10.244.1.7", 1, FAR, 53).macs([2; 6], MAC_BRIDGE).build(), Verdict::Network),
        ("ARP for a virtual address", arp([2; 6], [2; 6], "172.18.0.100", TWO.v4, true), Verdict::Neighbour),
        ("an error", sent(icmp(ONE.v4, TWO.v4, 3, 3, [0; 4]), &ONE).build(), Verdict::Network),
        (
            "a header that contradicts itself",
            sent(udp(ONE.v4, 1, TWO.v4, 53), &ONE).build()[..38].to_vec(),
            Verdict::Network,
        ),
        ("another open network", sent(raw(ONE.v4, "172.18.0.3", 50), &ONE).build(), Verdict::Network),
        ("an isolated network", sent(udp(ONE.v4, 1, WEB.v4, 53), &ONE).build(), Verdict::OtherNetwork),
        ("loopback", sent(udp(ONE.v4, 1, "127.0.0.1", 53), &ONE).build(), Verdict::Loopback),
    ];
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("one"), &packet, verdict);
    }
    // Into an isolated network no such source helps, be it one that a container there has spoken to.
    w.run(Leaving("web"), &sent(udp(WEB.v4, 4000, FAR, 53), &WEB).build(), 1);
    for (src, dst) in [("10.244.1.7", WEB.v4), (FAR, WEB.v4), ("fe80::12", WEB.v6)] {
        w.expect("another source", Leaving("one"), &sent(udp(src, 53, dst, 4000), &ONE).build(), Verdict::OtherNetwork);
    }
    let spoofed = udp("10.244.1.7", 1, WEB.v4, 53).build();
    w.expect("another source", Entering("web", "one"), &spoofed, Verdict::NotPublished);
}

#[test]
fn while_learning_nothing_is_dropped() {
    let mut w = World::new();
    w.enforce(false);
    let cases = [
        (Leaving("web"), tcp(WEB.v4, 1, DB.v4, 80, SYN).macs(WEB.mac, DB.mac), Verdict::NotLinked),
        (Leaving("web"), udp(DB.v4, 1, FAR, 53).macs(WEB.mac, DB.mac), Verdict::SpoofedAddress),
        (Leaving(UNKNOWN), udp(DB.v4, 1, FAR, 53).macs(WEB.mac, DB.mac), Verdict::EndpointClosed),
        (Entering("web", "db"), tcp(DB.v4, 1, WEB.v4, 80, SYN).macs(DB.mac, WEB.mac), Verdict::NotLinked),
        (Uplink, inbound(tcp(CLIENT, 1, WEB.v4, 80, SYN)), Verdict::NotPublished),
        (Xdp, inbound(tcp(CLIENT, 1, WEB.v4, 80, SYN)), Verdict::NotPublished),
        (Uplink, inbound(tcp(CLIENT, 1, HOST, 80, SYN | FIN)), Verdict::Malformed),
    ];
    for (at, packet, verdict) in cases {
        let packet = packet.build();
        let outcome = w.run(at, &packet, 1);
        let pass = if matches!(at, Xdp) { 2 } else { -1 };
        assert_eq!((outcome.code, outcome.counted), (pass, vec![(verdict, 1)]), "{verdict} at {at:?}");
        assert_eq!(outcome.packet, packet, "{verdict} at {at:?}");
    }
}

#[test]
fn nobody_is_believed_about_somebody_elses_conversation() {
    let mut w = World::new();
    w.link(&WEB, &DB, 5432, TCP);
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    for (from, to, packet) in [
        // Over a link, and through a publication.
        ("web", DB.v4, sent(tcp(WEB.v4, 4000, DB.v4, 5432, SYN), &WEB)),
        ("db", HOST, sent(tcp(DB.v4, 4001, HOST, 8080, SYN), &DB)),
    ] {
        assert_eq!(w.run(Leaving(from), &packet.build(), 1).code, 7, "{from} reaches {to}");
    }
    // A third container quotes what it has never been sent: neither end hears of it.
    let (recipient, client) = (tcp(WEB.v4, 4000, DB.v4, 5432, SYN), tcp(DB.v4, 4001, WEB.v4, 80, SYN));
    for (victim, quoted) in [(WEB.v4, &recipient), (DB.v4, &client)] {
        let error = sent(unreachable(ONE.v4, victim, quoted), &ONE).build();
        w.expect("an open network's container", Leaving("one"), &error, Verdict::IcmpError);
    }
    let error = sent(unreachable(WEB.v4, DB.v4, &recipient), &WEB).build();
    w.expect("the sender about its own packet", Leaving("web"), &error, Verdict::IcmpError);
    // The one that it was for is believed.
    let error = sent(unreachable(DB.v4, WEB.v4, &recipient), &DB);
    assert_eq!(w.run(Leaving("db"), &error.build(), 1).counted, [(Verdict::LinkedReply, 1)]);
}

#[test]
fn an_outsider_with_a_containers_address_reaches_no_published_port() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, UDP, &WEB, 80);
    for src in [DB.v4, ONE.v4] {
        for at in [Uplink, Xdp] {
            w.expect(src, at, &inbound(udp(src, 1, HOST, 8080)).build(), Verdict::SpoofedLocal);
        }
    }
}
