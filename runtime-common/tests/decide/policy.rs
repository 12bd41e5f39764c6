//! Who reaches whom.

use runtime_common::Verdict;
use runtime_common::decide::{Decision, Tables as _, arp};
use runtime_common::maps::{
    FLOW_ANSWERED, FLOW_COUNTED, FLOW_SYN, Flow, FlowAction, FlowKey, Link, LinkKey, PUBLICATION_FILTERED,
    PUBLICATION_LISTED_ONLY, Zone,
};
use runtime_common::packet::{ICMP, TCP, UDP};

use super::frame::Frame;
use super::world::*;
use memory_tables::Memory;
use packet_builder::*;

fn key(packet: &PacketBuilder, zone: Zone) -> FlowKey {
    read(&packet.build(), zone).unwrap().key
}

fn flow(decision: Decision) -> (Verdict, Flow) {
    let Some(flow) = decision.flow() else { panic!("{decision:?}") };
    // SAFETY: the tables outlive every test's use of it.
    (decision.verdict(), unsafe { *flow.as_ptr() })
}

#[test]
fn a_conversation_through_a_publication() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
    let syn = tcp(CLIENT, 4000, HOST, 8080, SYN);
    let (verdict, forward) = flow(w.uplink(&syn));
    assert_eq!((verdict, forward.action), (Verdict::Published, FlowAction::Publish as u8));
    assert_eq!((forward.ifindex, forward.rule, forward.generation), (2, 9, 900));
    let translated = tcp(CLIENT, 4000, WEB.0, 80, SYN);
    assert_eq!(forward.to, key(&translated, Zone::Uplink).tuple);
    w.tables.now.set(5);
    let answer = tcp(WEB.0, 80, CLIENT, 4000, SYN | ACK);
    let (verdict, reply) = flow(w.endpoint(0, &answer));
    assert_eq!((verdict, reply.action), (Verdict::PublishedReply, FlowAction::ReplyOut as u8));
    assert_eq!(reply.to, key(&tcp(HOST, 8080, CLIENT, 4000, 0), Zone::Uplink).tuple);
    assert_eq!((reply.packets, reply.last_seen, reply.bytes), (1, 5, 47));
    // Anybody can send a SYN and an acknowledgement; who has seen the answer knows its number.
    let ack = tcp(CLIENT, 4000, HOST, 8080, ACK);
    for stranger in [ack.clone().acknowledges(1), ack.clone().acknowledges(0), tcp(CLIENT, 4000, HOST, 8080, RST)] {
        assert_eq!(w.uplink(&stranger).verdict(), Verdict::Published);
        assert!(w.tables.flows.borrow().is_empty(), "{stranger:?}");
    }
    w.tables.now.set(6);
    assert_eq!(w.uplink(&ack).verdict(), Verdict::Published);
    assert!(w.tables.pending.borrow().is_empty());
    let forward = Memory::flow(&w.tables.flows, &key(&syn, Zone::Uplink)).unwrap();
    assert_eq!((forward.state, forward.last_seen), (FLOW_ANSWERED | FLOW_COUNTED | FLOW_SYN, 6));
}

#[test]
fn a_port_that_answers_every_syn_makes_no_answered_conversation() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
    for (port, flags) in [(4000, SYN | ACK), (4001, RST | ACK)] {
        w.uplink(&tcp(CLIENT, port, HOST, 8080, SYN));
        for _ in 0..2 {
            assert_eq!(w.endpoint(0, &tcp(WEB.0, 80, CLIENT, port, flags)).verdict(), Verdict::PublishedReply);
        }
        assert!(w.tables.flows.borrow().is_empty());
        // What the container says after the handshake, it says to somebody.
        w.endpoint(0, &tcp(WEB.0, 80, CLIENT, port, ACK));
        assert_eq!(w.tables.flows.borrow().len(), 2);
        w.tables.flows.borrow_mut().clear();
    }
}

