//! ICMP errors: whose word counts.

use runtime_common::Verdict;
use runtime_common::maps::{Flow, FlowKey};
use runtime_common::packet::{TCP, UDP};

use packet_builder::errors::{Ends, Heard, Origin, conversations, errors};
use packet_builder::*;
use packet_lab::world::*;

const ENDS: [Ends; 2] = [
    Ends { client: CLIENT, host: HOST, gateway: "172.17.0.1", router: "203.0.113.9", web: WEB.v4, db: DB.v4 },
    Ends { client: CLIENT6, host: HOST6, gateway: "fd00:17::1", router: "2001:db8:5::9", web: WEB.v6, db: DB.v6 },
];

fn world() -> World {
    let mut w = World::new();
    for any in ["0.0.0.0", "::"] {
        w.publish(any, 8080, TCP, &WEB, 80);
        w.publish(any, 5353, UDP, &WEB, 53);
    }
    w.link(&WEB, &DB, 5432, UDP);
    w
}

fn converse(w: &mut World, ends: &Ends) {
    for (from, packet) in conversations(ends) {
        let counted = match from {
            Origin::Web => w.run(Leaving("web"), &sent(packet.clone(), &WEB).build(), 1).counted,
            _ => w.run(Uplink, &inbound(packet.clone()).build(), 1).counted,
        };
        assert!(counted.iter().all(|(v, _)| !v.is_drop()), "{counted:?}: {packet:?}");
    }
}

#[test]
fn an_error_is_believed_only_where_it_can_be_true() {
    let mut w = world();
    for ends in ENDS {
        converse(&mut w, &ends);
        for (name, from, error, heard) in errors(&ends) {
            let places: &[At] = match from {
                Origin::Outside => &[Uplink, Xdp],
                Origin::Web => &[Leaving("web")],
                Origin::Straight => &[Uplink, Xdp, Entering("web", "up0")],
            };
            for at in places {
                let error = match at {
                    Leaving(_) => sent(error.clone(), &WEB),
                    Entering(..) => arriving(error.clone(), &WEB),
                    _ => inbound(error.clone()),
                };
                let verdict = match (heard, from) {
                    (Heard::Refused, _) => Verdict::IcmpError,
                    (Heard::Hosts, _) => Verdict::Host,
                    (Heard::Believed, Origin::Outside) => Verdict::Published,
                    (Heard::Believed, Origin::Web) => Verdict::PublishedReply,
                    (Heard::Believed, Origin::Straight) => Verdict::OutboundReply,
                };
                // What XDP passes is counted by the hook that sees it next.
                let silent = matches!(at, Xdp) && matches!(verdict, Verdict::Host | Verdict::OutboundReply);
                let counted = if silent { vec![] } else { vec![(verdict, 1)] };
                assert_eq!(w.run(*at, &error.build(), 1).counted, counted, "{name} at {at:?}: {error:?}");
            }
        }
    }
}

/// Of datagrams, a minute later nothing is on the way any more.
#[test]
fn an_error_about_a_datagram_comes_soon() {
    let mut w = world();
    converse(&mut w, &ENDS[0]);
    let error = inbound(unreachable(ENDS[0].router, HOST, &udp(HOST, 5353, CLIENT, 4000))).build();
    assert_eq!(w.run(Uplink, &error, 1).counted, [(Verdict::Published, 1)]);
    let mut pending = w.kernel.map::<FlowKey, Flow>("PENDING");
    let all: Vec<(FlowKey, Flow)> = pending.iter().map(Result::unwrap).collect();
    for (key, mut flow) in all {
        // The machine may run for less than a minute.
        flow.last_seen = flow.last_seen.wrapping_sub(61_000_000_000);
        pending.insert(key, flow, 0).unwrap();
    }
    assert_eq!(w.run(Uplink, &error, 1).counted, [(Verdict::IcmpError, 1)]);
}
