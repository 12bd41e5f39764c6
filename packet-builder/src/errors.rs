//! ICMP errors about conversations, and whether they are to be believed: run by the host's build of the decisions and by the verified
//! programs.

use super::{ACK, PacketBuilder, SYN, icmp, ip, tcp, udp, unreachable};

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// A client outside.
    pub client: &'static str,
    /// The host, as seen from outside.
    pub host: &'static str,
    /// Another address of the host's.
    pub gateway: &'static str,
    /// Somewhere on the way to the client.
    pub router: &'static str,
    /// The container with the published ports 8080 (TCP, its own port 80) and 5353 (UDP, its own port 53).
    pub web: &'static str,
    /// Another container, to whose UDP port 5432 `web` has a link.
    pub db: &'static str,
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From outside, at the uplink.
    Outside,
    /// From the container `web`.
    Web,
    /// From outside, straight to the container `web`: at the uplink, and at its gate.
    Straight,
}

use Origin::{Outside, Straight, Web};

/// What is to become of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It goes to whom it is for.
    Believed,
    /// It is dropped as `icmp_error`.
    Refused,
    /// It is the host's own affair.
    Hosts,
}

use Heard::{Believed, Hosts, Refused};

/// Data of either side of the TCP connection that is on its way, in bytes.
const DATA: usize = 1400;

/// What has been said before: a connection of which both sides have data on the way, published and linked datagrams with their
/// answers, and a datagram of the container's own.
pub fn conversations(e: &Ends) -> Vec<(Origin, PacketBuilder)> {
    let Ends { client, host, web, db, .. } = *e;
    let client_says = |flags, seq, ack| tcp(client, 4000, host, 8080, flags).sequence(seq).acknowledges(ack);
    let web_says = |flags, seq, ack| tcp(web, 80, client, 4000, flags).sequence(seq).acknowledges(ack);
    vec![
        (Outside, client_says(SYN, 1000, 0).payload(b"")),
        (Web, web_says(SYN | ACK, 5000, 1001).payload(b"")),
        (Outside, client_says(ACK, 1001, 5001).payload(&[1; DATA])),
        (Web, web_says(ACK, 5001, 1001).payload(&[2; DATA])),
        (Outside, udp(client, 4000, host, 5353)),
        (Web, udp(web, 53, client, 4000)),
        (Web, udp(web, 3000, db, 5432)),
        (Web, udp(web, 3000, client, 53)),
    ]
}

/// An error that what is quoted is too big.
fn too_big(src: &str, dst: &str, about: &PacketBuilder, mtu: u16) -> PacketBuilder {
    let kind = if ip(src).is_ipv4() { [3, 4] } else { [2, 0] };
    let mtu = mtu.to_be_bytes();
    icmp(src, dst, kind[0], kind[1], [0, 0, mtu[0], mtu[1]]).payload(&about.build()[14..][..68])
}