#[test]
fn a_question_with_its_answer_is_no_conversation_until_the_client_goes_on() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    for _ in 0..3 {
        assert_eq!(w.uplink(&udp(CLIENT, 4000, HOST, 53)).verdict(), Verdict::Published);
    }
    for _ in 0..3 {
        assert_eq!(w.endpoint(0, &udp(WEB.0, 53, CLIENT, 4000)).verdict(), Verdict::PublishedReply);
        assert!(w.tables.flows.borrow().is_empty());
    }
    assert_eq!(w.uplink(&udp(CLIENT, 4000, HOST, 53)).verdict(), Verdict::Published);
    assert_eq!((w.tables.flows.borrow().len(), w.tables.pending.borrow().len()), (2, 0));
    // Echoes are nothing else.
    w.link(0, ICMP, 10);
    for _ in 0..3 {
        assert_eq!(w.endpoint(0, &icmp(WEB.0, DB.0, 8, 0, [0, 1, 0, 1])).verdict(), Verdict::Linked);
        assert_eq!(w.endpoint(1, &icmp(DB.0, WEB.0, 0, 0, [0, 1, 0, 1])).verdict(), Verdict::LinkedReply);
    }
    assert_eq!((w.tables.flows.borrow().len(), w.tables.pending.borrow().len()), (2, 2));
}

#[test]
fn an_answer_that_found_no_room_moves_when_there_is_some() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    let (query, answer) = (udp(CLIENT, 4000, HOST, 53), udp(WEB.0, 53, CLIENT, 4000));
    w.uplink(&query);
    // Room for one direction of two: that of what goes on stays behind.
    for (room, moved) in [(0, 0), (1, 1), (1, 1), (2, 2)] {
        w.tables.room.set(Some(room));
        assert_eq!(w.endpoint(0, &answer).verdict(), Verdict::PublishedReply);
        assert_eq!(w.uplink(&query).verdict(), Verdict::Published);
        assert_eq!((w.tables.flows.borrow().len(), w.tables.pending.borrow().len()), (moved, 2 - moved));
    }
}

#[test]
fn a_full_table_refuses_new_conversations_only() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    w.link(53, UDP, 10);
    w.uplink(&udp(CLIENT, 4000, HOST, 53));
    w.tables.room.set(Some(2));
    assert_eq!(w.uplink(&udp(CLIENT, 4001, HOST, 53)), Decision::drop(Verdict::FlowTableFull));
    assert_eq!(w.endpoint(0, &udp(WEB.0, 4001, DB.0, 53)), Decision::drop(Verdict::FlowTableFull));
    assert_eq!(w.endpoint(0, &udp(WEB.0, 4001, CLIENT, 53)), Decision::drop(Verdict::FlowTableFull));
    assert_eq!(w.uplink(&udp(CLIENT, 4000, HOST, 53)).verdict(), Verdict::Published);
}

#[test]
fn a_rule_of_another_generation_ends_its_flows_everywhere() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    w.publish("0.0.0.0", 80, TCP, 80, 9, 900);
    w.link(5432, TCP, 10);
    w.uplink(&tcp(CLIENT, 4000, HOST, 80, SYN));
    w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 4000, SYN | ACK));
    w.uplink(&tcp(CLIENT, 4001, HOST, 80, SYN));
    w.endpoint(0, &tcp(WEB.0, 4000, DB.0, 5432, SYN));
    w.endpoint(0, &tcp(WEB.0, 4000, CLIENT, 443, SYN));
    for rule in [9, 10, 2] {
        w.tables.rules.insert(rule, 1);
    }
    w.tables.publications.clear();
    for port in [4000, 4001] {
        assert_eq!(w.uplink(&tcp(CLIENT, port, HOST, 80, ACK)), Decision::drop(Verdict::FlowEnded));
        assert_eq!(w.endpoint(0, &tcp(WEB.0, 80, CLIENT, port, ACK)), Decision::drop(Verdict::FlowEnded));
    }
    assert_eq!(w.endpoint(0, &tcp(WEB.0, 4000, DB.0, 5432, ACK)), Decision::drop(Verdict::FlowEnded));
    assert_eq!(w.endpoint(1, &tcp(DB.0, 5432, WEB.0, 4000, ACK)), Decision::drop(Verdict::FlowEnded));
    assert_eq!(w.gate(0, &tcp(CLIENT, 443, WEB.0, 4000, ACK)), Decision::drop(Verdict::NotPublished));
    // Where a port is published anew, whoever has it now answers what is left of old connections with a reset.
    w.publish("0.0.0.0", 80, TCP, 81, 9, 901);
    for flags in [ACK, SYN] {
        let (_, forward) = flow(w.uplink(&tcp(CLIENT, 4000, HOST, 80, flags)));
        assert_eq!((forward.generation, forward.to.dport), (901, 81u16.to_be()));
    }
    assert_eq!(w.uplink(&tcp(CLIENT, 4000, HOST, 80, ACK)).verdict(), Verdict::Published);
}

