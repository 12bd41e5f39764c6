//! Conversations under the host's address, and source ports that two of them would share.

use std::collections::BTreeSet;

use runtime_common::Verdict;
use runtime_common::decide::Decision;
use runtime_common::maps::{ENDPOINT_MASQUERADE_V4, ENDPOINT_MASQUERADE_V6, Flow, FlowAction, FlowKey, Zone};
use runtime_common::packet::{SCTP, TCP, UDP};

use super::world::*;
use memory_tables::Memory;
use packet_builder::*;

/// Both containers' networks are masqueraded, IPv4 alone.
fn world() -> World {
    let mut w = World::new();
    for ep in &mut w.endpoints {
        ep.flags |= ENDPOINT_MASQUERADE_V4;
    }
    w.tables.source = Some(addr(HOST));
    w
}

fn flow(decision: Decision) -> (Verdict, Flow) {
    let Some(flow) = decision.flow() else { panic!("{decision:?}") };
    // SAFETY: the tables outlive every test's use of it.
    (decision.verdict(), unsafe { *flow.as_ptr() })
}

/// Opens a conversation of a container; its source as the outside sees it.
#[track_caller]
fn leaves(w: &World, which: usize, packet: &PacketBuilder) -> (String, u16) {
    let (verdict, flow) = flow(w.endpoint(which, packet));
    assert_eq!((verdict, flow.action), (Verdict::Masqueraded, FlowAction::Masquerade as u8));
    (flow.to.src.to_ip().to_string(), u16::from_be(flow.to.sport))
}

/// Where an answer from outside goes: interface, address and port.
#[track_caller]
fn comes_back(w: &World, packet: &PacketBuilder) -> (u32, String, u16) {
    let (verdict, flow) = flow(w.uplink(packet));
    assert_eq!(verdict, Verdict::MasqueradedReply);
    (flow.ifindex, flow.to.dst.to_ip().to_string(), u16::from_be(flow.to.dport))
}

#[test]
fn a_container_speaks_to_the_outside_under_the_hosts_address() {
    let w = world();
    assert_eq!(leaves(&w, 0, &tcp(WEB.0, 4000, CLIENT, 443, SYN)), (HOST.into(), 4000));
    assert_eq!(comes_back(&w, &tcp(CLIENT, 443, HOST, 4000, SYN | ACK)), (2, WEB.0.into(), 4000));
    assert_eq!(leaves(&w, 0, &tcp(WEB.0, 4000, CLIENT, 443, ACK)), (HOST.into(), 4000));
    assert_eq!(w.tables.flows.borrow().len(), 2);
    assert_eq!(leaves(&w, 1, &udp(DB.0, 53, CLIENT, 53)), (HOST.into(), 53));
    assert_eq!(comes_back(&w, &udp(CLIENT, 53, HOST, 53)), (3, DB.0.into(), 53));
    assert_eq!(leaves(&w, 0, &echo(WEB.0, CLIENT, true, 7)), (HOST.into(), 7));
    assert_eq!(comes_back(&w, &echo(CLIENT, HOST, false, 7)), (2, WEB.0.into(), 7));
    // Nobody else's answers.
    assert_eq!(w.uplink(&tcp(CLIENT, 444, HOST, 4000, SYN | ACK)), Decision::pass(Verdict::Host));
    assert_eq!(w.uplink(&echo(CLIENT, HOST, false, 8)), Decision::pass(Verdict::Host));
}

#[test]
fn what_is_not_masqueraded_is_left_to_the_stack() {
    let mut w = world();
    let pass = Decision::pass(Verdict::Outbound);
    assert_eq!(w.endpoint(0, &udp(WEB.1, 4000, CLIENT6, 53)), pass);
    assert_eq!(w.endpoint(0, &sctp(WEB.0, 4000, CLIENT, 53)), pass);
    assert_eq!(w.endpoint(0, &udp(WEB.0, 4000, CLIENT, 53).ttl(1)), Decision::drop(Verdict::TtlExceeded));
    // The way does not lead through an uplink.
    w.tables.source = None;
    assert_eq!(w.endpoint(0, &udp(WEB.0, 4000, CLIENT, 53)), pass);
    w.tables.source = Some(addr(HOST6));
    w.endpoints[0].flags |= ENDPOINT_MASQUERADE_V6;
    assert_eq!(leaves(&w, 0, &udp(WEB.1, 4001, CLIENT6, 53)), (HOST6.into(), 4001));
}

#[test]
fn equal_source_ports_are_told_apart() {
    let w = world();
    let mut seen = BTreeSet::new();
    let packets = [tcp(WEB.0, 4000, CLIENT, 443, SYN), tcp(DB.0, 4000, CLIENT, 443, SYN)];
    for (which, packet) in packets.iter().enumerate() {
        let (_, port) = leaves(&w, which, packet);
        assert!(seen.insert(port) && port >= 1024, "{port}");
        let (_, back, to) = comes_back(&w, &tcp(CLIENT, 443, HOST, port, SYN | ACK));
        assert_eq!((back.as_str(), to), ([WEB.0, DB.0][which], 4000));
    }
    assert!(seen.contains(&4000));
    // Another server: the port is free there.
    assert_eq!(leaves(&w, 1, &tcp(DB.0, 4000, CLIENT, 444, SYN)), (HOST.into(), 4000));
}

