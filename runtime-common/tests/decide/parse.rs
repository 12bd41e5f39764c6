//! What is read of packets, and what is written into them.

use runtime_common::maps::{Tuple, Zone};
use runtime_common::packet::{ETH_LEN, Headers, Mac, Message, Packet, ethernet, headers, quoted};
use runtime_common::rewrite::set_macs;
use runtime_common::{Addr, Verdict};

use super::frame::{Frame, translate_to};
use super::world::{EMPTY, read};
use packet_builder::*;

fn ports(h: &Headers) -> (u16, u16) {
    (u16::from_be(h.key.tuple.sport), u16::from_be(h.key.tuple.dport))
}

#[test]
fn headers_say_what_the_packet_is() {
    const A: (&str, &str) = ("192.0.2.9", "2001:db8::9");
    const B: (&str, &str) = ("192.0.2.1", "2001:db8::1");
    for (a, b) in [(A.0, B.0), (A.1, B.1)] {
        let v4 = a == A.0;
        let icmp_number = if v4 { 1 } else { 58 };
        let big = udp(a, 7, b, 8).payload(&[0; 40]);
        let cases = [
            (tcp(a, 1, b, 2, SYN), Message::TcpOpen, 6, (1, 2)),
            (tcp(a, 1, b, 2, SYN | ACK), Message::TcpSegment, 6, (1, 2)),
            (tcp(a, 1, b, 2, FIN | ACK), Message::TcpSegment, 6, (1, 2)),
            (tcp(a, 1, b, 2, RST), Message::TcpSegment, 6, (1, 2)),
            (tcp(a, 1, b, 2, 0), Message::TcpSegment, 6, (1, 2)),
            (udp(a, 3, b, 4), Message::Datagram, 17, (3, 4)),
            (sctp(a, 5, b, 6), Message::Datagram, 132, (5, 6)),
            (echo(a, b, true, 0x77), Message::EchoRequest, icmp_number, (0x77, 0)),
            (echo(a, b, false, 0x77), Message::EchoReply, icmp_number, (0, 0x77)),
            (unreachable(a, b, &udp(b, 1, a, 2)), Message::IcmpError, icmp_number, (0, 0)),
            (raw(a, b, 47), Message::Other, 47, (0, 0)),
            (big.clone().fragment(0, 24), Message::Datagram, 17, (7, 8)),
            (big.fragment(24, 24), Message::LaterFragment, 17, (0, 0)),
        ];
        for (packet, message, protocol, expected) in cases {
            let h = read(&packet.build(), Zone::Uplink).unwrap();
            assert_eq!((h.message, h.key.protocol, ports(&h)), (message, protocol, expected), "{packet:?}");
            assert_eq!((h.key.tuple.src, h.key.tuple.dst), (Addr::from(ip(a)), Addr::from(ip(b))));
            assert_eq!((h.v4, h.ttl, h.bytes as usize), (v4, 64, packet.build().len() - ETH_LEN), "{packet:?}");
            let first = packet.fragment.is_some_and(|(first, _)| first == 0);
            assert_eq!((h.first_fragment, h.id != 0), (first, v4 || packet.fragment.is_some()), "{packet:?}");
            let L4::Tcp { flags, .. } = packet.l4 else { continue };
            assert_eq!((h.syn(), h.fin(), h.rst()), (flags & SYN != 0, flags & FIN != 0, flags & RST != 0));
        }
    }
}

