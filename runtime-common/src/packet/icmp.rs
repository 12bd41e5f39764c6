//! ICMP and ICMPv6: what a message is, and what it is about.

use super::headers::{ETH_LEN, FRAGMENT_HEADER, Headers, Message};
use super::window::{Mac, Packet};
use crate::maps::FlowKey;
use crate::protocol::{ICMP, ICMPV6};
use crate::{Addr, Verdict};

/// Length of the header of an ICMP or ICMPv6 error in bytes: where what it quotes starts.
pub const ICMP_LEN: usize = 8;

/// ICMPv6 types of neighbour discovery (RFC 4861).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The target of a neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4), and whether it is an advertisement.
///
/// # Errors
/// [`Verdict::Malformed`] where it ends too early.
#[inline(always)]
pub fn neighbour_target<P: Packet>(p: &P, h: &Headers) -> Result<(Addr, bool), Verdict> {
    let w = p.window::<24>(h.l4()).filter(|_| h.has(24)).ok_or(Verdict::Malformed)?;
    Ok((w.addr(8), w.u8(0) == ADVERTISEMENT))
}

/// Options of neighbour discovery (RFC 4861 §4.6, RFC 3971 §5.3.2), and how many of them a message needs at most.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const NONCE: u8 = 14;
const MAX_OPTIONS: usize = 2;

/// Checks the options of a neighbour solicitation or advertisement from the neighbour with that MAC address: they name it alone, and
/// are no more than such a message needs, with what tells a looped back one by (RFC 7527).
///
/// # Errors
/// [`Verdict::SpoofedMac`] for another MAC address, [`Verdict::NeighbourOption`] for another option, [`Verdict::Malformed`] where one
/// ends too early.
#[inline(always)]
pub fn check_neighbour_options<P: Packet>(p: &P, h: &Headers, mac: Mac, advertisement: bool) -> Result<(), Verdict> {
    let link_layer = if advertisement { TARGET_LINK_LAYER } else { SOURCE_LINK_LAYER };
    let end = ETH_LEN + h.bytes as usize;
    let mut at = h.l4() + 24;
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return Ok(());
        }
        let w = p.window::<8>(at).filter(|_| at + 8 <= end).ok_or(Verdict::Malformed)?;
        match (w.u8(0), w.u8(1)) {
            (kind, 1) if kind == link_layer => {
                if w.mac(2) != mac {
                    return Err(Verdict::SpoofedMac);
                }
            }
            (NONCE, 1) if !advertisement => {}
            _ => return Err(Verdict::NeighbourOption),
        }
        at += 8;
    }
    if at >= end { Ok(()) } else { Err(Verdict::NeighbourOption) }
}

/// Reads an ICMP header into `h`: `echo` are the types of request and reply, and the others tell what else a type is.
#[inline(always)]
pub(super) fn icmp<P: Packet>(
    p: &P,
    h: &mut Headers,
    echo: [u8; 2],
    is_error: fn(u8) -> bool,
    is_router: fn(u8) -> bool,
) -> Result<(), Verdict> {
    let w = p.window::<8>(h.l4()).filter(|_| h.has(8)).ok_or(Verdict::Malformed)?;
    let (kind, id) = (w.u8(0), w.u16(4));
    if kind == echo[0] {
        h.message = Message::EchoRequest;
        h.key.tuple.sport = id;
    } else if kind == echo[1] {
        h.message = Message::EchoReply;
        h.key.tuple.dport = id;
    } else if is_error(kind) {
        h.message = Message::IcmpError;
    } else if is_router(kind) {
        h.message = Message::Router;
    } else if !h.v4 && (kind == SOLICITATION || kind == ADVERTISEMENT) {
        h.message = Message::Neighbour;
    }
    Ok(())
}

/// What an ICMP error quotes of a packet, beside the key of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its length from the IP header on, in bytes, as that says; the largest number where it is too long to say it (BIG TCP).
    pub len: u32,
    /// TCP: its sequence number (host byte order).
    pub seq: u32,
}

/// The MTU that an ICMP error tells of, in bytes: fragmentation needed (RFC 1191), packet too big (RFC 4443 §3.2). `None` for all
/// others.
#[inline(always)]
pub fn quoted_mtu<P: Packet>(p: &P, h: &Headers) -> Option<u32> {
    let w = p.window::<8>(h.l4())?;
    match (h.v4, w.u8(0), w.u8(1)) {
        (true, 3, 4) => Some(u32::from(u16::from_be(w.u16(6)))),
        (false, 2, _) => Some(u32::from_be(w.u32(4))),
        _ => None,
    }
}

/// Reads of the packet that an ICMP error quotes (RFC 792, RFC 4443) what makes up its flow's key, into `key`; the zone
/// is left alone. `None` where it cannot be read, as in a later fragment.
///
/// The checksums quoted are not looked at: routers change what they quote, and no receiver looks at them either.
#[inline(always)]
pub fn quoted<P: Packet>(p: &P, h: &Headers, key: &mut FlowKey) -> Option<Quote> {
    let inner = h.l4() + ICMP_LEN;
    let len;
    let l4 = if h.v4 {
        let w = p.window::<20>(inner)?;
        let first = w.u8(0);
        if u16::from_be(w.u16(6)) & 0x1fff != 0 || first >> 4 != 4 || first & 0xf < 5 {
            return None;
        }
        len = told(u16::from_be(w.u16(2)), 0);
        key.tuple.src = Addr::v4_word(w.u32(12));
        key.tuple.dst = Addr::v4_word(w.u32(16));
        key.protocol = w.u8(9);
        inner + ((first & 0xf) as usize) * 4
    } else {
        let w = p.window::<40>(inner)?;
        if w.u8(0) >> 4 != 6 {
            return None;
        }
        len = told(u16::from_be(w.u16(4)), 40);
        key.tuple.src = w.addr(8);
        key.tuple.dst = w.addr(24);
        key.protocol = w.u8(6);
        let (l4, protocol) = quoted_ipv6(p, inner, key.protocol)?;
        key.protocol = protocol;
        l4
    };
    let w = p.window::<8>(l4)?;
    key.reserved = 0;
    if matches!(key.protocol, ICMP | ICMPV6) {
        key.tuple.sport = w.u16(4);
        key.tuple.dport = 0;
    } else {
        key.tuple.sport = w.u16(0);
        key.tuple.dport = w.u16(2);
    }
    Some(Quote { len, seq: u32::from_be(w.u32(4)) })
}

/// A length that an IP header tells, and what it does not count in.
#[inline(always)]
fn told(length: u16, more: u32) -> u32 {
    if length == 0 { u32::MAX } else { u32::from(length) + more }
}

/// Where the transport header of a quoted IPv6 packet at `inner` is whose header names `next`, and its protocol: behind a
/// fragment header too, as a first fragment that was too big is quoted. `None` for later fragments.
#[inline(always)]
pub fn quoted_ipv6<P: Packet>(p: &P, inner: usize, next: u8) -> Option<(usize, u8)> {
    if next != FRAGMENT_HEADER {
        return Some((inner + 40, next));
    }
    let w = p.window::<8>(inner + 40)?;
    (u16::from_be(w.u16(2)) & !7 == 0).then(|| (inner + 48, w.u8(0)))
}
