//! What a router says about a packet that it cannot send on: ICMP and ICMPv6 errors of the datapath's own.
//!
//! The packet itself becomes the error: it is cut to [`quoted_len`] bytes, and an [`ErrorHeaders`] goes before its IP header.

use crate::checksum::{finish, sum};
use crate::packet::{ETH_LEN, Headers, ICMP, ICMPV6, Message, Packet, TCP, UDP, is_loopback, is_multicast};
use crate::{Addr, Verdict};

/// Why a packet is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Its time to live ran out.
    TimeExceeded,
    /// Its way out takes no more than this many bytes from the IP header on.
    TooBig(u16),
}

impl IcmpError {
    /// The drop's reason.
    pub const fn verdict(self) -> Verdict {
        match self {
            IcmpError::TimeExceeded => Verdict::TtlExceeded,
            IcmpError::TooBig(_) => Verdict::TooBig,
        }
    }
}

/// The most that is quoted of a packet, in bytes: all headers that a receiver looks at. RFC 1812 asks for more where it
/// fits, and no receiver needs it.
pub const MAX_QUOTED: u32 = 128;

/// How much of a packet is quoted, in bytes from the IP header on: whole words.
#[inline(always)]
pub fn quoted_len(h: &Headers) -> u32 {
    let bytes = if h.bytes > MAX_QUOTED { MAX_QUOTED } else { h.bytes };
    bytes & !3
}

/// Whether the sender is to hear of it at all (RFC 1812 §4.3.2.7, RFC 4443 §2.4): never of an error, of the tail of a
/// datagram, nor where the source is no single machine.
#[inline(always)]
pub fn should_reply(h: &Headers) -> bool {
    let src = &h.key.tuple.src;
    !matches!(h.message, Message::IcmpError | Message::LaterFragment | Message::Router)
        && !is_multicast(src)
        && !is_loopback(src)
        && *src != Addr::ANY_V4
        && *src != Addr::ANY_V6
}

/// Where the transport checksum is, in bytes from the start of the packet, for those that a sender may have left to its
/// device.
#[inline(always)]
pub fn checksum_offset(h: &Headers) -> Option<usize> {
    match h.key.protocol {
        TCP => Some(h.l4() + 16),
        UDP => Some(h.l4() + 6),
        _ => None,
    }
}

/// Sum over the first `len` bytes from the IP header on, at most [`MAX_QUOTED`], whole words. `None` where they cannot be
/// read.
#[inline(always)]
pub fn sum_words<P: Packet>(p: &P, len: u32) -> Option<u32> {
    let mut total = 0;
    for i in 0..MAX_QUOTED as usize / 4 {
        if i as u32 * 4 >= len {
            break;
        }
        total += sum(&[p.window::<4>(ETH_LEN + i * 4)?.u32(0)]);
    }
    Some(total)
}

/// The IP and ICMP headers of an error, as they are to stand in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorHeaders(pub [u32; 12]);

/// Bytes of an [`ErrorHeaders`] that are used, by family.
#[inline(always)]
pub const fn error_headers_len(v4: bool) -> u32 {
    if v4 { 28 } else { 48 }
}

/// Two 16-bit numbers as one word of a packet.
#[inline(always)]
const fn pair(a: u16, b: u16) -> u32 {
    u32::from_ne_bytes([(a >> 8) as u8, a as u8, (b >> 8) as u8, b as u8])
}

/// A word whose last two bytes are a checksum as it stands in memory.
#[inline(always)]
const fn with_checksum(word: u32, checksum: u16) -> u32 {
    let (w, c) = (word.to_ne_bytes(), checksum.to_ne_bytes());
    u32::from_ne_bytes([w[0], w[1], c[0], c[1]])
}

impl ErrorHeaders {
    /// An error from `from` to the source of the packet `h`, of which `quoted` bytes with the sum `quoted_sum` follow.
    #[inline(always)]
    pub fn write(&mut self, h: &Headers, from: &Addr, error: IcmpError, quoted: u32, quoted_sum: u32) {
        let (src, dst) = (from.as_words(), h.key.tuple.src.as_words());
        let w = &mut self.0;
        let length = (8 + quoted) as u16;
        if h.v4 {
            // Destination unreachable, fragmentation needed (RFC 1191 §4); time exceeded in transit (RFC 792).
            let (kind, rest) = match error {
                IcmpError::TimeExceeded => (pair(0x0b00, 0), 0),
                IcmpError::TooBig(mtu) => (pair(0x0304, 0), pair(0, mtu)),
            };
            // Precedence "internetwork control" (RFC 1812 §4.3.2.5), never to be fragmented.
            w[0] = pair(0x45c0, 20 + length);
            w[1] = pair(0, 0x4000);
            w[2] = pair(64 << 8 | ICMP as u16, 0);
            w[3] = src[3];
            w[4] = dst[3];
            w[2] = with_checksum(w[2], finish(sum(&[w[0], w[1], w[2], w[3], w[4]])));
            w[5] = with_checksum(kind, finish(sum(&[kind, rest]) + quoted_sum));
            w[6] = rest;
        } else {
            // Packet too big, time exceeded in transit (RFC 4443 §3.2, §3.3).
            let (kind, rest) = match error {
                IcmpError::TimeExceeded => (pair(0x0300, 0), 0),
                IcmpError::TooBig(mtu) => (pair(0x0200, 0), pair(0, mtu)),
            };
            w[0] = pair(0x6000, 0);
            w[1] = pair(length, (ICMPV6 as u16) << 8 | 64);
            let mut i = 0;
            while i < 4 {
                w[2 + i] = src[i];
                w[6 + i] = dst[i];
                i += 1;
            }
            let pseudo = sum(src) + sum(dst) + sum(&[pair(0, length), pair(0, ICMPV6 as u16)]);
            w[10] = with_checksum(kind, finish(pseudo + sum(&[kind, rest]) + quoted_sum));
            w[11] = rest;
        }
    }
}
