//! Reading packets: Ethernet, IPv4, IPv6 and what of the transport headers a decision needs.

mod headers;
mod icmp;
mod tcp;
mod window;

pub use headers::{
    ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_LEN, ETH_SERVICE_VLAN, ETH_VLAN, Ethernet, Headers, Message, NO_WINDOW_SCALE,
};
pub use icmp::{ICMP_LEN, Quote, check_neighbour_options, neighbour_target, quoted, quoted_ipv6, quoted_mtu};
pub use window::{Mac, Packet, Window};

pub use crate::protocol::{ICMP, ICMPV6, IGMP, PIM, SCTP, TCP, UDP};

use headers::*;
use icmp::icmp;
use tcp::tcp_options;

use crate::maps::Zone;
use crate::{Addr, Verdict};

/// Reads the Ethernet header.
///
/// # Errors
/// [`Verdict::Malformed`] where the packet is shorter.
#[inline(always)]
pub fn ethernet<P: Packet>(p: &P) -> Result<Ethernet, Verdict> {
    let w = p.window::<ETH_LEN>(0).ok_or(Verdict::Malformed)?;
    Ok(Ethernet { dst: w.mac(0), src: w.mac(6), ethertype: u16::from_be(w.u16(12)) })
}

/// Reads the IP header that follows the Ethernet header, and the transport header after it, into `h`.
///
/// # Errors
/// [`Verdict::Malformed`] where the headers contradict themselves or the packet ends within them, and where
/// `ethertype` is neither IPv4 nor IPv6; [`Verdict::Martian`] for mapped addresses of IPv4 in IPv6. What is in `h` then is not to be used.
#[inline(always)]
pub fn headers<P: Packet>(p: &P, ethertype: u16, zone: Zone, h: &mut Headers) -> Result<(), Verdict> {
    h.key.zone = zone as u8;
    h.key.reserved = 0;
    h.key.tuple.sport = 0;
    h.key.tuple.dport = 0;
    h.flags = 0;
    h.ended = false;
    h.bytes = (p.len() - ETH_LEN) as u32;
    match ethertype {
        ETH_IPV4 => ipv4(p, h)?,
        ETH_IPV6 => ipv6(p, h)?,
        _ => return Err(Verdict::Malformed),
    }
    if matches!(h.message, Message::LaterFragment) {
        return Ok(());
    }
    transport(p, h)
}

/// IPv4 (RFC 791). Options are skipped, not looked into.
#[inline(always)]
fn ipv4<P: Packet>(p: &P, h: &mut Headers) -> Result<(), Verdict> {
    let w = p.window::<20>(ETH_LEN).ok_or(Verdict::Malformed)?;
    let first = w.u8(0);
    let header_len = ((first & 0xf) as u32) * 4;
    let total = u16::from_be(w.u16(2)) as u32;
    if first >> 4 != 4 || header_len < 20 {
        return Err(Verdict::Malformed);
    }
    // A super-packet over 64 KiB (BIG TCP) has no total length.
    if (total < header_len || total > h.bytes) && !(total == 0 && h.bytes > 0xffff) {
        return Err(Verdict::Malformed);
    }
    if total != 0 {
        h.bytes = total;
    }
    let fragment = u16::from_be(w.u16(6));
    let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
    h.key.tuple.src = Addr::v4_word(w.u32(12));
    h.key.tuple.dst = Addr::v4_word(w.u32(16));
    h.key.protocol = w.u8(9);
    h.ttl = w.u8(8);
    h.v4 = true;
    h.id = w.u16(4) as u32;
    h.message = if offset != 0 { Message::LaterFragment } else { Message::Other };
    h.first_fragment = more && offset == 0;
    h.l4 = ETH_LEN as u32 + header_len;
    Ok(())
}

