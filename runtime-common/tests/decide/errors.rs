//! Errors: those that others send, translated, and those that the datapath sends itself.

use runtime_common::decide::Budget;
use runtime_common::icmp_error::{
    ErrorHeaders, IcmpError, MAX_QUOTED, error_headers_len, quoted_len, should_reply, sum_words,
};
use runtime_common::maps::{Tuple, Zone};
use runtime_common::packet::{ETH_LEN, Packet};
use runtime_common::{Addr, Verdict};

use super::frame::{Frame, translate_to};
use super::world::read;
use packet_builder::*;

/// Both families: the container, the client, the host, and a router on the way.
const ENDS: [[&str; 4]; 2] = [
    ["172.17.0.2", "192.0.2.9", "192.0.2.1", "203.0.113.9"],
    ["fd00:17::2", "2001:db8::9", "2001:db8::1", "2001:db8:5::9"],
];

fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    Tuple { src: Addr::from(ip(src)), dst: Addr::from(ip(dst)), sport: sport.to_be(), dport: dport.to_be() }
}

/// An error about `about`, of which `len` bytes are quoted from the IP header on.
fn too_big(src: &str, dst: &str, about: &[u8], len: usize) -> PacketBuilder {
    let [kind, code] = if ip(src).is_ipv4() { [3, 4] } else { [2, 0] };
    icmp(src, dst, kind, code, [0, 0, 5, 0]).payload(&about[ETH_LEN..][..len])
}

#[test]
fn a_translated_error_sums_up_however_little_it_quotes() {
    for [container, client, host, router] in ENDS {
        let header = if ip(container).is_ipv4() { 20 } else { 40 };
        for len in [header + 8, header + 20, header + 21, header + 28] {
            // From a router outside, about an answer of the container as the outside knows it.
            let answer = tcp(host, 8080, client, 4000, ACK).payload(&[7; 64]).build();
            let mut frame = Frame(too_big(router, host, &answer, len).build());
            let h = read(&frame.0, Zone::Uplink).unwrap();
            assert_eq!(translate_to(&mut frame, &h, &tuple(client, 4000, container, 80)), Ok(()));
            verify(&frame.0).unwrap();
            let inside = tcp(container, 80, client, 4000, ACK).payload(&[7; 64]).build();
            let expected = too_big(router, container, &inside, len).ttl(63).build();
            // Addresses of both headers and the ports quoted; the checksum of the error itself is verified above.
            assert_eq!(frame.0[..ETH_LEN + header], expected[..ETH_LEN + header]);
            assert_eq!(frame.0[ETH_LEN + header + 4..][..4], [0, 0, 5, 0]);
            let quoted = ETH_LEN + header + 8;
            assert_eq!(frame.0[quoted..quoted + header + 8], expected[quoted..][..header + 8], "{len}");
        }
        // Too little to know the ports by.
        let answer = tcp(host, 8080, client, 4000, ACK).payload(&[7; 64]).build();
        let mut frame = Frame(too_big(router, host, &answer, header).build());
        let h = read(&frame.0, Zone::Uplink).unwrap();
        let to = tuple(client, 4000, container, 80);
        assert_eq!(translate_to(&mut frame, &h, &to), Err(Verdict::RewriteFailed));
    }
}

#[test]
fn an_error_about_a_first_ipv6_fragment_is_translated() {
    let [container, client, host, router] = ENDS[1];
    let answer = |src: &str, port| udp(src, port, client, 4000).payload(&[7; 64]).id(9).fragment(0, 48).build();
    let mut frame = Frame(too_big(router, host, &answer(host, 8080), 64).build());
    let h = read(&frame.0, Zone::Uplink).unwrap();
    assert_eq!(translate_to(&mut frame, &h, &tuple(client, 4000, container, 80)), Ok(()));
    verify(&frame.0).unwrap();
    // Up to the ports: the checksum behind them is left alone.
    let quoted = ETH_LEN + 48;
    assert_eq!(frame.0[quoted..quoted + 52], answer(container, 80)[ETH_LEN..][..52]);
    // A later fragment has no ports.
    let later = udp(host, 8080, client, 4000).payload(&[7; 64]).id(9).fragment(48, 24).build();
    let mut frame = Frame(too_big(router, host, &later, 64).build());
    let h = read(&frame.0, Zone::Uplink).unwrap();
    assert_eq!(translate_to(&mut frame, &h, &tuple(client, 4000, container, 80)), Err(Verdict::RewriteFailed));
}

#[test]
fn an_error_of_the_datapaths_own_sums_up() {
    for [container, client, _, _] in ENDS {
        let gateway = if ip(client).is_ipv4() { "172.17.0.1" } else { "fd00:17::1" };
        for about in [
            tcp(container, 80, client, 4000, ACK).payload(&[0xfe; 1460]),
            udp(container, 80, client, 4000).payload(b"odd"),
            udp(container, 80, client, 4000).payload(b""),
        ] {
            let packet = about.build();
            let h = read(&packet, Zone::Endpoint).unwrap();
            assert!(should_reply(&h));
            let len = quoted_len(&h);
            assert!(
                len <= MAX_QUOTED && len.is_multiple_of(4) && len > h.bytes.min(MAX_QUOTED) - 4,
                "{len} of {}",
                h.bytes
            );
            let sum = sum_words(&Frame(packet.clone()), len).unwrap();
            for error in [IcmpError::TimeExceeded, IcmpError::TooBig(1280), IcmpError::TooBig(0xffff)] {
                let mut envelope = ErrorHeaders([0; 12]);
                envelope.write(&h, &Addr::from(ip(gateway)), error, len, sum);
                let words: Vec<u8> = envelope.0.iter().flat_map(|w| w.to_ne_bytes()).collect();
                let words = &words[..error_headers_len(h.v4) as usize];
                let error = [&packet[..ETH_LEN], words, &packet[ETH_LEN..][..len as usize]].concat();
                verify(&error).unwrap_or_else(|e| panic!("{error:?} about {about:?}: {e}"));
                let read = read(&error, Zone::Gate).unwrap();
                assert_eq!(read.key.tuple, tuple(gateway, 0, container, 0));
                assert_eq!(read.bytes as usize, Frame(error).len() - ETH_LEN);
                assert!(!should_reply(&read), "an error is due about an error");
            }
        }
    }
}

#[test]
fn errors_to_the_outside_are_limited() {
    let mut budget = Budget::default();
    let take = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
    let start = 5_000_000_000;
    assert_eq!(take(&mut budget, start), 100);
    assert_eq!(take(&mut budget, start + 99_999_999), 0);
    assert_eq!(take(&mut budget, start + 100_000_000), 100);
}
