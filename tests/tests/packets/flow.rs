//! The life of flows.

use runtime_common::Verdict;
use runtime_common::maps::{FLOW_ANSWERED, FLOW_COUNTED, FLOW_REPLY, FLOW_SYN, Flow, FlowAction, Zone};
use runtime_common::packet::{TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

const ESTABLISHED: u8 = FLOW_ANSWERED | FLOW_COUNTED;

/// Sends a request through port 8080 and the answer to it.
fn converse(w: &mut World, flags: u8, answer_flags: u8) {
    assert_eq!(w.run(Uplink, &inbound(tcp(CLIENT, 40000, HOST, 8080, flags)).build(), 1).code, 7);
    answer(w, answer_flags);
}

fn answer(w: &mut World, flags: u8) {
    assert_eq!(w.run(Leaving("web"), &sent(tcp(WEB.v4, 80, CLIENT, 40000, flags), &WEB).build(), 1).code, 7);
}

/// The forward direction and the answers', from one map.
fn pair(w: &mut World, map: &str) -> (Flow, Flow) {
    let flows = w.flows(map);
    assert_eq!(flows.len(), 2, "{map}: {flows:?}");
    let (a, b) = (flows[0].1, flows[1].1);
    if a.state & FLOW_REPLY == 0 { (a, b) } else { (b, a) }
}

#[test]
fn the_end_of_the_handshake_makes_a_flow_answered() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    assert_eq!(w.run(Uplink, &inbound(tcp(CLIENT, 40000, HOST, 8080, SYN)).build(), 1).code, 7);
    assert_eq!(w.flows("FLOWS"), []);
    let (forward, reply) = pair(&mut w, "PENDING");
    assert_eq!((forward.state, reply.state), (FLOW_SYN, FLOW_REPLY));
    answer(&mut w, SYN | ACK);
    assert_eq!(w.flows("FLOWS"), []);
    let ack = inbound(tcp(CLIENT, 40000, HOST, 8080, ACK));
    assert_eq!(w.run(Uplink, &ack.clone().acknowledges(3).build(), 1).code, 7);
    assert_eq!(w.flows("FLOWS"), []);
    assert_eq!(w.run(Uplink, &ack.build(), 1).code, 7);
    assert_eq!(w.flows("PENDING"), []);
    let (forward, reply) = pair(&mut w, "FLOWS");
    assert_eq!((forward.state, reply.state), (ESTABLISHED | FLOW_SYN, ESTABLISHED | FLOW_REPLY | FLOW_SYN));
    assert_eq!((forward.packets, reply.packets), (3, 1));
    assert_eq!((forward.bytes, reply.bytes), (141, 47));
    assert!(reply.last_seen > 0 && forward.last_seen >= reply.last_seen);
    converse(&mut w, ACK, ACK);
    let (forward, reply) = pair(&mut w, "FLOWS");
    assert_eq!((forward.packets, reply.packets, forward.bytes, reply.bytes), (4, 2, 188, 94));
}

#[test]
fn a_flow_ends_with_its_rule() {
    let mut w = World::new();
    let ack = inbound(tcp(CLIENT, 40000, HOST, 8080, ACK));
    let answer_ack = sent(tcp(WEB.v4, 80, CLIENT, 40000, ACK), &WEB);
    for answered in [true, false] {
        let rule = w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
        let syn = inbound(tcp(CLIENT, 40000, HOST, 8080, SYN));
        w.forwards("open", Uplink, &syn, Verdict::Published, &published(&syn, Uplink, &WEB, 80));
        if answered {
            answer(&mut w, SYN | ACK);
            converse(&mut w, ACK, ACK);
        }
        w.end(rule);
        w.unpublish("0.0.0.0", 8080, TCP);
        w.expect("segment", Uplink, &ack.build(), Verdict::FlowEnded);
        w.expect("segment", Xdp, &ack.build(), Verdict::FlowEnded);
        w.expect("answer", Leaving("web"), &answer_ack.build(), Verdict::FlowEnded);
        // A new one, to whom the port belongs now.
        w.publish("0.0.0.0", 8080, TCP, &DB, 90);
        w.forwards("segment", Uplink, &ack, Verdict::Published, &published(&ack, Uplink, &DB, 90));
        w.forwards("again", Uplink, &syn, Verdict::Published, &published(&syn, Uplink, &DB, 90));
        w.forwards("and on", Uplink, &ack, Verdict::Published, &published(&ack, Uplink, &DB, 90));
        w.expect("old answer", Leaving("web"), &answer_ack.build(), Verdict::FlowEnded);
        w.forget();
    }
}