/// IPv6 (RFC 8200).
#[inline(always)]
fn ipv6<P: Packet>(p: &P, h: &mut Headers) -> Result<(), Verdict> {
    let w = p.window::<40>(ETH_LEN).ok_or(Verdict::Malformed)?;
    let payload = u16::from_be(w.u16(4)) as u32;
    if w.u8(0) >> 4 != 6 || payload + 40 > h.bytes {
        return Err(Verdict::Malformed);
    }
    // A super-packet over 64 KiB (BIG TCP) has no payload length, with or without the jumbo option that RFC 2675 has for it.
    let is_jumbo = payload == 0 && h.bytes > 0xffff + 40;
    h.key.tuple.src = w.addr(8);
    h.key.tuple.dst = w.addr(24);
    // For us those are addresses of IPv4, which must not come by another way than IPv4 does.
    if h.key.tuple.src.is_v4() || h.key.tuple.dst.is_v4() {
        return Err(Verdict::Martian);
    }
    h.key.protocol = w.u8(6);
    h.ttl = w.u8(7);
    h.v4 = false;
    h.id = 0;
    h.message = Message::Other;
    h.first_fragment = false;
    h.l4 = ETH_LEN as u32 + 40;
    if !is_jumbo {
        h.bytes = payload + 40;
    }
    if is_extension(h.key.protocol) {
        return extensions(p, h);
    }
    Ok(())
}

/// Whether an IPv6 header of this number is looked through. An authentication header is not: nothing behind it may be
/// changed.
#[inline(always)]
const fn is_extension(number: u8) -> bool {
    matches!(number, HOP_BY_HOP | ROUTING_HEADER | FRAGMENT_HEADER | DESTINATION_OPTIONS)
}

/// Looks through IPv6 extension headers (RFC 8200 §4), up to the transport header or to one that is the last straw, which
/// becomes the protocol then. Nothing is looked through behind a fragment header: later fragments tell of its first
/// successor alone.
// Rare: with a stack frame of its own.
#[inline(never)]
fn extensions<P: Packet>(p: &P, h: &mut Headers) -> Result<(), Verdict> {
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(h.key.protocol) {
            return Ok(());
        }
        // SAFETY: a plain field. Volatile: the compiler knows the bound, and would not let the kernel's verifier see it.
        let l4 = unsafe { core::ptr::read_volatile(&raw const h.l4) } as usize & MAX_L4;
        let w = p.window::<8>(l4).filter(|_| h.has(8)).ok_or(Verdict::Malformed)?;
        if h.key.protocol == FRAGMENT_HEADER {
            let fragment = u16::from_be(w.u16(2));
            let (more, offset) = (fragment & 1 != 0, fragment & !7);
            h.key.protocol = w.u8(0);
            h.id = w.u32(4);
            h.message = if offset != 0 { Message::LaterFragment } else { Message::Other };
            h.first_fragment = more && offset == 0;
            h.l4 += 8;
            return if h.l4 > MAX_L4 as u32 { Err(Verdict::Malformed) } else { Ok(()) };
        }
        // Segments left: the destination is not the packet's last one, and its checksum covers another.
        if h.key.protocol == ROUTING_HEADER && w.u8(3) != 0 {
            return Ok(());
        }
        let next = h.l4 + (u32::from(w.u8(1)) + 1) * 8;
        if next > MAX_L4 as u32 {
            return Ok(());
        }
        h.key.protocol = w.u8(0);
        h.l4 = next;
    }
    Ok(())
}

