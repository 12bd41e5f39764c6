//! A container that is on two networks, and answers by either interface as its own routes have it.

use runtime_common::Verdict;
use runtime_common::packet::{TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

#[test]
fn answers_of_one_networks_publication_leave_by_the_others_interface() {
    for (served, other) in [(&WEB, &ONE), (&ONE, &WEB)] {
        let mut w = World::new();
        w.join(&WEB, &ONE);
        for host in ["0.0.0.0", "::"] {
            w.publish(host, 8080, TCP, served, 80);
            w.publish(host, 5353, UDP, served, 53);
        }
        for (client, host, own) in [(CLIENT, HOST, served.v4), (CLIENT6, HOST6, served.v6)] {
            for (question, answer, back) in [
                (
                    tcp(client, 40000, host, 8080, SYN),
                    tcp(own, 80, client, 40000, SYN | ACK),
                    tcp(host, 8080, client, 40000, SYN | ACK),
                ),
                (udp(client, 40000, host, 5353), udp(own, 53, client, 40000), udp(host, 5353, client, 40000)),
            ] {
                assert_eq!(w.run(Uplink, &inbound(question).build(), 1).counted, [(Verdict::Published, 1)]);
                let back = back.macs(MAC_UPLINK, MAC_CLIENT).ttl(63);
                let answer = sent(answer, other);
                w.forwards("an answer", Leaving(other.name), &answer, Verdict::PublishedReply, &back);
            }
        }
    }
}

#[test]
fn a_client_that_shares_another_network_with_the_server_is_answered_there() {
    let mut w = World::new();
    w.join(&WEB, &ONE);
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    let question = sent(tcp(TWO.v4, 4000, HOST, 8080, SYN), &TWO);
    let arrives = question.clone().between(TWO.v4, WEB.v4).ports(4000, 80).ttl(63);
    w.forwards("a question", Leaving("two"), &question, Verdict::Published, &arrives);
    let answer = tcp(WEB.v4, 80, TWO.v4, 4000, SYN | ACK).macs(ONE.mac, TWO.mac);
    let back = answer.clone().between(HOST, TWO.v4).ports(8080, 4000).ttl(63);
    w.forwards("its answer", Leaving("one"), &answer, Verdict::PublishedReply, &back);
    // Of what was not asked, nothing gets there.
    let unasked = tcp(WEB.v4, 80, TWO.v4, 4001, SYN | ACK).macs(ONE.mac, TWO.mac);
    w.expect("an answer to nothing", Leaving("one"), &unasked.build(), Verdict::Network);
    w.expect("an answer to nothing", Entering("two", "one"), &unasked.build(), Verdict::OtherNetwork);
}

#[test]
fn an_address_of_another_network_opens_nothing() {
    let mut w = World::new();
    w.join(&WEB, &ONE);
    w.link(&WEB, &DB, 5432, TCP);
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("its own elsewhere", sent(udp(ONE.v4, 1, FAR, 53), &WEB).build(), Verdict::Outbound),
        ("its own elsewhere", sent(udp(ONE.v6, 1, CLIENT6, 53), &WEB).build(), Verdict::Outbound),
        ("its neighbour's there", sent(udp(TWO.v4, 1, FAR, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("its neighbour's there", sent(udp(TWO.v6, 1, CLIENT6, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("its neighbour's here", sent(udp(DB.v4, 1, FAR, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("the gateway's there", sent(udp("172.18.0.1", 1, FAR, 53), &WEB).build(), Verdict::SpoofedAddress),
        ("MAC address of there", sent(udp(ONE.v4, 1, FAR, 53), &ONE).build(), Verdict::SpoofedMac),
        ("over another's link", sent(tcp(ONE.v4, 1, DB.v4, 5432, SYN), &WEB).build(), Verdict::NotLinked),
        ("to the other network", sent(udp(WEB.v4, 1, TWO.v4, 53), &WEB).build(), Verdict::OtherNetwork),
        ("ARP", arp(WEB.mac, WEB.mac, ONE.v4, "172.17.0.1", false), Verdict::Neighbour),
        ("ARP of a neighbour there", arp(WEB.mac, WEB.mac, TWO.v4, "172.17.0.1", false), Verdict::SpoofedAddress),
        ("ARP of a neighbour here", arp(WEB.mac, WEB.mac, DB.v4, "172.17.0.1", false), Verdict::SpoofedAddress),
        ("ARP, MAC address of there", arp(WEB.mac, ONE.mac, ONE.v4, "172.17.0.1", false), Verdict::SpoofedMac),
    ];
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("web"), &packet, verdict);
    }
    // Nor does the open network lead into the isolated one, or its bridge's frames into a neighbour's container.
    let into = sent(tcp(WEB.v4, 1, DB.v4, 5432, SYN), &ONE).build();
    w.expect("its own address", Leaving("one"), &into, Verdict::OtherNetwork);
    let frame = arriving(udp(WEB.v4, 1, TWO.v4, 53), &TWO).build();
    w.expect("an isolated address", Entering("two", "one"), &frame, Verdict::OtherNetwork);
    // Another container's stays another's.
    w.expect("not joined", Leaving("db"), &sent(udp(ONE.v4, 1, FAR, 53), &DB).build(), Verdict::SpoofedAddress);
    w.expect("ARP", Leaving("db"), &arp(DB.mac, DB.mac, WEB.v4, "172.17.0.1", false), Verdict::SpoofedAddress);
}
