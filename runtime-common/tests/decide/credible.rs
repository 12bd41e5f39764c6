//! ICMP errors: whose word counts.

use runtime_common::Verdict;
use runtime_common::maps::Zone;
use runtime_common::packet::{TCP, UDP};

use super::world::*;
use packet_builder::errors::{Ends, Heard, Origin, conversations, errors};
use packet_builder::*;

const ENDS: [Ends; 2] = [
    Ends { client: CLIENT, host: HOST, gateway: "172.17.0.1", router: "203.0.113.9", web: WEB.0, db: DB.0 },
    Ends { client: CLIENT6, host: HOST6, gateway: "fd00:17::1", router: "2001:db8:5::9", web: WEB.1, db: DB.1 },
];

fn world() -> World {
    let mut w = World::new();
    for any in ["0.0.0.0", "::"] {
        w.publish(any, 8080, TCP, 80, 9, 900);
        w.publish(any, 5353, UDP, 53, 9, 900);
    }
    w.link(5432, UDP, 8);
    w
}

fn decide(w: &World, from: Origin, packet: &PacketBuilder) -> Verdict {
    match from {
        Origin::Outside | Origin::Straight => w.uplink(packet).verdict(),
        Origin::Web => w.endpoint(0, packet).verdict(),
    }
}

fn verdict(from: Origin, heard: Heard) -> Verdict {
    match (heard, from) {
        (Heard::Refused, _) => Verdict::IcmpError,
        (Heard::Hosts, _) => Verdict::Host,
        (Heard::Believed, Origin::Outside) => Verdict::Published,
        (Heard::Believed, Origin::Web) => Verdict::PublishedReply,
        (Heard::Believed, Origin::Straight) => Verdict::OutboundReply,
    }
}

#[test]
fn an_error_is_believed_only_where_it_can_be_true() {
    for ends in ENDS {
        let w = world();
        for (from, packet) in conversations(&ends) {
            assert!(!decide(&w, from, &packet).is_drop(), "{packet:?}");
        }
        for (name, from, error, heard) in errors(&ends) {
            assert_eq!(decide(&w, from, &error), verdict(from, heard), "{name}, {from:?}: {error:?}");
            if from == Origin::Straight {
                assert_eq!(w.gate(0, &error).verdict(), verdict(from, heard), "{name}, at the gate: {error:?}");
            }
        }
    }
}

/// Of datagrams, a minute later nothing is on the way any more. Of a connection the numbers tell.
#[test]
fn an_error_about_a_datagram_comes_soon() {
    for ends in ENDS {
        let w = world();
        for (from, packet) in conversations(&ends) {
            decide(&w, from, &packet);
        }
        let Ends { client, host, router, .. } = ends;
        let datagram = unreachable(router, host, &udp(host, 5353, client, 4000));
        let segment = unreachable(router, host, &tcp(host, 8080, client, 4000, ACK).sequence(5001));
        for (seconds, heard) in [(59, Heard::Believed), (61, Heard::Refused)] {
            w.tables.now.set(1 + seconds * 1_000_000_000);
            assert_eq!(decide(&w, Origin::Outside, &datagram), verdict(Origin::Outside, heard), "{seconds} s");
            assert_eq!(decide(&w, Origin::Outside, &segment), Verdict::Published, "{seconds} s");
        }
    }
}

/// An error never keeps a conversation alive, nor counts as its packet.
#[test]
fn an_error_leaves_its_flow_as_it_is() {
    let w = world();
    for (from, packet) in conversations(&ENDS[0]) {
        decide(&w, from, &packet);
    }
    let key = read(&tcp(CLIENT, 4000, HOST, 8080, ACK).build(), Zone::Uplink).unwrap().key;
    let before = memory_tables::Memory::flow(&w.tables.flows, &key).unwrap();
    w.tables.now.set(9);
    for (_, from, error, _) in errors(&ENDS[0]) {
        decide(&w, from, &error);
    }
    assert_eq!(memory_tables::Memory::flow(&w.tables.flows, &key), Some(before));
}
