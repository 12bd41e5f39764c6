//! Who says what of addresses on an isolated network, and what routers alone have to say.

use runtime_common::Verdict;
use runtime_common::maps::PREFIX_ISOLATED;

use packet_builder::*;
use packet_lab::world::*;

/// Options with the container's own MAC address: of a solicitation, and of an advertisement.
const SOURCE: &[u8] = &[1, 1, 2, 0, 0, 0, 17, 2];
const TARGET: &[u8] = &[2, 1, 2, 0, 0, 0, 17, 2];
/// The same with its neighbour's.
const DBS_SOURCE: &[u8] = &[1, 1, 2, 0, 0, 0, 17, 3];
const DBS_TARGET: &[u8] = &[2, 1, 2, 0, 0, 0, 17, 3];
/// What tells a looped back solicitation (RFC 7527).
const NONCE: &[u8] = &[14, 1, 1, 2, 3, 4, 5, 6];
/// The groups in which the containers are asked for.
const WEBS_GROUP: &str = "ff02::1:ff00:2";
const DBS_GROUP: &str = "ff02::1:ff00:3";

/// A neighbour solicitation (135) or advertisement (136) about `target`.
fn neighbour(src: &str, dst: &str, kind: u8, target: &str) -> PacketBuilder {
    with_options(src, dst, kind, target, &[])
}

fn with_options(src: &str, dst: &str, kind: u8, target: &str, options: &[u8]) -> PacketBuilder {
    let std::net::IpAddr::V6(target) = ip(target) else { panic!("neighbour discovery is for IPv6") };
    icmp(src, dst, kind, 0, [0x60, 0, 0, 0]).payload(&[&target.octets(), options].concat()).ttl(255)
}

/// Whether `web` may send it.
fn expect_all(w: &mut World, cases: Vec<(&str, PacketBuilder, Verdict)>) {
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("web"), &sent(packet, &WEB).build(), verdict);
    }
}

#[test]
fn a_container_advertises_its_own_addresses_alone() {
    let mut w = World::new();
    let advertise = |src, dst, target, options| with_options(src, dst, 136, target, options);
    expect_all(
        &mut w,
        vec![
            ("to a sibling", advertise(WEB.v6, DB.v6, WEB.v6, TARGET), Verdict::Neighbour),
            ("to all", advertise(WEB_LINK_LOCAL, "ff02::1", WEB_LINK_LOCAL, TARGET), Verdict::Neighbour),
            ("without its MAC address", advertise(WEB.v6, DB.v6, WEB.v6, &[]), Verdict::Neighbour),
            ("a sibling's", advertise(WEB_LINK_LOCAL, "ff02::1", DB.v6, TARGET), Verdict::SpoofedAddress),
            ("a sibling's, to the host", advertise(WEB.v6, "fd00:17::1", DB.v6, TARGET), Verdict::SpoofedAddress),
            ("a sibling's link-local", advertise(WEB.v6, "ff02::1", DB_LINK_LOCAL, TARGET), Verdict::SpoofedAddress),
            ("nobody's", advertise(WEB_LINK_LOCAL, "ff02::1", "fe80::99", TARGET), Verdict::SpoofedAddress),
            ("by a sibling", advertise(DB_LINK_LOCAL, "ff02::1", WEB.v6, TARGET), Verdict::SpoofedAddress),
            ("by nobody", advertise("::", "ff02::1", WEB.v6, TARGET), Verdict::SpoofedAddress),
            ("a sibling's MAC address", advertise(WEB.v6, DB.v6, WEB.v6, DBS_TARGET), Verdict::SpoofedMac),
            ("an option of questions", advertise(WEB.v6, DB.v6, WEB.v6, SOURCE), Verdict::NeighbourOption),
            ("a nonce", advertise(WEB.v6, DB.v6, WEB.v6, NONCE), Verdict::NeighbourOption),
            ("in fragments", advertise(WEB.v6, DB.v6, WEB.v6, TARGET).fragment(0, 24), Verdict::Fragment),
        ],
    );
}