#[test]
fn a_segment_of_no_known_connection_is_answered_by_the_container() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, 80, 9, 900);
    let (verdict, forward) = flow(w.uplink(&tcp(CLIENT, 4000, HOST, 80, ACK)));
    assert_eq!((verdict, forward.to.dst), (Verdict::Published, addr(WEB.0)));
    assert_eq!(w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 4000, RST)).verdict(), Verdict::PublishedReply);
    // It is no conversation yet: only a handshake makes one.
    assert!(w.tables.flows.borrow().is_empty());
    // There is nothing to answer to a reset.
    assert_eq!(w.uplink(&tcp(CLIENT, 4001, HOST, 80, RST)), Decision::pass(Verdict::Preexisting));
    // An answer to a SYN is to somebody else's connection, and so is what follows.
    for flags in [SYN | ACK, ACK] {
        assert_eq!(w.uplink(&tcp(CLIENT, 4003, HOST, 80, flags)), Decision::pass(Verdict::Preexisting));
    }
    assert_eq!(w.uplink(&tcp(CLIENT, 4003, HOST, 80, SYN)).verdict(), Verdict::Published);
    // The engine's rules may carry it: then the container's side of it goes through the stack.
    let answer = key(&tcp(WEB.0, 80, CLIENT, 4004, ACK), Zone::Endpoint);
    let carried =
        Flow { action: FlowAction::Stack as u8, generation: 900, rule: 9, to: answer.tuple, ..Flow::default() };
    w.tables.insert_pending(&answer, &carried);
    assert_eq!(w.uplink(&tcp(CLIENT, 4004, HOST, 80, ACK)), Decision::pass(Verdict::Preexisting));
    // A proxy of the host may have the connection.
    w.tables.connections.push(80);
    assert_eq!(w.uplink(&tcp(CLIENT, 4002, HOST, 80, ACK)), Decision::pass(Verdict::Preexisting));
}

#[test]
fn a_connection_may_be_turned_round_by_another_link_alone() {
    let mut w = World::new();
    w.link(5432, TCP, 10);
    w.endpoint(0, &tcp(WEB.0, 4000, DB.0, 5432, SYN));
    w.endpoint(1, &tcp(DB.0, 5432, WEB.0, 4000, SYN | ACK));
    let back = tcp(DB.0, 5432, WEB.0, 4000, SYN);
    assert_eq!(w.endpoint(1, &back), Decision::drop(Verdict::NotLinked));
    assert_eq!(w.endpoint(0, &tcp(WEB.0, 4000, DB.0, 5432, ACK)).verdict(), Verdict::Linked);
    // The other way round there is a link of its own.
    let turned =
        LinkKey { recipient: addr(DB.0), source: addr(WEB.0), port: 4000u16.to_be(), protocol: TCP, reserved: 0 };
    let value = Link { generation: 600, rule: 11, reserved: 0 };
    w.tables.links.insert(turned, value);
    w.tables.rules.insert(11, 600);
    let (verdict, forward) = flow(w.endpoint(1, &back));
    assert_eq!((verdict, forward.rule), (Verdict::Linked, 11));
    assert_eq!(w.endpoint(1, &tcp(DB.0, 5432, WEB.0, 4000, ACK)).verdict(), Verdict::Linked);
    assert_eq!(w.endpoint(0, &tcp(WEB.0, 4000, DB.0, 5432, SYN | ACK)).verdict(), Verdict::LinkedReply);
    assert_eq!(w.endpoint(1, &udp(DB.0, 5432, WEB.0, 4000)), Decision::drop(Verdict::NotLinked));
}