#[test]
fn of_an_ended_flow_a_container_says_one_bare_reset_and_no_more() {
    let mut w = World::new();
    let rule = w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    let syn = inbound(tcp(CLIENT, 40000, HOST, 8080, SYN));
    w.forwards("open", Uplink, &syn, Verdict::Published, &published(&syn, Uplink, &WEB, 80));
    answer(&mut w, SYN | ACK);
    w.end(rule);
    let from_web = |flags: u8, payload: &[u8]| sent(tcp(WEB.v4, 80, CLIENT, 40000, flags).payload(payload), &WEB);
    w.expect("data", Leaving("web"), &from_web(ACK, b"secret").build(), Verdict::FlowEnded);
    w.expect("fin", Leaving("web"), &from_web(FIN | ACK, b"").build(), Verdict::FlowEnded);
    w.expect("reset with data", Leaving("web"), &from_web(RST | ACK, b"secret").build(), Verdict::FlowEnded);
    let outside = inbound(tcp(CLIENT, 40000, HOST, 8080, RST | ACK).payload(b""));
    w.expect("reset from outside", Uplink, &outside.build(), Verdict::FlowEnded);
    // Not `forwards`: that runs it more than once.
    let reset = from_web(RST | ACK, b"");
    let out = reset.clone().between(HOST, CLIENT).ports(8080, 40000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
    let outcome = w.run(Leaving("web"), &reset.build(), 1);
    assert_eq!((outcome.counted, outcome.packet), (vec![(Verdict::PublishedReply, 1)], out.build()));
    w.expect("a second reset", Leaving("web"), &reset.build(), Verdict::FlowEnded);
}

#[test]
fn datagrams_go_to_the_new_container_at_once() {
    let mut w = World::new();
    let rule = w.publish("0.0.0.0", 53, UDP, &WEB, 53);
    let query = inbound(udp(CLIENT, 4000, HOST, 53));
    for at in [Uplink, Xdp] {
        w.forwards("before", at, &query, Verdict::Published, &published(&query, at, &WEB, 53));
    }
    let reply = sent(udp(WEB.v4, 53, CLIENT, 4000), &WEB).build();
    assert_eq!(w.run(Leaving("web"), &reply, 1).code, 7);
    w.end(rule);
    w.publish("0.0.0.0", 53, UDP, &DB, 54);
    for at in [Uplink, Xdp] {
        w.forwards("after", at, &query, Verdict::Published, &published(&query, at, &DB, 54));
    }
    let reply = sent(udp(DB.v4, 54, CLIENT, 4000), &DB);
    let out = reply.clone().between(HOST, CLIENT).ports(53, 4000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
    w.forwards("answer", Leaving("db"), &reply, Verdict::PublishedReply, &out);
}

#[test]
fn a_link_that_is_taken_away_ends_its_flows() {
    let mut w = World::new();
    let rule = w.link(&WEB, &DB, 5432, TCP);
    let syn = tcp(WEB.v4, 1, DB.v4, 5432, SYN).macs(WEB.mac, DB.mac);
    let ack = tcp(WEB.v4, 1, DB.v4, 5432, ACK).macs(WEB.mac, DB.mac);
    let back = tcp(DB.v4, 5432, WEB.v4, 1, ACK).macs(DB.mac, WEB.mac);
    w.forwards("open", Leaving("web"), &syn, Verdict::Linked, &syn);
    w.forwards("answer", Leaving("db"), &back, Verdict::LinkedReply, &back);
    w.end(rule);
    w.expect("segment", Leaving("web"), &ack.build(), Verdict::FlowEnded);
    w.expect("answer", Leaving("db"), &back.build(), Verdict::FlowEnded);
}

#[test]
fn whose_share_is_spent_is_refused_until_a_connection_of_his_has_closed() {
    let mut w = World::with_shares(5);
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    w.publish("0.0.0.0", 7070, TCP, &DB, 70);
    let at = |packet: PacketBuilder, port: u16| packet.ports(port, 8080);
    for port in 40000..40004 {
        assert_eq!(w.run(Uplink, &at(inbound(tcp(CLIENT, 1, HOST, 1, SYN)), port).build(), 1).code, 7);
        assert_eq!(w.run(Leaving("web"), &sent(tcp(WEB.v4, 80, CLIENT, port, SYN | ACK), &WEB).build(), 1).code, 7);
        assert_eq!(w.run(Uplink, &at(inbound(tcp(CLIENT, 1, HOST, 1, ACK)), port).build(), 1).code, 7);
    }
    assert_eq!(w.flows("FLOWS").len(), 8);
    let fifth = inbound(tcp(CLIENT, 40004, HOST, 8080, SYN));
    w.expect("a fifth", Uplink, &fifth.build(), Verdict::ShareSpent);
    let other = inbound(tcp(CLIENT, 40004, HOST, 7070, SYN));
    w.forwards("at another port", Uplink, &other, Verdict::Published, &published(&other, Uplink, &DB, 70));
    converse(&mut w, FIN | ACK, ACK);
    w.expect("half closed", Uplink, &fifth.build(), Verdict::ShareSpent);
    converse(&mut w, ACK, FIN | ACK);
    w.forwards("closed", Uplink, &fifth, Verdict::Published, &published(&fifth, Uplink, &WEB, 80));
}

#[test]
fn where_the_table_is_full_what_stands_goes_on() {
    let mut w = World::with_flows(2);
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    converse(&mut w, SYN, SYN | ACK);
    converse(&mut w, ACK, ACK);
    assert_eq!(w.flows("FLOWS").len(), 2);
    let request = inbound(tcp(CLIENT, 50000, HOST, 8080, SYN));
    let reply = sent(tcp(WEB.v4, 80, CLIENT, 50000, SYN | ACK), &WEB);
    let out = reply.clone().between(HOST, CLIENT).ports(8080, 50000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
    for _ in 0..2 {
        w.forwards("request", Uplink, &request, Verdict::Published, &published(&request, Uplink, &WEB, 80));
        w.forwards("answer", Leaving("web"), &reply, Verdict::PublishedReply, &out);
        assert_eq!((w.flows("FLOWS").len(), w.flows("PENDING").len()), (2, 2));
    }
    converse(&mut w, ACK, ACK);
}

/// Translation upon translation, by differences alone: what has gone to and fro is what it was, but for its age.
#[test]
fn what_is_translated_again_and_again_keeps_its_checksums() {
    const TIMES: u8 = 250;
    let mut w = World::new();
    for protocol in [TCP, UDP] {
        let ends = [tuple(CLIENT, 40000, HOST, 80), tuple(CLIENT, 40000, WEB.v4, 8080)];
        w.translate_to_and_fro(ends, protocol, Zone::Uplink, FlowAction::Publish);
        let packet = if protocol == TCP { tcp(CLIENT, 40000, HOST, 80, ACK) } else { udp(CLIENT, 40000, HOST, 80) };
        let packet = inbound(packet).ttl(255);
        let outcome = w.run(Uplink, &packet.build(), TIMES.into());
        assert_eq!(outcome.packet, packet.ttl(255 - TIMES).build());
    }
}