#[test]
fn a_container_asks_well_and_as_itself() {
    let mut w = World::new();
    w.add_prefix("172.17.0.0", 96 + 16, PREFIX_ISOLATED);
    w.add_prefix("fd00:17::", 64, PREFIX_ISOLATED);
    let ask = |src, dst, target, options| with_options(src, dst, 135, target, options);
    let two = [SOURCE, NONCE].concat();
    let three = [SOURCE, NONCE, NONCE].concat();
    let mtu = [5, 1, 0, 0, 0, 0, 2, 0];
    let prefix = [&[3, 4][..], &[0; 30]].concat();
    expect_all(
        &mut w,
        vec![
            ("for the host", ask(WEB.v6, "ff02::1:ff00:1", "fd00:17::1", SOURCE), Verdict::Multicast),
            ("the host itself", ask(WEB.v6, "fd00:17::1", "fd00:17::1", SOURCE), Verdict::Host),
            ("for a sibling", ask(WEB_LINK_LOCAL, DBS_GROUP, DB.v6, SOURCE), Verdict::Neighbour),
            ("a sibling", ask(WEB.v6, DB.v6, DB.v6, SOURCE), Verdict::Neighbour),
            ("both options", ask(WEB_LINK_LOCAL, DBS_GROUP, DB.v6, &two), Verdict::Neighbour),
            (
                "with a sibling's address",
                ask(DB_LINK_LOCAL, "ff02::1:ff00:1", "fd00:17::1", SOURCE),
                Verdict::SpoofedAddress,
            ),
            ("with nobody's address", ask("fe80::99", "ff02::1:ff00:1", "fd00:17::1", SOURCE), Verdict::SpoofedAddress),
            ("with a sibling's MAC address", ask(WEB.v6, DB.v6, DB.v6, DBS_SOURCE), Verdict::SpoofedMac),
            ("one about another", ask(WEB.v6, DB.v6, "fd00:17::1", SOURCE), Verdict::NeighbourTarget),
            ("all", ask(WEB.v6, "ff02::1", DB.v6, SOURCE), Verdict::NeighbourTarget),
            ("another's group", ask(WEB.v6, DBS_GROUP, "fd00:17::1", SOURCE), Verdict::NeighbourTarget),
            ("whoever is not known", ask(WEB.v6, "ff02::1:ff00:9", "fd00:17::9", SOURCE), Verdict::UnknownEndpoint),
            ("an MTU", ask(WEB.v6, DB.v6, DB.v6, &mtu), Verdict::NeighbourOption),
            ("a prefix", ask(WEB.v6, DB.v6, DB.v6, &prefix), Verdict::NeighbourOption),
            ("an option of answers", ask(WEB.v6, DB.v6, DB.v6, TARGET), Verdict::NeighbourOption),
            ("three options", ask(WEB.v6, DB.v6, DB.v6, &three), Verdict::NeighbourOption),
            ("half an option", ask(WEB.v6, DB.v6, DB.v6, &SOURCE[..4]), Verdict::Malformed),
            (
                "an option without length",
                ask(WEB.v6, DB.v6, DB.v6, &[1, 0, 2, 0, 0, 0, 17, 2]),
                Verdict::NeighbourOption,
            ),
            // Duplicate address detection: whoever is asked like this gives its address up, if it was about to use it.
            ("is its own free", ask("::", WEBS_GROUP, WEB.v6, NONCE), Verdict::Neighbour),
            ("is its own link-local free", ask("::", "ff02::1:ff00:1102", WEB_LINK_LOCAL, NONCE), Verdict::Neighbour),
            ("is a sibling's free", ask("::", DBS_GROUP, DB.v6, NONCE), Verdict::SpoofedAddress),
            (
                "is a sibling's link-local free",
                ask("::", "ff02::1:ff00:1103", DB_LINK_LOCAL, NONCE),
                Verdict::SpoofedAddress,
            ),
            ("is the host's free", ask("::", "ff02::1:ff00:1", "fd00:17::1", NONCE), Verdict::SpoofedAddress),
            ("its own, not in its group", ask("::", DB.v6, WEB.v6, NONCE), Verdict::NeighbourTarget),
        ],
    );
}

