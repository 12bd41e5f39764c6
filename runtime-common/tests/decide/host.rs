//! What sockets of the host dial.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use runtime_common::decide::host::{ConnectDecision, HostConnect, HostTables, connect, peer_name, sender_name};
use runtime_common::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, Address, HostPeerKey, HostSocket, PUBLICATION_CLOSED, PUBLICATION_FROM_LOOPBACK,
    Publication, PublicationKey,
};
use runtime_common::packet::{SCTP, TCP, UDP};
use runtime_common::{Addr, Verdict};

#[derive(Default)]
struct Memory {
    publications: HashMap<PublicationKey, Publication>,
    addresses: HashMap<Addr, Address>,
    rules: HashMap<u32, u64>,
    /// Boxed and never freed before the test ends: references into it outlive changes, as in the kernel.
    own: Cell<Option<&'static HostSocket>>,
    peers: RefCell<HashMap<HostPeerKey, &'static HostSocket>>,
}

impl HostTables for Memory {
    fn publication(&self, key: &PublicationKey) -> Option<&Publication> {
        self.publications.get(key)
    }
    fn address(&self, addr: &Addr) -> Option<&Address> {
        self.addresses.get(addr)
    }
    fn generation(&self, slot: u32) -> u64 {
        self.rules.get(&slot).copied().unwrap_or(0)
    }
    fn socket(&self) -> Option<&HostSocket> {
        self.own.get()
    }
    fn remember(&self, socket: &HostSocket) {
        self.own.set(Some(Box::leak(Box::new(*socket))));
    }
    fn forget(&self) {
        self.own.set(self.own.get().map(|s| &*Box::leak(Box::new(HostSocket { generation: 0, ..*s }))));
    }
    fn peer(&self, key: &HostPeerKey) -> Option<&HostSocket> {
        self.peers.borrow().get(key).copied()
    }
    fn remember_peer(&self, key: &HostPeerKey, socket: &HostSocket) {
        self.peers.borrow_mut().insert(*key, Box::leak(Box::new(*socket)));
    }
    fn forget_peer(&self, key: &HostPeerKey) {
        self.peers.borrow_mut().remove(key);
    }
}

fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

const WEB: (&str, u16) = ("172.17.0.2", 80);
const WEB6: (&str, u16) = ("fd00:17::2", 80);

/// The host has 192.0.2.1 and 2001:db8::1; published are 8000 everywhere, 8001 on one address, 8002 on loopback, all TCP,
/// and 8003, taken away.
fn world() -> Memory {
    let mut m = Memory::default();
    for (text, kind) in [
        ("192.0.2.1", ADDRESS_HOST),
        ("2001:db8::1", ADDRESS_HOST),
        (WEB.0, ADDRESS_ENDPOINT),
        (WEB6.0, ADDRESS_ENDPOINT),
    ] {
        m.addresses.insert(addr(text), Address { kind, ..Address::default() });
    }
    let keys = [
        ("0.0.0.0", 8000),
        ("::", 8000),
        ("192.0.2.1", 8001),
        ("2001:db8::1", 8001),
        ("127.0.0.1", 8002),
        ("::1", 8002),
        ("0.0.0.0", 8003),
    ];
    for (i, (host, port)) in keys.into_iter().enumerate() {
        let (rule, generation) = (i as u32, 100 + i as u64);
        let (to, to_port) = if addr(host).is_v4() { WEB } else { WEB6 };
        let flags = if port == 8003 { PUBLICATION_CLOSED } else { 0 };
        m.rules.insert(rule, generation);
        m.publications.insert(
            PublicationKey { addr: addr(host), port: u16::to_be(port), protocol: TCP, reserved: 0 },
            Publication { generation, addr: addr(to), rule, port: to_port.to_be(), flags, ..Publication::default() },
        );
    }
    m
}

fn to(text: &str, port: u16) -> HostConnect {
    let bound = Addr::ANY_V6;
    HostConnect {
        cookie: 7,
        protocol: TCP,
        addr: addr(text),
        port: port.to_be(),
        bound,
        sends: false,
        connected: false,
    }
}

fn sent_to((text, port): (&str, u16)) -> ConnectDecision {
    ConnectDecision::Redirect(addr(text), port.to_be())
}

fn key((text, port): (&str, u16)) -> HostPeerKey {
    HostPeerKey::new(7, addr(text), port.to_be(), TCP)
}

#[test]
fn publications_are_reached_by_the_addresses_that_they_are_for() {
    let m = world();
    let cases = [
        ("127.0.0.1", 8000, sent_to(WEB)),
        ("127.9.9.9", 8000, sent_to(WEB)),
        ("0.0.0.0", 8000, sent_to(WEB)),
        ("192.0.2.1", 8000, sent_to(WEB)),
        ("::1", 8000, sent_to(WEB6)),
        ("::", 8000, sent_to(WEB6)),
        ("2001:db8::1", 8000, sent_to(WEB6)),
        ("192.0.2.2", 8000, ConnectDecision::Unchanged),
        ("2001:db8::2", 8000, ConnectDecision::Unchanged),
        ("192.0.2.1", 8001, sent_to(WEB)),
        ("2001:db8::1", 8001, sent_to(WEB6)),
        ("127.0.0.1", 8001, ConnectDecision::Unchanged),
        ("::1", 8001, ConnectDecision::Unchanged),
        ("127.0.0.1", 8002, sent_to(WEB)),
        ("0.0.0.0", 8002, sent_to(WEB)),
        ("::", 8002, sent_to(WEB6)),
        ("127.0.0.2", 8002, ConnectDecision::Unchanged),
        ("192.0.2.1", 8002, ConnectDecision::Unchanged),
        ("127.0.0.1", 8003, ConnectDecision::Refuse(Verdict::Unpublished)),
        ("192.0.2.1", 8003, ConnectDecision::Refuse(Verdict::Unpublished)),
        ("192.0.2.2", 8003, ConnectDecision::Unchanged),
        ("127.0.0.1", 80, ConnectDecision::Unchanged),
        (WEB.0, 80, ConnectDecision::Unchanged),
    ];
    for (text, port, expected) in cases {
        assert_eq!(connect(&m, &to(text, port)), expected, "{text}:{port}");
    }
    for protocol in [UDP, SCTP, 1] {
        assert_eq!(connect(&m, &HostConnect { protocol, ..to("127.0.0.1", 8000) }), ConnectDecision::Unchanged);
    }
}