/// A UDP header from port 7 to port 8, or the ICMPv6 message of a type.
const UDP_HEADER: [u8; 16] = [0, 7, 0, 8, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

fn icmpv6(kind: u8) -> [u8; 16] {
    [kind, 0, 0, 0, 0, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
}

/// An extension header of `8 + 8 * more` bytes before the header `next`.
fn extension(next: u8, more: u8) -> Vec<u8> {
    let mut b = vec![next, more, 1, 0, 0, 0, 0, 0];
    b.resize(8 + 8 * usize::from(more), 0);
    b
}

#[test]
fn extension_headers_are_looked_through_within_a_bound() {
    let cases: Vec<(u8, Vec<Vec<u8>>, Message, usize)> = vec![
        (0, vec![extension(17, 0), UDP_HEADER.into()], Message::Datagram, 8),
        (60, vec![extension(17, 2), UDP_HEADER.into()], Message::Datagram, 24),
        (0, vec![extension(43, 0), extension(60, 0), extension(17, 0), UDP_HEADER.into()], Message::Datagram, 24),
        (
            0,
            vec![extension(60, 0), extension(43, 0), extension(60, 0), extension(17, 0), UDP_HEADER.into()],
            Message::Datagram,
            32,
        ),
        (0, vec![extension(58, 0), icmpv6(143).into()], Message::Other, 8),
        (0, vec![extension(58, 0), icmpv6(136).into()], Message::Neighbour, 8),
        (60, vec![extension(58, 0), icmpv6(134).into()], Message::Router, 8),
        (60, vec![extension(58, 1), icmpv6(128).into()], Message::EchoRequest, 16),
        // Five of them, and one that is too long.
        (
            0,
            vec![
                extension(60, 0),
                extension(60, 0),
                extension(60, 0),
                extension(60, 0),
                extension(17, 0),
                UDP_HEADER.into(),
            ],
            Message::Extended,
            32,
        ),
        (60, vec![extension(17, 30), UDP_HEADER.into()], Message::Extended, 0),
        // More of the route to go.
        (43, vec![vec![17, 0, 0, 1, 0, 0, 0, 0], UDP_HEADER.into()], Message::Extended, 0),
        // An authentication header, mobility, and what follows a fragment header.
        (51, vec![vec![17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], UDP_HEADER.into()], Message::Extended, 0),
        (60, vec![extension(51, 0), UDP_HEADER.into()], Message::Extended, 8),
        (135, vec![extension(59, 0), UDP_HEADER.into()], Message::Extended, 0),
        (44, vec![vec![60, 0, 0, 1, 0, 0, 0, 9], extension(17, 0), UDP_HEADER.into()], Message::Extended, 8),
        // Fragments behind others: the first, a later one, and one that is whole.
        (0, vec![extension(44, 0), vec![17, 0, 0, 1, 0, 0, 0, 9], UDP_HEADER.into()], Message::Datagram, 16),
        (60, vec![extension(44, 0), vec![17, 0, 0, 9, 0, 0, 0, 9], UDP_HEADER.into()], Message::LaterFragment, 16),
        (0, vec![extension(44, 0), vec![17, 0, 0, 0, 0, 0, 0, 9], UDP_HEADER.into()], Message::Datagram, 16),
        (59, vec![vec![0; 10]], Message::Other, 0),
    ];
    for (protocol, headers, message, length) in cases {
        let payload = headers.concat();
        let packet = raw("fe80::1", "ff02::1", protocol).payload(&payload).build();
        let h = read(&packet, Zone::Endpoint).unwrap();
        assert_eq!((h.message, h.l4 as usize), (message, 54 + length), "{protocol} {headers:?}");
        assert_eq!(ports(&h), if message == Message::Datagram { (7, 8) } else { ports(&h) }, "{protocol} {headers:?}");
    }
    // Cut within any of them, it is malformed.
    let payload = [extension(60, 0), extension(17, 1), UDP_HEADER[..8].to_vec()].concat();
    for len in 0..payload.len() {
        let packet = raw("fe80::1", "ff02::1", 0).payload(&payload[..len]).build();
        assert_eq!(read(&packet, Zone::Endpoint).unwrap_err(), Verdict::Malformed, "{len}");
    }
    // In IPv4 those numbers mean nothing special.
    let packet = raw("192.0.2.1", "192.0.2.9", 60).build();
    assert_eq!(read(&packet, Zone::Endpoint).unwrap().message, Message::Other);
}

#[test]
fn every_prefix_of_a_packet_is_malformed_or_whole() {
    for packet in [
        tcp("192.0.2.9", 1, "192.0.2.1", 2, SYN).payload(b""),
        udp("2001:db8::9", 1, "2001:db8::1", 2).payload(b""),
        echo("192.0.2.9", "192.0.2.1", true, 1).payload(b""),
    ] {
        let whole = packet.build();
        for len in ETH_LEN..whole.len() {
            assert_eq!(read(&whole[..len], Zone::Gate).unwrap_err(), Verdict::Malformed, "{packet:?} at {len}");
        }
        assert!(read(&whole, Zone::Gate).is_ok());
    }
    assert_eq!(ethernet(&Frame(vec![0; 13])), Err(Verdict::Malformed));
    let mut h = EMPTY;
    assert_eq!(headers(&Frame(vec![0; 60]), 0x0806, Zone::Gate, &mut h), Err(Verdict::Malformed));
}

#[test]
fn an_error_quotes_its_flow() {
    for (a, b) in [("192.0.2.9", "192.0.2.1"), ("2001:db8::9", "2001:db8::1")] {
        for about in [tcp(b, 80, a, 4000, ACK), udp(b, 80, a, 4000), echo(b, a, true, 9)] {
            let packet = unreachable(a, b, &about).build();
            let h = read(&packet, Zone::Gate).unwrap();
            let mut key = h.key;
            quoted(&Frame(packet.clone()), &h, &mut key).unwrap();
            assert_eq!(key, read(&about.build(), Zone::Gate).unwrap().key);
            // Eight bytes after the quoted IP header are all that is asked for, and no less will do.
            let short = h.l4 as usize + 8 + if h.v4 { 20 } else { 40 } + 7;
            assert_eq!(quoted(&Frame(packet[..short].to_vec()), &h, &mut key), None);
        }
    }
}

#[test]
fn translation_gives_what_building_anew_gives() {
    let cases = [
        tcp("192.0.2.9", 40000, "192.0.2.1", 80, SYN),
        udp("192.0.2.9", 40000, "192.0.2.1", 80),
        udp_without_checksum("192.0.2.9", 40000, "192.0.2.1", 80),
        sctp("192.0.2.9", 40000, "192.0.2.1", 80),
        tcp("2001:db8::9", 40000, "2001:db8::1", 80, ACK),
        udp("2001:db8::9", 40000, "2001:db8::1", 80),
        tcp("192.0.2.9", 40000, "192.0.2.1", 80, ACK).options(&[1; 12]),
        udp("192.0.2.9", 40000, "192.0.2.1", 80).payload(&[3; 40]).fragment(0, 24),
        udp("192.0.2.9", 40000, "192.0.2.1", 80).payload(&[3; 40]).fragment(24, 24),
    ];
    for packet in cases {
        let (src, dst) = if packet.src.is_ipv4() { ("10.255.0.1", "172.17.0.2") } else { ("fd00::ffff", "fd00:17::2") };
        let out = packet.clone().between(src, dst).ports(0xffff, 1).ttl(63);
        let mut frame = Frame(packet.build());
        let h = read(&frame.0, Zone::Uplink).unwrap();
        let to =
            Tuple { src: Addr::from(ip(src)), dst: Addr::from(ip(dst)), sport: 0xffffu16.to_be(), dport: 1u16.to_be() };
        assert_eq!(translate_to(&mut frame, &h, &to), Ok(()));
        assert_eq!(frame.0, out.build(), "{packet:?}");
    }
    // What has no ports is not written.
    let mut frame = Frame(raw("192.0.2.9", "192.0.2.1", 47).payload(&[0; 8]).build());
    let h = read(&frame.0, Zone::Uplink).unwrap();
    assert_eq!(translate_to(&mut frame, &h, &h.key.tuple), Err(Verdict::RewriteFailed));
}

#[test]
fn echo_requests_and_replies_are_translated_by_their_identifier() {
    for (from, to) in [
        (["192.0.2.9", "192.0.2.1"], ["10.255.0.1", "172.17.0.2"]),
        (["2001:db8::9", "2001:db8::1"], ["fd00::ffff", "fd00:17::2"]),
    ] {
        for request in [true, false] {
            let mut frame = Frame(echo(from[0], from[1], request, 0x1234).build());
            let h = read(&frame.0, Zone::Uplink).unwrap();
            let (sport, dport) = if request { (0xff01u16.to_be(), 0) } else { (0, 0xff01u16.to_be()) };
            let tuple = Tuple { src: Addr::from(ip(to[0])), dst: Addr::from(ip(to[1])), sport, dport };
            assert_eq!(translate_to(&mut frame, &h, &tuple), Ok(()));
            assert_eq!(frame.0, echo(to[0], to[1], request, 0xff01).ttl(63).build(), "{from:?} {request}");
        }
    }
}

#[test]
fn mac_addresses_are_read_and_written() {
    let (a, b) = ([2, 1, 2, 3, 4, 5], [1, 9, 8, 7, 6, 5]);
    let mut frame = Frame(vec![0; 14]);
    assert_eq!(set_macs(&mut frame, Mac::new(a), Mac::new(b)), Some(()));
    assert_eq!(frame.0[..12], [a, b].concat());
    let e = ethernet(&frame).unwrap();
    assert_eq!((e.dst, e.src, e.ethertype), (Mac::new(a), Mac::new(b), 0));
    assert_eq!((e.dst.is_group(), e.src.is_group()), (false, true));
    assert_eq!((set_macs(&mut Frame(vec![0; 11]), e.dst, e.src), frame.len()), (None, 14));
}

#[test]
fn super_packets_over_64_kib_have_no_length_of_their_own() {
    let packet = tcp("2001:db8::9", 40000, "2001:db8::1", 80, ACK).payload(&[7; 70_000]).build();
    let mut plain = packet.clone();
    plain[18..20].copy_from_slice(&[0, 0]);
    // With the jumbo option of RFC 2675, in a hop-by-hop header before the TCP header.
    let mut jumbo = plain.clone();
    jumbo[20] = 0;
    jumbo.splice(54..54, [[6, 0, 0xc2, 4], 70_028u32.to_be_bytes()].concat());
    for (packet, l4) in [(plain, 54), (jumbo, 62)] {
        let h = read(&packet, Zone::Uplink).unwrap();
        assert_eq!((h.l4, h.bytes as usize, ports(&h)), (l4, packet.len() - 14, (40000, 80)));
        assert_eq!(h.message, Message::TcpSegment);
        // A short packet without a length has no TCP header.
        let short = &packet[..packet.len() - 60_000];
        assert_eq!(read(short, Zone::Uplink), Err(Verdict::Malformed));
    }
}
