//! Headers that contradict themselves or end too early.

use runtime_common::Verdict;
use runtime_common::packet::TCP;

use packet_builder::*;
use packet_lab::world::*;

/// The packet with some bytes replaced.
fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// The packet cut after `len` bytes; its lengths say so too where `honest`.
fn cut(packet: &PacketBuilder, len: usize, honest: bool) -> Vec<u8> {
    let mut b = packet.build();
    b.truncate(len);
    if honest && packet.src.is_ipv4() {
        b = with(b, 16, &((len - 14) as u16).to_be_bytes());
    } else if honest {
        b = with(b, 18, &((len - 54) as u16).to_be_bytes());
    }
    b
}

fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases = vec![];
    let families = [(CLIENT, HOST, 34), (CLIENT6, HOST6, 54)];
    for (src, dst, l4) in families {
        let headers = [
            ("TCP", tcp(src, 1, dst, 80, SYN).payload(b""), 20),
            ("UDP", udp(src, 1, dst, 80).payload(b""), 8),
            ("SCTP", sctp(src, 1, dst, 80).payload(b""), 12),
            ("echo", echo(src, dst, true, 1).payload(b""), 8),
        ];
        for (what, packet, header) in headers {
            for len in 15..l4 + header {
                cases.push((format!("{what} from {src} cut at {len}"), cut(&packet, len, false)));
            }
            for len in l4..l4 + header {
                cases.push((format!("{what} from {src} ending at {len}"), cut(&packet, len, true)));
                // What the lengths leave out is the frame's padding and nobody's header.
                let mut padded = cut(&packet, len, true);
                padded.resize(l4 + header + 4, 0xff);
                cases.push((format!("{what} from {src} ending at {len}, padded"), padded));
            }
        }
        let syn = tcp(src, 1, dst, 80, SYN).build();
        for flags in [SYN | FIN, SYN | RST, SYN | FIN | ACK, SYN | RST | ACK, 0xff] {
            cases.push((format!("TCP flags {flags:#x}"), with(syn.clone(), l4 + 13, &[flags])));
        }
        cases.push(("TCP data offset".into(), with(syn.clone(), l4 + 12, &[4 << 4])));
        let datagram = udp(src, 1, dst, 80).build();
        cases.push(("UDP length".into(), with(datagram, l4 + 4, &[0, 7])));
        cases.push(("version".into(), with(syn.clone(), 14, &[0x55])));
        cases.push(("version".into(), with(syn, 14, &[0])));
    }
    let syn = tcp(CLIENT, 1, HOST, 80, SYN).build();
    cases.push(("header length".into(), with(syn.clone(), 14, &[0x44])));
    cases.push(("header longer than the packet".into(), with(syn.clone(), 14, &[0x4f])));
    cases.push(("total length beyond the packet".into(), with(syn.clone(), 16, &[0x7f, 0xff])));
    cases.push(("total length less than the header".into(), with(syn.clone(), 16, &[0, 19])));
    cases.push(("no total length".into(), with(syn, 16, &[0, 0])));
    let syn = tcp(CLIENT6, 1, HOST6, 80, SYN).build();
    cases.push(("payload length beyond the packet".into(), with(syn, 18, &[0x7f, 0xff])));
    cases
}

#[test]
fn malformed_packets_are_dropped_at_every_hook() {
    let mut w = World::new();
    for host in ["0.0.0.0", "::"] {
        w.publish(host, 80, TCP, &WEB, 80);
    }
    for (what, packet) in cases() {
        w.expect(&what, Xdp, &packet, Verdict::Malformed);
        // The kernel's test run itself refuses to make an skb of less than the IP header.
        if packet.len() < if packet[12] == 0x08 { 34 } else { 54 } {
            continue;
        }
        w.expect(&what, Uplink, &with(packet.clone(), 0, &MAC_UPLINK), Verdict::Malformed);
        w.expect(&what, Leaving("web"), &with(packet.clone(), 6, &WEB.mac), Verdict::Malformed);
        w.expect(&what, Entering("web", "up0"), &packet, Verdict::Malformed);
    }
    let truncated_arp = arp(WEB.mac, WEB.mac, WEB.v4, DB.v4, false)[..31].to_vec();
    w.expect("ARP cut", Leaving("web"), &truncated_arp, Verdict::Malformed);
    let infiniband = with(arp(WEB.mac, WEB.mac, WEB.v4, DB.v4, false), 15, &[32]);
    w.expect("ARP of another medium", Leaving("web"), &infiniband, Verdict::Malformed);
    assert_eq!(w.flows("PENDING"), []);
}

#[test]
fn padding_of_a_short_frame_does_no_harm() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, &WEB, 80);
    let packet = inbound(tcp(CLIENT, 1, HOST, 80, SYN).payload(b""));
    for at in [Uplink, Xdp] {
        w.forget();
        let (mut frame, mut out) = (packet.build(), published(&packet, at, &WEB, 80).build());
        frame.resize(60, 0);
        out.resize(60, 0);
        let outcome = w.run(at, &frame, 1);
        assert_eq!(outcome.counted, [(Verdict::Published, 1)]);
        assert_eq!(outcome.packet, out, "{at:?}");
        assert!(w.flows("PENDING").iter().any(|(_, flow)| flow.bytes == 40), "{at:?}");
    }
}
