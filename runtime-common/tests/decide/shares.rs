//! Who may hold how much of the table of conversations.

use runtime_common::Verdict;
use runtime_common::decide::Decision;
use runtime_common::maps::ENDPOINT_MASQUERADE_V6;
use runtime_common::packet::{TCP, UDP};

use super::world::*;
use packet_builder::*;

/// Published ports of both containers, and a table for so many conversations.
fn served(conversations: u64) -> World {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, 53, 9, 900);
    for (rule, host, port) in
        [(10, "0.0.0.0", 8080), (11, "0.0.0.0", 9090), (12, "0.0.0.0", 7070), (13, "::", 8080), (14, "::", 7070)]
    {
        w.publish(host, port, TCP, port % 1000, rule, 900 + u64::from(rule));
    }
    let mac = w.endpoints[1].mac;
    for (key, p) in w.tables.publications.iter_mut().filter(|(key, _)| key.port == 7070u16.to_be()) {
        let db = if key.addr.is_v4() { DB.0 } else { DB.1 };
        (p.addr, p.ifindex, p.mac) = (addr(db), 3, mac);
    }
    for rule in [2, 3].into_iter().chain(9..=14) {
        w.tables.held_by_rule.insert(rule, Box::default());
    }
    w.tables.shared.set(Some(conversations));
    w
}

/// Begins a connection and ends its handshake.
fn shake_hands(w: &World, client: &str, port: u16, to: u16) -> Verdict {
    let v6 = client.contains(':');
    let host = if v6 { HOST6 } else { HOST };
    let (which, server) = if to == 7070 { (1, DB) } else { (0, WEB) };
    let server = if v6 { server.1 } else { server.0 };
    let syn = w.uplink(&tcp(client, port, host, to, SYN)).verdict();
    if syn == Verdict::Published {
        w.endpoint(which, &tcp(server, to % 1000, client, port, SYN | ACK));
        w.uplink(&tcp(client, port, host, to, ACK));
    }
    syn
}

/// How many conversations stand when no more of these succeed.
fn press(w: &World, to: u16, client: impl Fn(u16) -> String) -> (usize, Verdict) {
    let refused = (1000..3000).map(|n| shake_hands(w, &client(n), n, to)).find(|v| *v != Verdict::Published);
    (w.tables.flows.borrow().len() / 2, refused.unwrap_or(Verdict::Published))
}

fn anybody(n: u16) -> String {
    format!("203.0.{}.{}", 113 + n / 250, n % 250)
}

#[test]
fn a_source_leaves_others_room_whatever_ports_it_dials() {
    let w = served(100);
    assert_eq!(press(&w, 8080, |_| CLIENT.to_owned()), (80, Verdict::ShareSpent));
    assert_eq!(press(&w, 7070, |_| CLIENT.to_owned()), (89, Verdict::ShareSpent));
    assert_eq!(w.uplink(&tcp(CLIENT, 5000, HOST, 7070, SYN)), Decision::drop(Verdict::ShareSpent));
    // What stands is nobody's to refuse.
    assert_eq!(w.uplink(&tcp(CLIENT, 1000, HOST, 8080, ACK)).verdict(), Verdict::Published);
    assert_eq!(shake_hands(&w, &anybody(1), 5000, 7070), Verdict::Published);
    assert_eq!(w.tables.flows.borrow().len(), 180);
}

#[test]
fn of_ipv6_a_source_is_whoever_has_the_first_half_of_the_address() {
    let w = served(10);
    let client = |n: u16| format!("2001:db8:9::{n:x}");
    assert_eq!(press(&w, 8080, client), (8, Verdict::ShareSpent));
    assert_eq!(press(&w, 7070, client), (9, Verdict::ShareSpent));
    assert_eq!(shake_hands(&w, "2001:db8:a::1", 6, 7070), Verdict::Published);
}

#[test]
fn many_sources_at_one_port_leave_other_ports_room() {
    let w = served(100);
    assert_eq!(press(&w, 8080, anybody), (80, Verdict::ShareSpent));
    assert_eq!(shake_hands(&w, &anybody(1), 7000, 9090), Verdict::Published);
    assert_eq!(w.endpoint(1, &tcp(DB.0, 7000, HOST, 9090, SYN)).verdict(), Verdict::Published);
    // All that leads to one container leaves the others room.
    let (stand, refused) = press(&w, 9090, |n| anybody(n + 250));
    assert_eq!((stand, refused), (89, Verdict::ShareSpent));
    assert_eq!(w.tables.count(), 89);
}

