//! What comes to a container another way than by redirect.

use runtime_common::Verdict;

use packet_builder::*;
use packet_lab::world::*;

#[test]
fn the_gate_lets_the_host_and_answers_in() {
    let mut w = World::new();
    let from_outside = Entering("web", "up0");
    for (web, client) in [(WEB.v4, CLIENT), (WEB.v6, CLIENT6)] {
        let query = sent(udp(web, 3000, client, 53), &WEB);
        let syn = sent(tcp(web, 3000, client, 80, SYN), &WEB);
        let ping = sent(echo(web, client, true, 9), &WEB);
        let answers = [
            (udp(client, 53, web, 3000), Verdict::NotPublished),
            (tcp(client, 80, web, 3000, SYN | ACK), Verdict::NotPublished),
            (echo(client, web, false, 9), Verdict::NotPublished),
            (unreachable("203.0.113.1", "203.0.113.2", &udp("192.0.2.1", 1, "192.0.2.2", 2)), Verdict::IcmpError),
        ];
        for (answer, verdict) in &answers {
            if answer.dst == ip(web) {
                w.expect("an answer to nothing", from_outside, &arriving(answer.clone(), &WEB).build(), *verdict);
            }
        }
        let about = arriving(unreachable(client, web, &query), &WEB);
        w.expect("an error about nothing", from_outside, &about.build(), Verdict::IcmpError);
        for packet in [&query, &syn, &ping] {
            w.expect("out", Leaving("web"), &packet.build(), Verdict::Outbound);
        }
        w.expect("an error", from_outside, &about.build(), Verdict::OutboundReply);
        let other = arriving(unreachable(client, web, &query.clone().ports(3001, 53)), &WEB);
        w.expect("an error about another", from_outside, &other.build(), Verdict::IcmpError);
        for (answer, _) in answers.iter().filter(|(a, _)| a.dst == ip(web)) {
            let answer = arriving(answer.clone(), &WEB);
            w.expect("an answer", from_outside, &answer.build(), Verdict::OutboundReply);
            w.expect("an answer, at the uplink", Uplink, &inbound(answer).build(), Verdict::OutboundReply);
        }
        let back = arriving(tcp(client, 80, web, 3000, SYN), &WEB);
        w.expect("opens back", from_outside, &back.build(), Verdict::NotPublished);
        let strange = arriving(udp(client, 54, web, 3000), &WEB);
        w.expect("another port", from_outside, &strange.build(), Verdict::NotPublished);
    }
}

