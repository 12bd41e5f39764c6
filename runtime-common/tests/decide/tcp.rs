//! Connection tracking of TCP.

use runtime_common::Verdict;
use runtime_common::maps::{FLOW_ANSWERED, FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow, FlowAction, FlowKey, Zone};
use runtime_common::packet::TCP;

use super::world::*;
use memory_tables::Memory;
use packet_builder::segments::{BASES, By, Said, connections};
use packet_builder::*;

fn said(flow: &Flow) -> Said {
    match flow.state & (FLOW_FIN | FLOW_RST) {
        0 => Said::Nothing,
        FLOW_FIN => Said::Fin,
        FLOW_RST => Said::Rst,
        _ => Said::Both,
    }
}

/// What is remembered of client and server.
fn state(w: &World) -> (Said, Said) {
    let of = |p: PacketBuilder, zone| {
        let key = FlowKey { ..read(&p.build(), zone).unwrap().key };
        let found = Memory::flow(&w.tables.flows, &key).or_else(|| Memory::flow(&w.tables.pending, &key));
        said(&found.expect("the connection is known"))
    };
    (of(tcp(CLIENT, 4000, HOST, 8080, 0), Zone::Uplink), of(tcp(WEB.0, 80, CLIENT, 4000, 0), Zone::Endpoint))
}

#[test]
fn only_what_its_receiver_would_take_ends_a_connection() {
    for (name, steps) in connections() {
        for bases in BASES {
            let mut w = World::new();
            w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
            for (n, step) in steps.iter().enumerate() {
                let verdict = match step.by {
                    By::Client => w.uplink(&step.segment(bases, (CLIENT, 4000), (HOST, 8080))).verdict(),
                    By::Server => w.endpoint(0, &step.segment(bases, (CLIENT, 4000), (WEB.0, 80))).verdict(),
                };
                let expected = if step.by == By::Client { Verdict::Published } else { Verdict::PublishedReply };
                assert_eq!(verdict, expected, "{name}, step {n}, from {bases:x?}: {step:?}");
                assert_eq!(state(&w), step.after, "{name}, step {n}, from {bases:x?}: {step:?}");
            }
        }
    }
}

/// A connection that the loader has found: nothing is known of its numbers before its sides speak.
#[test]
fn an_adopted_connection_is_ended_by_nobody_before_its_sides_are_heard() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
    let there = tcp(CLIENT, 4000, HOST, 8080, ACK);
    let back = tcp(WEB.0, 80, CLIENT, 4000, ACK);
    let key = |p: &PacketBuilder, zone| read(&p.build(), zone).unwrap().key;
    let (there_key, back_key) = (key(&there, Zone::Uplink), key(&back, Zone::Endpoint));
    let seed = Flow { generation: 900, rule: 9, window_scale: 14, state: FLOW_ANSWERED, ..Flow::default() };
    let forward = Flow {
        to: back_key.tuple.reversed(),
        pair_zone: Zone::Endpoint as u8,
        action: FlowAction::Publish as u8,
        ..seed
    };
    let reply = Flow {
        to: there_key.tuple.reversed(),
        pair_zone: Zone::Uplink as u8,
        action: FlowAction::ReplyOut as u8,
        state: FLOW_ANSWERED | FLOW_REPLY,
        ..seed
    };
    let insert = |key: FlowKey, flow: Flow| w.tables.flows.borrow_mut().insert(key, std::rc::Rc::new(flow.into()));
    insert(there_key, forward);
    insert(back_key, reply);
    let reset = tcp(CLIENT, 4000, HOST, 8080, RST).payload(b"");
    for seq in [0, 1, 3_000_000_000, 3_000_000_100] {
        w.uplink(&reset.clone().sequence(seq));
        w.uplink(&tcp(CLIENT, 4000, HOST, 8080, FIN | ACK).sequence(seq));
        assert_eq!(state(&w), (Said::Nothing, Said::Nothing), "{seq}");
    }
    w.endpoint(0, &back.sequence(7).acknowledges(3_000_000_000));
    w.uplink(&reset.clone().sequence(3_000_000_001));
    assert_eq!(state(&w), (Said::Nothing, Said::Nothing));
    w.uplink(&reset.sequence(3_000_000_000));
    assert_eq!(state(&w), (Said::Rst, Said::Nothing));
}

/// A segment that a device has not cut yet is as long as it is, whatever a length field can say.
#[test]
fn super_packets_have_their_length() {
    for len in [1usize, 1460, 60_000, 200_000] {
        let mut packet = tcp(CLIENT6, 4000, HOST6, 8080, ACK).sequence(0xffff_ff00).payload(b"").build();
        packet.resize(packet.len() + len, 7);
        let payload = u16::try_from(len + 20).unwrap_or(0);
        packet[18..20].copy_from_slice(&payload.to_be_bytes());
        let h = read(&packet, Zone::Uplink).unwrap();
        assert_eq!(h.end, 0xffff_ff00u32.wrapping_add(len as u32), "{len}");
    }
}

#[test]
fn the_window_scale_is_found_among_all_options() {
    let long: Vec<u8> = [&[1; 20][..], &[3, 3, 7, 0]].concat();
    let cases: [(&[u8], Option<u8>); 12] = [
        (&[], None),
        (&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 9], Some(9)),
        (&[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], Some(8)),
        (&[3, 3, 0, 0], Some(0)),
        (&[1, 3, 3, 15], Some(14)),
        (&[3, 3, 255, 0], Some(14)),
        (&[0, 2, 3, 3, 7, 0, 0, 0], None),
        (&[3, 4, 7, 7], None),
        (&[254, 0, 3, 3, 7, 0, 0, 0], None),
        (&[254, 200, 3, 3, 7, 0, 0, 0], None),
        (&[1, 1, 3, 3], None),
        (&long, None),
    ];
    for (options, scale) in cases {
        for flags in [SYN, SYN | ACK] {
            let h = read(&tcp(CLIENT, 1, HOST, 2, flags).tcp_options(options).build(), Zone::Uplink).unwrap();
            let found = Some(h.window_scale).filter(|s| *s != runtime_common::packet::NO_WINDOW_SCALE);
            assert_eq!(found, scale, "{options:?}");
        }
    }
}

/// A fragment other than the first has no numbers: what stands where they would be says nothing.
#[test]
fn later_fragments_are_not_followed() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, 80, 9, 900);
    let there = |flags| tcp(CLIENT, 4000, HOST, 8080, flags).payload(b"");
    w.uplink(&there(SYN).sequence(999));
    w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 4000, SYN | ACK).payload(b"").sequence(4999).acknowledges(1000));
    w.uplink(&there(ACK).sequence(1000).acknowledges(5000));
    let key = FlowKey { ..read(&there(ACK).build(), Zone::Uplink).unwrap().key };
    let numbers = |w: &World| {
        let flow = Memory::flow(&w.tables.flows, &key).expect("the connection is known");
        (flow.packets, flow.ack, flow.end, flow.window)
    };
    let segment = there(ACK).sequence(1000).acknowledges(5000).payload(&[7; 76]).id(9);
    w.uplink(&segment.clone().fragment(0, 48));
    let (packets, ack, end, window) = numbers(&w);
    assert_eq!((ack, end), (5000, 1028));
    assert_eq!(w.uplink(&segment.fragment(48, 48)).verdict(), Verdict::Published);
    assert_eq!(numbers(&w), (packets + 1, ack, end, window));
}