#[test]
fn what_is_over_its_share_and_no_connection_yet_can_be_forgotten_but_is_not_refused() {
    let w = served(100);
    press(&w, 8080, |_| CLIENT.to_owned());
    press(&w, 9090, |_| CLIENT.to_owned());
    for _ in 0..3 {
        assert_eq!(w.uplink(&udp(CLIENT, 4000, HOST, 53)).verdict(), Verdict::Published);
        assert_eq!(w.endpoint(0, &udp(WEB.0, 53, CLIENT, 4000)).verdict(), Verdict::PublishedReply);
    }
    assert_eq!((w.tables.flows.borrow().len(), w.tables.pending.borrow().len()), (178, 2));
}

#[test]
fn a_closed_connection_is_nobodys_and_makes_room_before_anybody_is_refused() {
    for by_reset in [true, false] {
        let w = served(100);
        press(&w, 8080, |_| CLIENT.to_owned());
        // A table that is full of what stands.
        w.tables.room.set(Some(160));
        if by_reset {
            w.uplink(&tcp(CLIENT, 1003, HOST, 8080, RST).sequence(2));
        } else {
            w.uplink(&tcp(CLIENT, 1003, HOST, 8080, FIN | ACK));
            assert_eq!(w.tables.count(), 80);
            w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 1003, FIN | ACK));
            w.uplink(&tcp(CLIENT, 1003, HOST, 8080, ACK));
        }
        assert_eq!((w.tables.count(), w.tables.closed.borrow().len()), (79, 1));
        assert_eq!(w.tables.flows.borrow().len(), 160);
        assert_eq!(shake_hands(&w, CLIENT, 5000, 8080), Verdict::Published);
        assert_eq!((w.tables.count(), w.tables.closed.borrow().len()), (80, 0));
        assert_eq!((w.tables.flows.borrow().len(), w.tables.pending.borrow().len()), (160, 0));
        assert_eq!(w.uplink(&tcp(CLIENT, 5001, HOST, 8080, SYN)), Decision::drop(Verdict::ShareSpent));
    }
}

#[test]
fn the_same_ports_again_are_a_new_connection() {
    let w = served(100);
    for _ in 0..3 {
        assert_eq!(shake_hands(&w, CLIENT, 4000, 8080), Verdict::Published);
        assert_eq!(w.tables.count(), 1);
        // A SYN out of nowhere ends nothing.
        w.uplink(&tcp(CLIENT, 4000, HOST, 8080, SYN));
        assert_eq!((w.tables.flows.borrow().len(), w.tables.count()), (2, 1));
        w.uplink(&tcp(CLIENT, 4000, HOST, 8080, FIN | ACK));
        w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 4000, FIN | ACK));
        assert_eq!(w.tables.count(), 0);
    }
}

#[test]
fn answers_that_go_on_after_their_question_are_a_conversation_but_for_echoes() {
    const SECOND: u64 = 1_000_000_000;
    let w = served(100);
    let in_tables = || (w.tables.flows.borrow().len(), w.tables.pending.borrow().len());
    w.uplink(&udp(CLIENT, 4000, HOST, 53));
    w.endpoint(0, &echo(WEB.0, CLIENT, true, 7));
    for (seconds, expected) in [(0, (0, 4)), (2, (0, 4)), (3, (2, 2)), (4, (2, 2))] {
        w.tables.now.set(1 + seconds * SECOND);
        assert_eq!(w.endpoint(0, &udp(WEB.0, 53, CLIENT, 4000)).verdict(), Verdict::PublishedReply);
        w.gate(0, &echo(CLIENT, WEB.0, false, 7));
        assert_eq!(in_tables(), expected, "after {seconds} s");
    }
    assert_eq!(w.tables.count(), 1);
}

#[test]
fn answers_that_are_expected_at_the_uplink_too_are_kept_with_their_conversation() {
    let mut w = served(100);
    w.tables.source = Some(addr(HOST));
    // The second container dials from a port that the first one has published; the host's rules keep it.
    assert_eq!(w.endpoint(1, &tcp(DB.0, 8080, CLIENT, 443, SYN)).verdict(), Verdict::Outbound);
    let answer = |flags| {
        assert_eq!(w.uplink(&tcp(CLIENT, 443, HOST, 8080, flags)).verdict(), Verdict::Preexisting);
        assert_eq!(w.gate(1, &tcp(CLIENT, 443, DB.0, 8080, flags)).verdict(), Verdict::OutboundReply);
    };
    answer(SYN | ACK);
    w.endpoint(1, &tcp(DB.0, 8080, CLIENT, 443, ACK));
    answer(ACK);
    assert_eq!((w.tables.flows.borrow().len(), w.tables.pending.borrow().len(), w.tables.count()), (3, 0, 1));
    // However many others press.
    w.tables.pending.borrow_mut().clear();
    answer(ACK);
    answer(FIN | ACK);
    w.endpoint(1, &tcp(DB.0, 8080, CLIENT, 443, FIN | ACK));
    answer(ACK);
    assert_eq!(w.tables.count(), 0);
}