/// The errors that may come after [`conversations`].
pub fn errors(e: &Ends) -> Vec<(&'static str, Origin, PacketBuilder, Heard)> {
    let Ends { client, host, gateway, router, web, db } = *e;
    let v4 = ip(client).is_ipv4();
    let (header, least, longest) = if v4 { (20u16, 68, 576) } else { (40, 1280, 1280) };
    let outside = |seq: u32| tcp(host, 8080, client, 4000, ACK).sequence(seq).payload(&[2; DATA]);
    let inside = |seq: u32| tcp(client, 4000, web, 80, ACK).sequence(seq).payload(&[1; DATA]);
    // Either side offers 4096 bytes.
    let in_flight = [("the first on its way", 0u32, Believed), ("the last within the window", 4096, Believed)];
    let elsewhere = [
        ("acknowledged", 0u32.wrapping_sub(1), Refused),
        ("long gone", 0u32.wrapping_sub(100_000), Refused),
        ("beyond the window", 4097, Refused),
        ("far from it", 1 << 31, Refused),
    ];
    let mut all = vec![];
    for (name, offset, heard) in in_flight.into_iter().chain(elsewhere) {
        let (of_web, of_client) = (outside(offset.wrapping_add(5001)), inside(offset.wrapping_add(1001)));
        all.push((name, Outside, unreachable(router, host, &of_web), heard));
        all.push((name, Outside, unreachable(client, host, &of_web), heard));
        all.push((name, Web, unreachable(web, client, &of_client), heard));
    }
    let len = header + 20 + DATA as u16;
    for (name, mtu, heard) in [
        ("just too big", len - 1, Believed),
        ("fits", len, Refused),
        ("more than fits", len + 1, Refused),
        ("the least MTU", least, Believed),
        ("less than that", least - 1, Refused),
        // As routers of IPv4 did before RFC 1191.
        ("no MTU", 0, if v4 { Believed } else { Refused }),
    ] {
        all.push((name, Outside, too_big(router, host, &outside(5001), mtu), heard));
        all.push((name, Web, too_big(web, client, &inside(1001), mtu), heard));
    }
    // A datagram is small, and so is no reason for a small MTU.
    let small = udp(host, 5353, client, 4000).payload(&[5; 100]);
    all.push(("a small datagram", Outside, too_big(router, host, &small, 552), Refused));
    all.push(("a small datagram, and no MTU", Outside, too_big(router, host, &small, 0), Refused));
    let quoting =
        |len: u16| unreachable(router, host, &outside(5001)).payload(&outside(5001).build()[14..][..usize::from(len)]);
    let room = longest - header - 8;
    all.push(("as long as may be", Outside, quoting(room), Believed));
    all.push(("longer", Outside, quoting(room + 1), Refused));
    let whole = |flip: u8| {
        let mut error = unreachable(router, host, &outside(5001));
        error.payload[0] ^= flip;
        error
    };
    all.push(("another version", Outside, whole(0xc0), Hosts));
    if v4 {
        all.push(("a header that is too short", Outside, whole(0x07), Hosts));
    }
    all.push(("in fragments", Outside, unreachable(router, host, &outside(5001)).fragment(0, 72), Refused));
    all.push(("to another address", Outside, unreachable(router, gateway, &outside(5001)), Refused));
    all.push(("about another", Outside, unreachable(router, host, &outside(5001).ports(8080, 4001)), Hosts));
    all.push(("a datagram", Outside, unreachable(router, host, &udp(host, 5353, client, 4000)), Believed));
    all.push(("a datagram to another port", Outside, unreachable(router, host, &udp(host, 5353, client, 4001)), Hosts));
    all.push(("a datagram", Web, unreachable(web, client, &udp(client, 4000, web, 53)), Believed));
    // From the container about what was for another one, or to somebody else.
    let others = udp(client, 4000, db, 53);
    all.push(("another's", Web, unreachable(web, client, &others), Refused));
    all.push(("another's, to the host", Web, unreachable(web, gateway, &udp(gateway, 9, db, 53)), Refused));
    all.push(("its own, to the host", Web, unreachable(web, gateway, &udp(gateway, 9, web, 53)), Hosts));
    all.push(("its own, to another", Web, unreachable(web, gateway, &udp(client, 4000, web, 53)), Refused));
    // Straight to the container, about what it has sent under its own address.
    all.push(("its own", Straight, unreachable(router, web, &udp(web, 3000, client, 53)), Believed));
    let small = udp(web, 3000, client, 53).payload(&[5; 100]);
    all.push(("a small datagram of its own", Straight, too_big(router, web, &small, 552), Refused));
    all.push(("to another port", Straight, unreachable(router, web, &udp(web, 3000, client, 54)), Refused));
    all.push(("what has gone to a sibling", Straight, unreachable(router, web, &udp(web, 3000, db, 5432)), Refused));
    all.push((
        "what is sent under the host's address",
        Outside,
        unreachable(router, web, &udp(web, 53, client, 4000)),
        Refused,
    ));
    all.push(("what another has sent", Straight, unreachable(router, web, &udp(db, 3000, client, 53)), Refused));
    all
}
