//! Connection tracking of TCP.

use runtime_common::Verdict;
use runtime_common::maps::{FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow};
use runtime_common::packet::TCP;

use packet_builder::segments::{BASES, By, Said, connections};
use packet_lab::world::*;

fn said(flow: &Flow) -> Said {
    match flow.state & (FLOW_FIN | FLOW_RST) {
        0 => Said::Nothing,
        FLOW_FIN => Said::Fin,
        FLOW_RST => Said::Rst,
        _ => Said::Both,
    }
}

/// What is remembered of client and server.
fn state(w: &mut World) -> (Said, Said) {
    let flows: Vec<Flow> = ["FLOWS", "PENDING"].iter().flat_map(|map| w.flows(map)).map(|(_, flow)| flow).collect();
    assert_eq!(flows.len(), 2, "{flows:?}");
    let of = |reply: bool| said(flows.iter().find(|f| (f.state & FLOW_REPLY != 0) == reply).unwrap());
    (of(false), of(true))
}

#[test]
fn only_what_its_receiver_would_take_ends_a_connection() {
    let mut w = World::new();
    for (host, client, web, bases) in [(HOST, CLIENT, WEB.v4, BASES[1]), (HOST6, CLIENT6, WEB.v6, BASES[2])] {
        w.publish(if host == HOST { "0.0.0.0" } else { "::" }, 8080, TCP, &WEB, 80);
        for (name, steps) in connections() {
            w.forget();
            for (n, step) in steps.iter().enumerate() {
                let (at, packet, verdict) = match step.by {
                    By::Client => {
                        (Uplink, inbound(step.segment(bases, (client, 4000), (host, 8080))), Verdict::Published)
                    }
                    By::Server => {
                        let packet = sent(step.segment(bases, (client, 4000), (web, 80)), &WEB);
                        (Leaving("web"), packet, Verdict::PublishedReply)
                    }
                };
                let counted = w.run(at, &packet.build(), 1).counted;
                assert_eq!(counted, [(verdict, 1)], "{name}, step {n}, from {bases:x?}: {step:?}");
                assert_eq!(state(&mut w), step.after, "{name}, step {n}, from {bases:x?}: {step:?}");
            }
        }
    }
}