#[test]
fn sockets_bound_to_loopback_need_a_network_that_takes_it() {
    let mut m = world();
    for (lo, original, web) in [("127.0.0.1", "192.0.2.1", WEB), ("::1", "2001:db8::1", WEB6)] {
        let bound = HostConnect { bound: addr(lo), ..to(original, 8000) };
        assert_eq!(connect(&m, &bound), ConnectDecision::Unchanged);
        assert_eq!(connect(&m, &HostConnect { bound: addr(original), ..bound }), sent_to(web));
        m.publications.values_mut().for_each(|p| p.flags |= PUBLICATION_FROM_LOOPBACK);
        assert_eq!(connect(&m, &bound), sent_to(web));
        m = world();
    }
}

#[test]
fn the_original_destination_is_shown_until_the_socket_connects_to_the_container_itself() {
    let m = world();
    let shown = |text: &str, port: u16| Some((addr(text), port.to_be()));
    assert_eq!(peer_name(&m, &key(WEB)), None);
    connect(&m, &to("0.0.0.0", 8000));
    assert_eq!(peer_name(&m, &key(WEB)), shown("127.0.0.1", 8000), "as a local server would have named itself");
    connect(&m, &to("192.0.2.1", 8001));
    assert_eq!(sender_name(&m, &key(WEB)), shown("192.0.2.1", 8001), "the last counts");
    connect(&m, &HostConnect { connected: true, ..to(WEB.0, WEB.1) });
    assert_eq!(sender_name(&m, &key(WEB)), shown("192.0.2.1", 8001), "a connected socket goes where it went");
    connect(&m, &to(WEB.0, WEB.1));
    assert_eq!(sender_name(&m, &key(WEB)), None);
}

#[test]
fn answers_of_a_container_that_is_no_longer_meant_are_shown_as_they_are() {
    let mut m = world();
    connect(&m, &to("192.0.2.1", 8001));
    m.rules.insert(2, 999);
    assert_eq!(peer_name(&m, &key(WEB)), Some((addr("192.0.2.1"), 8001u16.to_be())), "who was original stays true");
    assert_eq!(sender_name(&m, &key(WEB)), None);
    assert!(m.own.get().is_none_or(|own| !own.is_used()), "nothing is kept for nobody");
}

#[test]
fn a_datagram_socket_knows_each_that_it_sends_to() {
    let mut m = world();
    for (n, port) in [(0, 9000u16), (1, 9001)] {
        let generation = 200 + u64::from(n);
        m.rules.insert(20 + n, generation);
        m.publications.insert(
            PublicationKey { addr: addr("0.0.0.0"), port: port.to_be(), protocol: UDP, reserved: 0 },
            Publication {
                generation,
                addr: addr(WEB.0),
                rule: 20 + n,
                port: (port + 100).to_be(),
                ..Publication::default()
            },
        );
    }
    let sends = |port: u16| HostConnect { protocol: UDP, sends: true, ..to("127.0.0.1", port) };
    let key = |port: u16| HostPeerKey { protocol: UDP, ..key((WEB.0, port)) };
    let shown = |port: u16| Some((addr("127.0.0.1"), port.to_be()));
    for port in [9000, 9001, 9000] {
        assert_eq!(connect(&m, &sends(port)), sent_to((WEB.0, port + 100)));
    }
    assert_eq!((sender_name(&m, &key(9100)), sender_name(&m, &key(9101))), (shown(9000), shown(9001)));
    assert_eq!(m.peers.borrow().len(), 1, "the first is the socket's own");
    // The first is meant itself from now on; the other is still known.
    connect(&m, &HostConnect { addr: addr(WEB.0), port: 9100u16.to_be(), ..sends(0) });
    assert_eq!((sender_name(&m, &key(9100)), sender_name(&m, &key(9101))), (None, shown(9001)));
    connect(&m, &HostConnect { addr: addr(WEB.0), port: 9101u16.to_be(), ..sends(0) });
    assert_eq!(sender_name(&m, &key(9101)), None);
    // Of connected ones userspace has to be told, also of one that has sent there before.
    connect(&m, &sends(9000));
    assert_eq!(m.peers.borrow().len(), 0);
    connect(&m, &HostConnect { sends: false, ..sends(9000) });
    assert_eq!(m.peers.borrow_mut().drain().count(), 1);
    connect(&m, &HostConnect { sends: false, ..sends(9001) });
    assert_eq!((peer_name(&m, &key(9101)), m.peers.borrow().len()), (shown(9001), 1));
}