#[test]
fn ports_that_the_host_uses_are_not_taken() {
    let mut w = world();
    w.publish("0.0.0.0", 53, UDP, 5353, 9, 900);
    w.tables.sockets = vec![4000];
    let (_, port) = leaves(&w, 1, &udp(DB.0, 53, CLIENT, 53));
    assert_ne!(port, 53);
    let (_, port) = leaves(&w, 0, &tcp(WEB.0, 4000, CLIENT, 443, SYN));
    assert_ne!(port, 4000);
}

#[test]
fn a_port_that_is_the_containers_own_outside_too_is_kept() {
    let mut w = world();
    // The publication leads to the container's port of the same number, and the engine has a socket there.
    w.publish("0.0.0.0", 5060, UDP, 5060, 9, 900);
    w.publish("0.0.0.0", 5061, UDP, 5062, 10, 901);
    w.tables.sockets = vec![5060];
    assert_eq!(leaves(&w, 0, &udp(WEB.0, 5060, CLIENT, 5060)), (HOST.into(), 5060));
    assert_eq!(comes_back(&w, &udp(CLIENT, 5060, HOST, 5060)), (2, WEB.0.into(), 5060));
    // Another container's, and another port of its own, are somebody else's.
    assert_ne!(leaves(&w, 1, &udp(DB.0, 5060, CLIENT, 53)).1, 5060);
    assert_ne!(leaves(&w, 0, &udp(WEB.0, 5061, CLIENT, 53)).1, 5061);
}

#[test]
fn without_a_free_port_the_packet_is_dropped_and_others_go_on() {
    let mut w = world();
    assert_eq!(leaves(&w, 0, &udp(WEB.0, 4000, CLIENT, 53)).1, 4000);
    w.tables.sockets = (0..=u16::MAX).collect();
    assert_eq!(w.endpoint(1, &udp(DB.0, 4000, CLIENT, 53)), Decision::drop(Verdict::PortsExhausted));
    assert_eq!(leaves(&w, 0, &udp(WEB.0, 4000, CLIENT, 53)).1, 4000);
}

#[test]
fn half_a_conversation_is_opened_anew_at_the_same_port() {
    let w = world();
    leaves(&w, 0, &udp(WEB.0, 4000, CLIENT, 53));
    let (_, port) = leaves(&w, 1, &udp(DB.0, 4000, CLIENT, 53));
    let answer = udp(CLIENT, 53, HOST, port);
    let key = |p: &PacketBuilder, zone| -> FlowKey { read(&p.build(), zone).unwrap().key };
    for lost in [key(&answer, Zone::Uplink), key(&udp(DB.0, 4000, CLIENT, 53), Zone::Endpoint)] {
        w.tables.pending.borrow_mut().remove(&lost).expect("an entry");
        w.tables.now.set(w.tables.now.get() + 1_000_000_000);
        assert_eq!(leaves(&w, 1, &udp(DB.0, 4000, CLIENT, 53)).1, port);
        assert!(Memory::flow(&w.tables.pending, &lost).is_some());
    }
    assert_eq!(comes_back(&w, &answer), (3, DB.0.into(), 4000));
}

#[test]
fn half_a_published_conversation_heals() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    let (query, answer) = (udp(CLIENT, 4000, HOST, 53), udp(WEB.0, 53, CLIENT, 4000));
    assert_eq!(w.uplink(&query).verdict(), Verdict::Published);
    let lost = read(&answer.build(), Zone::Endpoint).unwrap().key;
    w.tables.pending.borrow_mut().remove(&lost).expect("an entry");
    w.tables.now.set(2_000_000_000);
    assert_eq!(w.uplink(&query).verdict(), Verdict::Published);
    assert_eq!(w.endpoint(0, &answer).verdict(), Verdict::PublishedReply);
}

#[test]
fn a_conversation_whose_address_is_gone_from_the_host_moves() {
    let mut w = world();
    leaves(&w, 0, &udp(WEB.0, 4000, CLIENT, 53));
    leaves(&w, 0, &tcp(WEB.0, 4000, CLIENT, 443, SYN));
    w.tables.addresses.remove(&addr(HOST));
    w.tables.addresses.insert(addr("192.0.2.77"), w.tables.addresses[&addr("172.17.0.1")]);
    w.tables.source = Some(addr("192.0.2.77"));
    assert_eq!(leaves(&w, 0, &udp(WEB.0, 4000, CLIENT, 53)), ("192.0.2.77".into(), 4000));
    assert_eq!(w.endpoint(0, &tcp(WEB.0, 4000, CLIENT, 443, ACK)), Decision::drop(Verdict::FlowEnded));
}