#[test]
fn containers_of_one_network_are_as_many_sources() {
    let mut w = served(90);
    w.tables.source = Some(addr(HOST6));
    for ep in &mut w.endpoints {
        ep.flags |= ENDPOINT_MASQUERADE_V6;
    }
    let server = "2001:db8:9::9";
    let dial = |which: usize, port: u16, to: u16| {
        let own = [WEB.1, DB.1][which];
        let syn = w.endpoint(which, &tcp(own, port, server, to, SYN)).verdict();
        if syn == Verdict::Masqueraded {
            w.uplink(&tcp(server, to, HOST6, port, SYN | ACK));
            w.endpoint(which, &tcp(own, port, server, to, ACK));
        }
        syn
    };
    // One that has what a container may have: by what it begins itself, and by a sibling's port.
    while dial(0, 1000 + w.tables.count() as u16, 443) == Verdict::Masqueraded {}
    assert_eq!(w.tables.count(), 72);
    for port in 1000..1100 {
        if w.endpoint(0, &tcp(WEB.1, port, HOST6, 7070, SYN)).verdict() == Verdict::Published {
            w.endpoint(1, &tcp(DB.1, 70, WEB.1, port, SYN | ACK));
            w.endpoint(0, &tcp(WEB.1, port, HOST6, 7070, ACK));
        }
    }
    assert_eq!(w.tables.count(), 80);
    assert_eq!(dial(1, 5000, 443), Verdict::Masqueraded, "a sibling has the same first half of the address");
}

#[test]
fn room_is_not_made_by_what_has_the_ports_of_a_closed_connection_now() {
    let mut w = served(100);
    w.publish("0.0.0.0", 8081, TCP, 80, 10, 910);
    assert_eq!(shake_hands(&w, CLIENT, 4000, 8080), Verdict::Published);
    w.uplink(&tcp(CLIENT, 4000, HOST, 8080, RST).sequence(2));
    assert_eq!(w.tables.closed.borrow().len(), 1);
    // Its publication goes, and another one leads to the same port of the container.
    w.tables.publications.retain(|key, _| key.port != 8080u16.to_be());
    w.tables.rules.insert(10, 920);
    for p in w.tables.publications.values_mut().filter(|p| p.rule == 10) {
        p.generation = 920;
    }
    w.uplink(&tcp(CLIENT, 4000, HOST, 8081, SYN));
    w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 4000, SYN | ACK));
    w.uplink(&tcp(CLIENT, 4000, HOST, 8081, ACK));
    let answer = || w.endpoint(0, &tcp(WEB.0, 80, CLIENT, 4000, ACK)).verdict();
    assert_eq!(answer(), Verdict::PublishedReply);
    w.tables.room.set(Some(w.tables.flows.borrow().len()));
    shake_hands(&w, CLIENT, 5000, 9090);
    assert_eq!(answer(), Verdict::PublishedReply);
}

#[test]
fn a_loopback_sockets_ports_may_be_used_as_often_as_it_likes() {
    let w = served(100);
    let from = |flags| tcp("127.0.0.1", 4000, WEB.0, 80, flags);
    for n in 0..6 {
        let opened = w.gate_from(0, 0, &from(SYN));
        assert_eq!(opened.verdict(), Verdict::FromHost, "connection {n}");
        // SAFETY: the tables outlive the test's use of it.
        let port = unsafe { opened.flow().unwrap().as_ref() }.to.sport;
        let answer = |flags| tcp(WEB.0, 80, "172.17.0.1", u16::from_be(port), flags);
        w.endpoint(0, &answer(SYN | ACK));
        w.gate_from(0, 0, &from(ACK));
        w.gate_from(0, 0, &from(FIN | ACK));
        w.endpoint(0, &answer(FIN | ACK));
        w.gate_from(0, 0, &from(ACK));
        assert_eq!((w.tables.flows.borrow().len(), w.tables.count()), (2, 0), "connection {n}");
    }
}