#[inline(always)]
fn transport<P: Packet>(p: &P, h: &mut Headers) -> Result<(), Verdict> {
    let l4 = h.l4();
    match h.key.protocol {
        TCP => {
            let w = p.window::<20>(l4).filter(|_| h.has(20)).ok_or(Verdict::Malformed)?;
            let (data_offset, flags) = (w.u8(12) >> 4, w.u8(13));
            h.seq = u32::from_be(w.u32(4));
            h.ack = u32::from_be(w.u32(8));
            h.window = u16::from_be(w.u16(14));
            h.flags = flags & (TCP_SYN | TCP_FIN | TCP_RST);
            let headers = h.l4 + u32::from(data_offset) * 4;
            h.end = h.seq.wrapping_add(h.bytes + ETH_LEN as u32).wrapping_sub(headers);
            // No stack sends SYN with FIN or RST; scanners do (RFC 9293 gives it no meaning).
            if data_offset < 5 || (flags & TCP_SYN != 0 && flags & (TCP_FIN | TCP_RST) != 0) {
                return Err(Verdict::Malformed);
            }
            h.key.tuple.sport = w.u16(0);
            h.key.tuple.dport = w.u16(2);
            let opens = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
            h.message = if opens { Message::TcpOpen } else { Message::TcpSegment };
            if flags & TCP_SYN != 0 {
                tcp_options(p, h, headers);
            }
        }
        UDP => {
            let w = p.window::<8>(l4).filter(|_| h.has(8)).ok_or(Verdict::Malformed)?;
            let len = u16::from_be(w.u16(4));
            // Zero: a super-packet. Otherwise at least the header (RFC 768).
            if len != 0 && len < 8 {
                return Err(Verdict::Malformed);
            }
            h.key.tuple.sport = w.u16(0);
            h.key.tuple.dport = w.u16(2);
            h.message = Message::Datagram;
        }
        SCTP => {
            let w = p.window::<12>(l4).filter(|_| h.has(12)).ok_or(Verdict::Malformed)?;
            h.key.tuple.sport = w.u16(0);
            h.key.tuple.dport = w.u16(2);
            h.message = Message::Datagram;
        }
        ICMP if h.v4 => icmp(p, h, [8, 0], |t| matches!(t, 3 | 4 | 11 | 12), |t| matches!(t, 5 | 9))?,
        ICMPV6 if !h.v4 => {
            icmp(p, h, [128, 129], |t| matches!(t, 1..=4), |t| matches!(t, 130 | 134 | 137 | 151 | 153))?;
        }
        IGMP if h.v4 => {
            let w = p.window::<8>(l4).filter(|_| h.has(8)).ok_or(Verdict::Malformed)?;
            // Reports of all three versions, and that a group was left: all that who is no router has to say.
            if !matches!(w.u8(0), 0x12 | 0x16 | 0x17 | 0x22) {
                h.message = Message::Router;
            }
        }
        PIM => h.message = Message::Router,
        HOP_BY_HOP | ROUTING_HEADER | FRAGMENT_HEADER | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY if !h.v4 => {
            h.message = Message::Extended;
        }
        _ => {}
    }
    Ok(())
}

/// Whether an address is in 127.0.0.0/8 or ::1.
#[inline(always)]
pub fn is_loopback(a: &Addr) -> bool {
    if a.is_v4() { a.0[12] == 127 } else { *a == Addr::words([0, 0, 0, u32::from_be(1)]) }
}

/// Whether an address is multicast or the limited broadcast.
#[inline(always)]
pub fn is_multicast(a: &Addr) -> bool {
    if a.is_v4() { a.0[12] & 0xf0 == 0xe0 || a.v4_as_word() == u32::MAX } else { a.0[0] == 0xff }
}

/// Whether an address is none that a single machine has: multicast, broadcast, or unspecified ("this network", RFC 1122).
#[inline(always)]
pub fn is_no_unicast(a: &Addr) -> bool {
    is_multicast(a) || if a.is_v4() { a.0[12] == 0 } else { *a == Addr::ANY_V6 }
}

/// Whether there may be ports behind extension headers that were not looked through, which the host's stack would find. Behind an
/// authentication header it finds none unless it knows the sender, and behind that of mobility there is nothing.
#[inline(always)]
pub const fn hides_ports(h: &Headers) -> bool {
    matches!(h.message, Message::Extended) && h.key.protocol != AUTHENTICATION && h.key.protocol != MOBILITY
}

/// Whether an IPv6 address is link-local (`fe80::/10`).
#[inline(always)]
pub fn is_link_local(a: &Addr) -> bool {
    a.0[0] == 0xfe && a.0[1] & 0xc0 == 0x80
}

/// What of an ARP packet over Ethernet and IPv4 (RFC 826) counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpMessage {
    /// The sender's MAC address.
    pub mac: Mac,
    /// The sender's IPv4 address as one word, as it stands in the packet.
    pub sender: u32,
    /// The IPv4 address that is asked for, or of whom is answered, in the same form.
    pub target: u32,
}

/// Reads an ARP packet.
///
/// # Errors
/// [`Verdict::Malformed`] for ARP about anything but Ethernet and IPv4, and for what neither asks nor answers.
#[inline(always)]
pub fn arp_message<P: Packet>(p: &P) -> Result<ArpMessage, Verdict> {
    let w = p.window::<28>(ETH_LEN).ok_or(Verdict::Malformed)?;
    if w.u32(0) != u32::from_ne_bytes([0, 1, 8, 0]) || w.u16(4) != u16::from_ne_bytes([6, 4]) {
        return Err(Verdict::Malformed);
    }
    if !matches!(u16::from_be(w.u16(6)), 1 | 2) {
        return Err(Verdict::Malformed);
    }
    Ok(ArpMessage { mac: w.mac(8), sender: w.u32(14), target: w.u32(24) })
}
