//! Containers among themselves.

use runtime_common::Verdict;
use runtime_common::maps::ALL_PROTOCOLS;
use runtime_common::packet::{ICMP, ICMPV6, TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

/// Of a packet from one container to another: both MAC addresses are theirs.
fn between(p: PacketBuilder, by: &Container, to: &Container) -> PacketBuilder {
    p.macs(by.mac, to.mac)
}

#[test]
fn a_link_opens_its_ports_and_echo_one_way() {
    let mut w = World::new();
    w.link(&WEB, &DB, 5432, TCP);
    w.link(&WEB, &DB, 53, UDP);
    w.link(&WEB, &DB, 0, ICMP);
    w.link(&WEB, &DB, 0, ICMPV6);
    for (web, db) in [(WEB.v4, DB.v4), (WEB.v6, DB.v6)] {
        // What the recipient sends, and the answer to it.
        let allowed = [
            (tcp(web, 4000, db, 5432, SYN), tcp(db, 5432, web, 4000, SYN | ACK)),
            (tcp(web, 4001, db, 5432, ACK), tcp(db, 5432, web, 4001, ACK)),
            (udp(web, 4000, db, 53), udp(db, 53, web, 4000)),
            (echo(web, db, true, 7), echo(db, web, false, 7)),
            (udp(web, 4001, db, 53).ttl(1), udp(db, 53, web, 4001).ttl(1)),
        ];
        for (request, answer) in allowed {
            let what = format!("{request:?}");
            let (request, answer) = (between(request, &WEB, &DB), between(answer, &DB, &WEB));
            let early = if matches!(answer.l4, L4::Icmp { .. } | L4::Tcp { .. } | L4::Udp { .. }) {
                Verdict::NotLinked
            } else {
                Verdict::ProtocolUnsupported
            };
            w.expect("an answer to nothing", Leaving("db"), &answer.build(), early);
            w.forwards(&what, Leaving("web"), &request, Verdict::Linked, &request);
            w.forwards(&what, Leaving("db"), &answer, Verdict::LinkedReply, &answer);
            w.forwards(&what, Leaving("web"), &request, Verdict::Linked, &request);
        }
        let refused = [
            ("another port", "web", tcp(web, 4000, db, 5433, SYN)),
            ("another protocol", "web", udp(web, 4000, db, 5432)),
            ("opens back", "db", tcp(db, 4000, web, 5432, SYN)),
            ("opens back from the port", "db", tcp(db, 5432, web, 4999, SYN)),
            ("opens back in the conversation", "db", tcp(db, 5432, web, 4000, SYN)),
            ("opens back", "db", udp(db, 53, web, 4998)),
            ("pings back", "db", echo(db, web, true, 7)),
            ("answers no request", "db", echo(db, web, false, 8)),
        ];
        for (what, from, packet) in refused {
            let (by, to) = if from == "web" { (&WEB, &DB) } else { (&DB, &WEB) };
            w.expect(what, Leaving(from), &between(packet, by, to).build(), Verdict::NotLinked);
        }
        let esp = between(raw(web, db, 50), &WEB, &DB);
        w.expect("a protocol without ports", Leaving("web"), &esp.build(), Verdict::ProtocolUnsupported);
    }
}

#[test]
fn a_link_of_all_ports_opens_every_port_one_way() {
    let mut w = World::new();
    w.link(&WEB, &DB, 0, ALL_PROTOCOLS);
    for packet in [
        tcp(WEB.v4, 1, DB.v4, 9, SYN),
        udp(WEB.v6, 1, DB.v6, 9),
        sctp(WEB.v4, 1, DB.v4, 9),
        echo(WEB.v4, DB.v4, true, 1),
    ] {
        let packet = between(packet, &WEB, &DB);
        w.forwards("over the link", Leaving("web"), &packet, Verdict::Linked, &packet);
    }
    let back = between(tcp(DB.v4, 1, WEB.v4, 9, SYN), &DB, &WEB);
    w.expect("back", Leaving("db"), &back.build(), Verdict::NotLinked);
}

#[test]
fn without_a_link_nothing_passes_on_an_isolated_network() {
    let mut w = World::new();
    let cases = [
        ("TCP", tcp(WEB.v4, 1, DB.v4, 80, SYN), Verdict::NotLinked),
        ("TCP", tcp(WEB.v6, 1, DB.v6, 80, ACK), Verdict::NotLinked),
        ("UDP", udp(WEB.v4, 1, DB.v4, 80), Verdict::NotLinked),
        ("echo", echo(WEB.v4, DB.v4, true, 1), Verdict::NotLinked),
        ("fragment", udp(WEB.v4, 1, DB.v4, 80).payload(&[0; 40]).fragment(16, 16), Verdict::Fragment),
        ("some protocol", raw(WEB.v4, DB.v4, 50), Verdict::ProtocolUnsupported),
        ("another network", tcp(WEB.v4, 1, ONE.v4, 80, SYN), Verdict::OtherNetwork),
        ("an error about nothing", unreachable(WEB.v4, DB.v4, &udp(DB.v4, 1, WEB.v4, 2)), Verdict::IcmpError),
    ];
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("web"), &between(packet, &WEB, &DB).build(), verdict);
    }
    assert_eq!(w.flows("PENDING"), []);
}

#[test]
fn errors_about_a_linked_conversation_pass() {
    let mut w = World::new();
    w.link(&WEB, &DB, 53, UDP);
    for (web, db) in [(WEB.v4, DB.v4), (WEB.v6, DB.v6)] {
        let request = between(udp(web, 4000, db, 53), &WEB, &DB);
        w.forwards("request", Leaving("web"), &request, Verdict::Linked, &request);
        let error = between(unreachable(db, web, &request), &DB, &WEB);
        w.forwards("error", Leaving("db"), &error, Verdict::LinkedReply, &error);
        let other = between(unreachable(db, web, &request.clone().ports(4001, 53)), &DB, &WEB);
        w.expect("about another", Leaving("db"), &other.build(), Verdict::IcmpError);
    }
}

#[test]
fn containers_of_an_open_network_talk() {
    let mut w = World::new();
    for packet in [tcp(ONE.v4, 1, TWO.v4, 80, SYN), udp(ONE.v6, 1, TWO.v6, 80), raw(ONE.v4, TWO.v4, 50)] {
        let packet = between(packet, &ONE, &TWO);
        w.expect("out", Leaving("one"), &packet.build(), Verdict::Network);
        w.expect("in", Entering("two", "one"), &packet.build(), Verdict::Network);
    }
    let packet = between(tcp(ONE.v4, 1, WEB.v4, 80, SYN), &ONE, &WEB);
    w.expect("to the isolated one", Leaving("one"), &packet.build(), Verdict::OtherNetwork);
}
