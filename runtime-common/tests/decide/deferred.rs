//! Conversations that the host's firewall has to let through.

use runtime_common::Verdict;
use runtime_common::decide::Decision;
use runtime_common::maps::{FlowAction, PUBLICATION_DEFER, PUBLICATION_HOST_TRANSLATES};
use runtime_common::packet::{TCP, UDP};

use super::world::*;
use packet_builder::*;

fn world(flags: u16) -> World {
    let mut w = World::new();
    for (protocol, port) in [(TCP, 80), (UDP, 53)] {
        w.publish("0.0.0.0", port, protocol, port, 9, 900);
    }
    w.tables.publications.values_mut().for_each(|p| p.flags = flags);
    w
}

/// Action of the flow that a packet goes by.
fn action(decision: Decision) -> (Verdict, Option<u8>) {
    // SAFETY: the tables outlive every test's use of it.
    (decision.verdict(), decision.flow().map(|flow| unsafe { flow.as_ref() }.action))
}

#[test]
fn what_comes_through_passes_the_firewall_by_from_then_on() {
    let asked = [
        (PUBLICATION_DEFER, (Verdict::Deferred, Some(FlowAction::Defer as u8))),
        (PUBLICATION_DEFER | PUBLICATION_HOST_TRANSLATES, (Verdict::Deferred, None)),
    ];
    for (flags, asked) in asked {
        let w = world(flags);
        let datagram = udp(CLIENT, 4000, HOST, 53);
        // As often as it takes.
        for _ in 0..3 {
            assert_eq!(action(w.uplink(&datagram)), asked);
        }
        let translated = udp(CLIENT, 4000, WEB.0, 53);
        assert_eq!(w.gate(0, &translated), Decision::pass(Verdict::Published));
        assert_eq!(action(w.uplink(&datagram)), (Verdict::Published, Some(FlowAction::Publish as u8)));
        assert_eq!(action(w.endpoint(0, &udp(WEB.0, 53, CLIENT, 4000))).0, Verdict::PublishedReply);
        assert_eq!(action(w.uplink(&datagram)), (Verdict::Published, Some(FlowAction::Publish as u8)));
        // What was on its way through the stack still comes in.
        assert_eq!(w.gate(0, &translated), Decision::pass(Verdict::Published));
    }
}

#[test]
fn the_gate_takes_nothing_that_was_not_asked_for() {
    let w = world(PUBLICATION_DEFER);
    w.uplink(&tcp(CLIENT, 4000, HOST, 80, SYN));
    for (from, port) in [(4001, 80), (4000, 81)] {
        let stranger = tcp(CLIENT, from, WEB.0, port, SYN);
        assert_eq!(w.gate(0, &stranger), Decision::drop(Verdict::NotPublished), "{from} {port}");
    }
    assert_eq!(w.gate(1, &tcp(CLIENT, 4000, DB.0, 80, SYN)), Decision::drop(Verdict::NotPublished));
    assert_eq!(w.gate(0, &tcp(CLIENT, 4000, WEB.0, 80, SYN)), Decision::pass(Verdict::Published));
}

#[test]
fn a_publication_that_goes_lets_nothing_through_any_more() {
    let mut w = world(PUBLICATION_DEFER);
    w.uplink(&tcp(CLIENT, 4000, HOST, 80, SYN));
    w.tables.rules.insert(9, 0);
    assert_eq!(w.gate(0, &tcp(CLIENT, 4000, WEB.0, 80, SYN)), Decision::drop(Verdict::NotPublished));
}

#[test]
fn siblings_are_asked_about_with_their_address_translated_and_oneself_not_at_all() {
    let w = world(PUBLICATION_DEFER | PUBLICATION_HOST_TRANSLATES);
    assert_eq!(action(w.endpoint(1, &udp(DB.0, 4000, HOST, 53))), (Verdict::Deferred, Some(FlowAction::Defer as u8)));
    assert_eq!(w.gate(0, &udp(DB.0, 4000, WEB.0, 53)), Decision::pass(Verdict::Published));
    assert_eq!(
        action(w.endpoint(1, &udp(DB.0, 4000, HOST, 53))),
        (Verdict::Published, Some(FlowAction::Publish as u8))
    );
    assert_eq!(
        action(w.endpoint(0, &udp(WEB.0, 4000, HOST, 53))),
        (Verdict::Published, Some(FlowAction::Publish as u8))
    );
}

#[test]
fn who_is_refused_at_first_and_goes_on_is_let_through_later() {
    for flags in [PUBLICATION_DEFER, PUBLICATION_DEFER | PUBLICATION_HOST_TRANSLATES] {
        let w = world(flags);
        for (question, arrives) in [
            (tcp(CLIENT, 4000, HOST, 80, SYN), tcp(CLIENT, 4000, WEB.0, 80, SYN)),
            (udp(CLIENT, 4000, HOST, 53), udp(CLIENT, 4000, WEB.0, 53)),
        ] {
            for second in 0..3 {
                // The firewall drops these.
                w.tables.now.set(1 + second * 1_000_000_000);
                assert_eq!(w.uplink(&question).verdict(), Verdict::Deferred);
            }
            assert_eq!(w.gate(0, &arrives), Decision::pass(Verdict::Published));
        }
    }
}