#[test]
fn the_gate_refuses_strangers() {
    let mut w = World::new();
    let cases: Vec<(&str, At, Vec<u8>, Verdict)> = vec![
        ("host", Entering("web", ""), tcp("172.17.0.1", 1, WEB.v4, 80, SYN).build(), Verdict::FromHost),
        ("host", Entering("web", ""), raw(HOST, WEB.v4, 50).build(), Verdict::FromHost),
        ("host, some frame", Entering("web", ""), tcp(HOST, 1, WEB.v4, 80, SYN).vlan(9).build(), Verdict::FromHost),
        ("sibling", Entering("web", "db"), tcp(DB.v4, 1, WEB.v4, 80, SYN).build(), Verdict::NotLinked),
        ("sibling", Entering("web", "db"), udp(DB.v6, 1, WEB.v6, 80).build(), Verdict::NotLinked),
        ("sibling's multicast", Entering("web", "db"), udp(DB.v4, 1, "224.0.0.251", 1).build(), Verdict::NotLinked),
        ("another network", Entering("web", "one"), tcp(ONE.v4, 1, WEB.v4, 80, SYN).build(), Verdict::OtherNetwork),
        ("another network", Entering("one", "web"), tcp(WEB.v4, 1, ONE.v4, 80, SYN).build(), Verdict::OtherNetwork),
        ("outside", Entering("web", "up0"), tcp(CLIENT, 1, WEB.v4, 80, SYN).build(), Verdict::NotPublished),
        ("outside, open", Entering("one", "up0"), udp(CLIENT, 1, ONE.v4, 80).build(), Verdict::Network),
        ("outside, open", Entering("one", "up0"), udp(CLIENT, 1, ONE.v4, 1).fragment(8, 7).build(), Verdict::Network),
        ("outside, open", Entering("one", "up0"), raw(CLIENT, ONE.v4, 50).build(), Verdict::Network),
        ("ARP", Entering("web", "db"), arp(DB.mac, DB.mac, DB.v4, WEB.v4, false), Verdict::Neighbour),
        ("fragment", Entering("web", "up0"), udp(CLIENT, 1, WEB.v4, 1).fragment(8, 7).build(), Verdict::Fragment),
        ("tagged", Entering("web", "db"), tcp(DB.v4, 1, WEB.v4, 80, SYN).vlan(9).build(), Verdict::EtherType),
        ("tagged", Entering("two", "one"), tcp(ONE.v4, 1, TWO.v4, 80, SYN).vlan(9).build(), Verdict::Network),
        ("unknown endpoint", Entering(UNKNOWN, "db"), tcp(DB.v4, 1, WEB.v4, 80, SYN).build(), Verdict::EndpointClosed),
        ("unknown endpoint", Entering(UNKNOWN, ""), tcp(HOST, 1, WEB.v4, 80, SYN).build(), Verdict::EndpointClosed),
    ];
    for (what, at, packet, verdict) in cases {
        w.expect(what, at, &packet, verdict);
    }
}

#[test]
fn the_hosts_loopback_sources_are_translated_both_ways() {
    let mut w = World::new();
    let from_host = Entering("web", "");
    for (lo, web, gateway) in [("127.0.0.1", WEB.v4, "172.17.0.1"), ("::1", WEB.v6, "fd00:17::1")] {
        let segment = arriving(tcp(lo, 5000, web, 80, ACK), &WEB);
        w.expect("of no conversation", from_host, &segment.build(), Verdict::NoFlow);
        for (out, back) in [
            (tcp(lo, 5000, web, 80, SYN), tcp(web, 80, gateway, 5000, SYN | ACK)),
            (udp(lo, 5000, web, 53), udp(web, 53, gateway, 5000)),
        ] {
            let out = arriving(out, &WEB);
            let there = out.clone().between(gateway, web).ttl(63);
            w.passes_as("from loopback", from_host, &out, Verdict::FromHost, &there);
            w.passes_as("once more", from_host, &out, Verdict::FromHost, &there);
            let answer = sent(back, &WEB);
            let home = answer.clone().between(web, lo).ttl(63);
            if lo == "::1" {
                // The bridge lets no loopback address in: by the loopback interface, whose frames have no addresses.
                w.forwards("to loopback", Leaving("web"), &answer, Verdict::PublishedReply, &home.macs([0; 6], [0; 6]));
            } else {
                w.passes_as("to loopback", Leaving("web"), &answer, Verdict::PublishedReply, &home);
            }
            let stranger = sent(answer.ports(81, 5000), &WEB);
            w.expect("from another port", Leaving("web"), &stranger.build(), Verdict::Host);
        }
    }
    // A second loopback address with the same port is told apart by another port.
    let second = arriving(udp("127.0.0.2", 5000, WEB.v4, 53), &WEB);
    let port = 5000u16.wrapping_add(7_919) | 0x8000;
    let there = second.clone().between("172.17.0.1", WEB.v4).ports(port, 53).ttl(63);
    w.passes_as("another address", from_host, &second, Verdict::FromHost, &there);
    let answer = sent(udp(WEB.v4, 53, "172.17.0.1", port), &WEB);
    let home = answer.clone().between(WEB.v4, "127.0.0.2").ports(53, 5000).ttl(63);
    w.passes_as("its answer", Leaving("web"), &answer, Verdict::PublishedReply, &home);
}