#[test]
fn a_container_speaks_for_itself_only() {
    let w = World::new();
    let ep = &w.endpoints[0];
    let other = w.endpoints[1].mac;
    let cases = [
        (packet_builder::arp(ep.mac, ep.mac, WEB.0, DB.0, false), Decision::pass(Verdict::Neighbour)),
        (packet_builder::arp(ep.mac, other, WEB.0, DB.0, false), Decision::drop(Verdict::SpoofedMac)),
        (packet_builder::arp(ep.mac, ep.mac, DB.0, WEB.0, true), Decision::drop(Verdict::SpoofedAddress)),
        (packet_builder::arp(ep.mac, ep.mac, "0.0.0.0", WEB.0, false), Decision::pass(Verdict::Neighbour)),
        (vec![0; 31], Decision::drop(Verdict::Malformed)),
    ];
    for (frame, decision) in cases {
        assert_eq!(arp(&Frame(frame.clone()), &w.tables, ep), decision, "{frame:02x?}");
    }
    for (src, dst, verdict) in [
        (DB.0, CLIENT, Verdict::SpoofedAddress),
        (HOST, CLIENT, Verdict::SpoofedAddress),
        (DB.1, CLIENT6, Verdict::SpoofedAddress),
        ("::", CLIENT6, Verdict::SpoofedAddress),
        (WEB.0, "127.0.0.1", Verdict::Loopback),
        (WEB.1, "::1", Verdict::Loopback),
    ] {
        assert_eq!(w.endpoint(0, &udp(src, 1, dst, 2)), Decision::drop(verdict), "{src} {dst}");
    }
    // Without an IPv6 address of its own, all zero is not one.
    let mut w = World::new();
    w.endpoints[0].ipv6 = runtime_common::Addr::ANY_V6;
    w.tables.addresses.remove(&addr(WEB.1));
    assert_eq!(w.endpoint(0, &udp("::", 1, CLIENT6, 2)), Decision::drop(Verdict::SpoofedAddress));
    assert_eq!(w.endpoint(0, &udp(WEB.1, 1, CLIENT6, 2)), Decision::drop(Verdict::SpoofedAddress));
}

#[test]
fn hidden_advertisements_do_not_leave_a_container() {
    let w = World::new();
    let std::net::IpAddr::V6(sibling) = ip(DB.1) else { panic!("an IPv6 address") };
    let hidden = [&[58, 0, 1, 4, 0, 0, 0, 0, 136, 0, 0, 0, 0x60, 0, 0, 0][..], &sibling.octets()].concat();
    for (src, dst) in [("fe80::ff:fe00:1102", "ff02::1"), (WEB.1, "ff02::1"), (WEB.1, "fd00:17::1"), (WEB.1, CLIENT6)] {
        // The routing header has segments left.
        for (protocol, verdict) in
            [(0, Verdict::SpoofedAddress), (60, Verdict::SpoofedAddress), (43, Verdict::ProtocolUnsupported)]
        {
            let packet = raw(src, dst, protocol).payload(&hidden);
            assert_eq!(w.endpoint(0, &packet), Decision::drop(verdict), "{src} {dst} {protocol}");
        }
    }
    let report = raw("fe80::ff:fe00:1102", "ff02::16", 0).payload(&[58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(w.endpoint(0, &report), Decision::pass(Verdict::Multicast));
}

#[test]
fn a_link_and_a_published_port_of_the_same_container_are_told_apart() {
    for link_first in [true, false] {
        let mut w = World::new();
        w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
        // The publication is the first container's, and here that is the link's source.
        let turned =
            LinkKey { recipient: addr(DB.0), source: addr(WEB.0), port: 80u16.to_be(), protocol: TCP, reserved: 0 };
        w.tables.links.insert(turned, Link { generation: 600, rule: 11, reserved: 0 });
        w.tables.rules.insert(11, 600);
        let linked = |flags| tcp(DB.0, 4000, WEB.0, 80, flags);
        let published = |flags| tcp(DB.0, 4000, HOST, 8080, flags);
        let mut ports = vec![];
        for is_link in [link_first, !link_first] {
            let (verdict, forward) = flow(w.endpoint(1, &if is_link { linked(SYN) } else { published(SYN) }));
            assert_eq!(verdict, if is_link { Verdict::Linked } else { Verdict::Published });
            ports.push(u16::from_be(forward.to.sport));
        }
        assert!(ports[0] == 4000 && ports[1] != 4000, "{ports:?}");
        for (is_link, port) in [link_first, !link_first].into_iter().zip(ports) {
            let (verdict, reply) = flow(w.endpoint(0, &tcp(WEB.0, 80, DB.0, port, SYN | ACK)));
            let (expected, from) =
                if is_link { (Verdict::LinkedReply, linked(0)) } else { (Verdict::PublishedReply, published(0)) };
            assert_eq!(verdict, expected);
            assert_eq!(reply.to, key(&from, Zone::Endpoint).tuple.reversed());
            let again = w.endpoint(1, &if is_link { linked(ACK) } else { published(ACK) });
            assert_eq!(flow(again).1.to.sport, port.to_be());
        }
    }
}

#[test]
fn an_answered_conversation_that_has_lost_its_answers_is_opened_anew() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, 80, 9, 900);
    let answer = |flags| tcp(WEB.0, 80, CLIENT, 4000, flags);
    w.uplink(&tcp(CLIENT, 4000, HOST, 80, SYN));
    w.endpoint(0, &answer(SYN | ACK));
    w.uplink(&tcp(CLIENT, 4000, HOST, 80, ACK));
    assert_eq!(w.tables.flows.borrow().len(), 2);
    w.tables.flows.borrow_mut().remove(&key(&answer(0), Zone::Endpoint));
    w.uplink(&tcp(CLIENT, 4000, HOST, 80, SYN));
    assert_eq!(w.endpoint(0, &answer(SYN | ACK)).verdict(), Verdict::PublishedReply);
}