#[test]
fn arp_is_about_ones_own_addresses_alone() {
    const STRANGER: [u8; 6] = [2, 6, 6, 6, 6, 6];
    let mut w = World::new();
    w.add_prefix("172.17.0.0", 96 + 16, PREFIX_ISOLATED);
    let mut reverse = arp(WEB.mac, WEB.mac, WEB.v4, "172.17.0.1", false);
    reverse[21] = 8;
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("a question", arp(WEB.mac, WEB.mac, WEB.v4, DB.v4, false), Verdict::Neighbour),
        ("an answer", arp(WEB.mac, WEB.mac, WEB.v4, "172.17.0.1", true), Verdict::Neighbour),
        ("unasked", arp(WEB.mac, WEB.mac, WEB.v4, WEB.v4, true), Verdict::Neighbour),
        ("a probe", arp(WEB.mac, WEB.mac, "0.0.0.0", WEB.v4, false), Verdict::Neighbour),
        ("a probe for a sibling's", arp(WEB.mac, WEB.mac, "0.0.0.0", DB.v4, false), Verdict::SpoofedAddress),
        ("as a sibling", arp(WEB.mac, WEB.mac, DB.v4, "172.17.0.1", true), Verdict::SpoofedAddress),
        ("as the host", arp(WEB.mac, WEB.mac, "172.17.0.1", DB.v4, true), Verdict::SpoofedAddress),
        ("with a sibling's MAC address", arp(WEB.mac, DB.mac, WEB.v4, DB.v4, false), Verdict::SpoofedMac),
        ("by a stranger", arp(STRANGER, WEB.mac, WEB.v4, DB.v4, false), Verdict::SpoofedMac),
        ("for whoever is not known", arp(WEB.mac, WEB.mac, WEB.v4, "172.17.0.9", false), Verdict::UnknownEndpoint),
        ("neither asks nor answers", reverse, Verdict::Malformed),
    ];
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("web"), &packet, verdict);
    }
}