#[test]
fn errors_about_what_is_masqueraded_reach_both_ends() {
    let w = world();
    leaves(&w, 0, &udp(WEB.0, 4000, CLIENT, 53));
    let sent = udp(HOST, 4000, CLIENT, 53);
    let error = w.uplink(&unreachable("203.0.113.1", HOST, &sent));
    assert_eq!(error.verdict(), Verdict::MasqueradedReply);
    let back = unreachable(WEB.0, CLIENT, &udp(CLIENT, 53, WEB.0, 4000));
    assert_eq!(w.endpoint(0, &back).verdict(), Verdict::IcmpError, "about an answer that has not come");
    w.uplink(&udp(CLIENT, 53, HOST, 4000));
    assert_eq!(w.endpoint(0, &back).verdict(), Verdict::Masqueraded);
}

#[test]
fn one_client_port_to_two_ports_of_one_container() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
    w.publish("0.0.0.0", 8081, TCP, 80, 10, 901);
    let mut inner = Vec::new();
    for port in [8080, 8081] {
        let (_, forward) = flow(w.uplink(&tcp(CLIENT, 4000, HOST, port, SYN)));
        assert_eq!(forward.to.src, addr(CLIENT), "the client's address is kept");
        let sport = u16::from_be(forward.to.sport);
        let (_, reply) = flow(w.endpoint(0, &tcp(WEB.0, 80, CLIENT, sport, SYN | ACK)));
        assert_eq!((u16::from_be(reply.to.sport), u16::from_be(reply.to.dport)), (port, 4000));
        inner.push(sport);
    }
    assert!(inner[0] == 4000 && inner[1] != 4000, "{inner:?}");
    // SCTP cannot be given another port.
    w.publish("192.0.2.1", 80, SCTP, 80, 11, 902);
    w.publish("172.17.0.1", 80, SCTP, 80, 12, 903);
    assert_eq!(w.uplink(&sctp(CLIENT, 4000, HOST, 80)).verdict(), Verdict::Published);
    assert_eq!(w.uplink(&sctp(CLIENT, 4000, "172.17.0.1", 80)), Decision::drop(Verdict::PortsExhausted));
}

#[test]
fn containers_reach_themselves_and_siblings_by_two_ports_at_once() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
    w.publish("0.0.0.0", 8081, TCP, 80, 10, 901);
    for (which, (from, seen)) in [(WEB.0, "172.17.0.1"), (DB.0, DB.0)].into_iter().enumerate() {
        let mut inner = BTreeSet::new();
        for port in [8080, 8081] {
            let (_, forward) = flow(w.endpoint(which, &tcp(from, 4000, HOST, port, SYN)));
            assert_eq!(forward.to.src, addr(seen));
            let sport = u16::from_be(forward.to.sport);
            assert!(inner.insert(sport));
            let (_, reply) = flow(w.endpoint(0, &tcp(WEB.0, 80, seen, sport, SYN | ACK)));
            assert_eq!((reply.action, reply.ifindex), (FlowAction::ReplyLocal as u8, 2 + which as u32));
            assert_eq!((reply.to.src, u16::from_be(reply.to.sport)), (addr(HOST), port));
        }
    }
}

#[test]
fn datagrams_from_a_published_port_are_not_taken_for_a_clients() {
    let mut w = World::new();
    w.tables.source = Some(addr(HOST));
    // The second container sends from a port that the first one has published; the host's rules keep it.
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    assert_eq!(w.endpoint(1, &udp(DB.0, 53, CLIENT, 4000)), Decision::pass(Verdict::Outbound));
    for _ in 0..2 {
        assert_eq!(w.uplink(&udp(CLIENT, 4000, HOST, 53)), Decision::pass(Verdict::Preexisting));
        assert_eq!(w.gate(1, &udp(CLIENT, 4000, DB.0, 53)), Decision::pass(Verdict::OutboundReply));
    }
    assert_eq!(w.uplink(&udp(CLIENT, 4001, HOST, 53)).verdict(), Verdict::Published);
    // When its container is gone, the next datagram is a client's again.
    w.tables.rules.insert(3, 1);
    assert_eq!(w.uplink(&udp(CLIENT, 4000, HOST, 53)).verdict(), Verdict::Published);
}

#[test]
fn who_opens_back_does_so_while_he_is_being_asked() {
    let w = world();
    leaves(&w, 0, &tcp(WEB.0, 4000, CLIENT, 443, SYN));
    for (seconds, is_late) in [(119, false), (121, true)] {
        w.tables.now.set(1 + seconds * 1_000_000_000);
        let back = w.uplink(&tcp(CLIENT, 443, HOST, 4000, SYN)).verdict();
        assert_eq!(back, if is_late { Verdict::Host } else { Verdict::MasqueradedReply });
    }
}