/// What comes in where no program looks at it is for the engine's own rules, but for what claims to come from a container.
#[test]
fn what_comes_in_by_an_unserved_interface_is_left_to_the_engines_rules() {
    let mut w = World::new();
    const WIREGUARD: u32 = 77;
    let stranger = tcp(CLIENT, 4000, WEB.0, 80, SYN);
    assert_eq!(w.gate_from(WIREGUARD, 0, &stranger), Decision::drop(Verdict::NotPublished));
    w.tables.unserved.push(WIREGUARD);
    assert_eq!(w.gate_from(WIREGUARD, 0, &stranger), Decision::pass(Verdict::Unserved));
    assert_eq!(w.gate(0, &stranger), Decision::drop(Verdict::NotPublished));
    assert_eq!(w.gate_from(WIREGUARD, 0, &tcp(DB.0, 4000, WEB.0, 80, SYN)), Decision::drop(Verdict::NotLinked));
}

#[test]
fn no_trick_gets_past_a_filter() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, 80, 9, 900);
    let publication = w.tables.publications.values_mut().next().unwrap();
    publication.flags |= PUBLICATION_FILTERED | PUBLICATION_LISTED_ONLY;
    for port in [4000, 4001] {
        // An answer to nobody's SYN first, then the SYN.
        w.uplink(&tcp(CLIENT, port, HOST, 80, SYN | ACK));
        w.endpoint(1, &tcp(DB.0, port, HOST, 80, SYN | ACK));
        for flags in [SYN, ACK] {
            let outside = w.uplink(&tcp(CLIENT, port + 10, HOST, 80, flags));
            assert_eq!(outside, Decision::drop(Verdict::Filtered), "outside {flags:#x}");
            assert_eq!(
                w.endpoint(1, &tcp(DB.0, port, HOST, 80, flags)),
                Decision::drop(Verdict::Filtered),
                "{flags:#x}"
            );
        }
        assert_eq!(w.uplink(&tcp(CLIENT, port, HOST, 80, SYN)), Decision::drop(Verdict::Filtered));
    }
    // Nor by the address of who may be behind a container of an open network.
    w.endpoints[1].flags = 0;
    assert_eq!(w.endpoint(1, &tcp("10.244.1.7", 4000, HOST, 80, SYN)), Decision::drop(Verdict::Filtered));
    // A connection from before the filter that the engine's rules carry is not asked.
    let answer = key(&tcp(WEB.0, 80, CLIENT, 4004, ACK), Zone::Endpoint);
    let carried =
        Flow { action: FlowAction::Stack as u8, generation: 900, rule: 9, to: answer.tuple, ..Flow::default() };
    w.tables.insert_pending(&answer, &carried);
    assert_eq!(w.uplink(&tcp(CLIENT, 4004, HOST, 80, ACK)), Decision::pass(Verdict::Preexisting));
}