#[test]
fn a_container_is_no_router() {
    let mut w = World::new();
    let igmp = |dst, kind| raw(WEB.v4, dst, 2).payload(&[kind, 0, 0, 0, 224, 0, 0, 251]);
    // As the kernel sends them: behind a hop-by-hop header with a router alert.
    let mld = |dst, kind: u8| {
        let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
        let message = [&[58, 0, 5, 2, 0, 0, 1, 0, kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat();
        raw(WEB_LINK_LOCAL, dst, 0).payload(&message).ttl(1)
    };
    let icmp6 = |dst, kind| icmp(WEB_LINK_LOCAL, dst, kind, 0, [0; 4]).ttl(255);
    expect_all(
        &mut w,
        vec![
            ("router solicitation", icmp6("ff02::2", 133), Verdict::Multicast),
            ("router advertisement", icmp6("ff02::1", 134), Verdict::RouterMessage),
            ("router advertisement", icmp(WEB.v6, DB.v6, 134, 0, [0; 4]), Verdict::RouterMessage),
            ("redirect", icmp6(DB.v6, 137), Verdict::RouterMessage),
            ("redirect", icmp(WEB.v4, DB.v4, 5, 1, [0; 4]), Verdict::RouterMessage),
            ("redirect", icmp(WEB.v4, "172.17.0.1", 5, 1, [0; 4]), Verdict::RouterMessage),
            ("router advertisement", icmp(WEB.v4, "224.0.0.1", 9, 0, [0; 4]), Verdict::RouterMessage),
            ("MLD report", mld("ff02::16", 143), Verdict::Multicast),
            ("MLD report, version 1", mld("ff02::fb", 131), Verdict::Multicast),
            ("MLD done", mld("ff02::2", 132), Verdict::Multicast),
            ("MLD query", mld("ff02::1", 130), Verdict::RouterMessage),
            ("MLD query for a group", mld("ff02::fb", 130), Verdict::RouterMessage),
            ("multicast router, IPv6", mld("ff02::6a", 151), Verdict::RouterMessage),
            ("MLD query, bare", icmp6("ff02::1", 130), Verdict::RouterMessage),
            ("IGMP report", igmp("224.0.0.251", 0x16), Verdict::Multicast),
            ("IGMP report, version 1", igmp("224.0.0.251", 0x12), Verdict::Multicast),
            ("IGMP report, version 3", igmp("224.0.0.22", 0x22), Verdict::Multicast),
            ("IGMP leave", igmp("224.0.0.2", 0x17), Verdict::Multicast),
            ("IGMP query", igmp("224.0.0.1", 0x11), Verdict::RouterMessage),
            ("IGMP query, unicast", igmp(DB.v4, 0x11), Verdict::RouterMessage),
            ("IGMP query, with options", igmp("224.0.0.1", 0x11).options(&[148, 4, 0, 0]), Verdict::RouterMessage),
            ("multicast router", igmp("224.0.0.106", 0x30), Verdict::RouterMessage),
            (
                "IGMP in a later fragment",
                igmp("224.0.0.1", 0x11).payload(&[0x11; 32]).fragment(8, 16),
                Verdict::Fragment,
            ),
            ("PIM hello", raw(WEB.v4, "224.0.0.13", 103).payload(&[0x20; 8]), Verdict::RouterMessage),
            ("PIM hello, IPv6", raw(WEB_LINK_LOCAL, "ff02::d", 103).payload(&[0x20; 8]), Verdict::RouterMessage),
        ],
    );
}

#[test]
fn a_neighbour_is_no_more_than_one_hop_away() {
    let mut w = World::new();
    let solicitation = |ttl| arriving(neighbour(DB.v6, WEB.v6, 135, WEB.v6).ttl(ttl), &WEB).build();
    w.expect("routed", Entering("web", "db"), &solicitation(254), Verdict::OtherNetwork);
    w.expect("a neighbour's", Entering("web", "db"), &solicitation(255), Verdict::Neighbour);
}

/// As of a container that was started while the daemon does not run: at its interface there is no program.
#[test]
fn nobody_listens_to_an_interface_that_is_not_known() {
    let mut w = World::new();
    w.add_prefix("172.17.0.0", 96 + 16, PREFIX_ISOLATED);
    // A conversation with the outside, which somebody might know of.
    w.run(Leaving("web"), &sent(udp(WEB.v4, 4000, FAR, 53), &WEB).build(), 1);
    let by_bridge = |p: PacketBuilder| arriving(p, &WEB).build();
    let frames = [
        ("ARP, a question", arp([2; 6], [2; 6], "172.17.0.9", WEB.v4, false), Verdict::Neighbour),
        ("ARP, an answer as the host", arp([2; 6], [2; 6], "172.17.0.1", WEB.v4, true), Verdict::Neighbour),
        ("a solicitation", by_bridge(neighbour("fd00:17::9", WEB.v6, 135, WEB.v6)), Verdict::Neighbour),
        ("a sibling's address", by_bridge(neighbour(DB.v6, WEB.v6, 136, DB.v6)), Verdict::Neighbour),
        ("is it free", by_bridge(neighbour("::", WEBS_GROUP, 135, WEB.v6)), Verdict::Neighbour),
        ("a router", by_bridge(icmp("fe80::9", "ff02::1", 134, 0, [0; 4]).ttl(255)), Verdict::NotPublished),
        ("an answer from outside", by_bridge(udp(FAR, 53, WEB.v4, 4000)), Verdict::OutboundReply),
        ("its own address", by_bridge(udp("172.17.0.9", 1, WEB.v4, 53)), Verdict::NotPublished),
        ("a sibling's address", by_bridge(udp(DB.v4, 1, WEB.v4, 53)), Verdict::NotLinked),
        ("in a VLAN", udp("172.17.0.9", 1, WEB.v4, 53).vlan(9).build(), Verdict::EtherType),
    ];
    for (what, frame, known) in frames {
        w.expect(what, Entering("web", UNKNOWN), &frame, Verdict::EndpointClosed);
        w.expect(what, Entering("web", "up0"), &frame, known);
        w.expect(what, Entering("web", "db"), &frame, known);
        assert_eq!(w.run(Entering("web", ""), &frame, 1).code, -1, "{what}: the host's own");
        assert_eq!(w.run(Entering("one", UNKNOWN), &frame, 1).counted.len(), 1, "{what}");
    }
    // Routed by the host, whichever interface it came in by: new ones, for example, of which nobody has told yet.
    let routed = udp(FAR, 53, WEB.v4, 4000).macs(MAC_CLIENT, MAC_BRIDGE).build();
    w.expect("routed", Entering("web", UNKNOWN), &routed, Verdict::OutboundReply);
}
