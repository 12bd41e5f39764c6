//! Writing a flow's translation into a packet.

use crate::Addr;
use crate::Verdict;
use crate::checksum;
use crate::maps::{ChecksumDeltas, Tuple};
use crate::packet::{
    ETH_LEN, Headers, ICMP, ICMP_LEN, ICMPV6, Mac, Message, Packet, SCTP, TCP, UDP, Window, quoted_ipv6,
};

/// A packet that can be changed.
pub trait PacketMut: Packet {
    /// Where the `len` bytes from `offset` are, if they can be written directly.
    fn at_mut(&mut self, offset: usize, len: usize) -> Option<*mut u8>;

    /// The `N` bytes from `offset`, if they can be written directly.
    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<WindowMut<N>> {
        self.at_mut(offset, N).map(WindowMut)
    }

    /// Tells of a change to an IPv6 header, which has no checksum of its own that makes up for it: what a device summed
    /// up over the packet no longer fits. The default is for packets that carry no such sum.
    #[inline(always)]
    fn update_hardware_checksum(&mut self, _difference: u32) {}

    /// Corrects the transport checksum at `offset` after addresses of the pseudo-header, and ports or an identifier, changed.
    ///
    /// The default is for packets whose checksum is complete in the packet itself.
    #[inline(always)]
    fn update_checksum(&mut self, offset: usize, sums: ChecksumDeltas, udp: bool) -> Option<()> {
        patch(self, offset, sums.addresses + sums.ports, udp)
    }
}

/// `N` bytes of a packet, checked once and then written by words.
#[derive(Clone, Copy)]
pub struct WindowMut<const N: usize>(*mut u8);

impl<const N: usize> WindowMut<N> {
    /// Writes the byte at `i`.
    #[inline(always)]
    pub fn set_u8(self, i: usize, v: u8) {
        debug_assert!(i < N);
        // SAFETY: `PacketMut::at_mut` vouches for N bytes.
        unsafe { *self.0.add(i) = v }
    }

    /// Writes two bytes at `i`, as they are to stand there.
    #[inline(always)]
    pub fn set_u16(self, i: usize, v: u16) {
        debug_assert!(i + 2 <= N);
        // SAFETY: as above; misaligned words as in `Window::u16`.
        unsafe {
            let p = self.0.add(i).cast::<u16>();
            if cfg!(target_arch = "bpf") { *p = v } else { p.write_unaligned(v) }
        }
    }

    /// Writes four bytes at `i`, as they are to stand there.
    #[inline(always)]
    pub fn set_u32(self, i: usize, v: u32) {
        debug_assert!(i + 4 <= N);
        // SAFETY: as for `set_u16`.
        unsafe {
            let p = self.0.add(i).cast::<u32>();
            if cfg!(target_arch = "bpf") { *p = v } else { p.write_unaligned(v) }
        }
    }

    #[inline(always)]
    fn addr(self, i: usize) -> Addr {
        Window::<N>::new(self.0.cast_const()).addr(i)
    }

    #[inline(always)]
    fn set_addr(self, i: usize, a: &Addr) {
        let w = a.as_words();
        self.set_u32(i, w[0]);
        self.set_u32(i + 4, w[1]);
        self.set_u32(i + 8, w[2]);
        self.set_u32(i + 12, w[3]);
    }
}

/// Writes both MAC addresses. `None` where the packet has none.
#[inline(always)]
pub fn set_macs<P: PacketMut>(p: &mut P, dst: Mac, src: Mac) -> Option<()> {
    let w = p.window_mut::<12>(0)?;
    w.set_u32(0, dst.parts().0);
    w.set_u16(4, dst.parts().1);
    w.set_u32(6, src.parts().0);
    w.set_u16(10, src.parts().1);
    Some(())
}

/// Corrects the checksum at `offset`, complete in the packet itself.
#[inline(always)]
pub fn patch<P: PacketMut + ?Sized>(p: &mut P, offset: usize, difference: u32, udp: bool) -> Option<()> {
    let at = p.at_mut(offset, 2)?;
    let w = WindowMut::<2>(at);
    // SAFETY: two bytes are there.
    let old = unsafe { at.cast::<u16>().read_unaligned() };
    // UDP over IPv4 without a checksum stays without one (RFC 768).
    if udp && old == 0 {
        return Some(());
    }
    let mut new = checksum::update(old, difference);
    if udp && new == 0 {
        new = 0xffff;
    }
    w.set_u16(0, new);
    Some(())
}

/// Gives a packet the addresses and ports of `to`, and one hop less to live; all checksums follow, by `sums` between the
/// packet's tuple and that.
///
/// An ICMP error goes the way of `to`, and quotes what comes the other way.
///
/// # Errors
/// [`Verdict::RewriteFailed`] where the packet cannot be written; the packet is to be dropped then.
#[inline(always)]
pub fn translate<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple, sums: ChecksumDeltas) -> Result<(), Verdict> {
    translate_any(p, h, to, sums).ok_or(Verdict::RewriteFailed)
}

/// [`translate`] for TCP segments, datagrams and their later fragments: what established flows consist of.
///
/// # Errors
/// [`Verdict::RewriteFailed`], as there.
#[inline(always)]
pub fn translate_segment<P: PacketMut>(
    p: &mut P,
    h: &Headers,
    to: &Tuple,
    sums: ChecksumDeltas,
) -> Result<(), Verdict> {
    segment(p, h, to, sums).ok_or(Verdict::RewriteFailed)
}

#[inline(always)]
fn translate_any<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple, sums: ChecksumDeltas) -> Option<()> {
    match h.message {
        Message::IcmpError => error(p, h, to),
        Message::EchoRequest | Message::EchoReply => {
            ip_header(p, h, to, sums)?;
            echo(p, h, to, sums.addresses)
        }
        _ => segment(p, h, to, sums),
    }
}

#[inline(always)]
fn ip_header<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple, sums: ChecksumDeltas) -> Option<()> {
    if h.v4 {
        ipv4_header(p, h, &to.src, &to.dst, sums.addresses)
    } else {
        ipv6_header(p, h, &to.src, &to.dst, sums.addresses)
    }
}

#[inline(always)]
fn segment<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple, sums: ChecksumDeltas) -> Option<()> {
    ip_header(p, h, to, sums)?;
    if matches!(h.message, Message::LaterFragment) {
        return Some(());
    }
    let l4 = h.l4();
    let w = p.window_mut::<4>(l4)?;
    w.set_u16(0, to.sport);
    w.set_u16(2, to.dport);
    let (offset, udp) = match h.key.protocol {
        TCP => (l4 + 16, false),
        UDP => (l4 + 6, true),
        // SCTP's checksum covers no address, and its publications keep the port.
        SCTP => return Some(()),
        _ => return None,
    };
    p.update_checksum(offset, sums, udp)
}

/// The identifier of an echo request or reply. Of its two ports one is always zero.
// Rare: with a stack frame of its own.
#[inline(never)]
fn echo<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple, addresses: u32) -> Option<()> {
    let (from, l4) = (&h.key.tuple, h.l4());
    let (old, new) = (from.sport | from.dport, to.sport | to.dport);
    p.window_mut::<2>(l4 + 4)?.set_u16(0, new);
    // ICMP's checksum covers no addresses, that of ICMPv6 does (RFC 4443 §2.3).
    let addresses = if h.v4 { 0 } else { addresses };
    let ports = if old == new { 0 } else { checksum::difference(&[u32::from(old)], &[u32::from(new)]) };
    p.update_checksum(l4 + 2, ChecksumDeltas { addresses, ports }, false)
}

/// Addresses and hop limit.
// With a stack frame of its own: four addresses are more than the registers hold.
#[inline(never)]
fn ipv6_header<P: PacketMut>(p: &mut P, h: &Headers, src: &Addr, dst: &Addr, addresses: u32) -> Option<()> {
    let ttl = h.ttl.wrapping_sub(1);
    let w = p.window_mut::<40>(ETH_LEN)?;
    w.set_u8(7, ttl);
    w.set_addr(8, src);
    w.set_addr(24, dst);
    // The next header, the other half of the hop limit's word, stays: it cancels out.
    let hop = checksum::difference(&[u32::from_ne_bytes([0, h.ttl, 0, 0])], &[u32::from_ne_bytes([0, ttl, 0, 0])]);
    p.update_hardware_checksum(hop + addresses);
    Some(())
}

/// Addresses, time to live and header checksum at one stroke.
#[inline(always)]
fn ipv4_header<P: PacketMut>(p: &mut P, h: &Headers, src: &Addr, dst: &Addr, addresses: u32) -> Option<()> {
    let old = p.window::<12>(ETH_LEN + 8)?.u16(2);
    let ttl = h.ttl.wrapping_sub(1);
    // The protocol, the other half of the TTL's word, stays: it cancels out.
    let difference = addresses
        + checksum::difference(&[u32::from_ne_bytes([h.ttl, 0, 0, 0])], &[u32::from_ne_bytes([ttl, 0, 0, 0])]);
    let w = p.window_mut::<12>(ETH_LEN + 8)?;
    w.set_u8(0, ttl);
    w.set_u16(2, checksum::update(old, difference));
    w.set_u32(4, src.v4_as_word());
    w.set_u32(8, dst.v4_as_word());
    Some(())
}

/// An ICMP error about a translated flow. The transport checksum in what it quotes is left alone: more often than not
/// it is cut off, and no receiver looks at it.
// Rare: with a stack frame of its own.
#[inline(never)]
fn error<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple) -> Option<()> {
    let quote = if h.v4 { quote_v4(p, h, to) } else { quote_v6(p, h, to) };
    if quote & QUOTE_DONE == 0 {
        return None;
    }
    // A router on the way keeps its address; the flow's own end has the address that the other one knows.
    let from = &h.key.tuple;
    let src = if quote & QUOTE_FROM_END != 0 { &to.src } else { &from.src };
    let addresses = checksum::difference(from.src.as_words(), src.as_words())
        + checksum::difference(from.dst.as_words(), to.dst.as_words());
    let mut difference = quote as u32;
    if h.v4 {
        ipv4_header(p, h, src, &to.dst, addresses)?;
    } else {
        ipv6_header(p, h, src, &to.dst, addresses)?;
        difference += addresses;
        // The checksum below makes up for the addresses, of which the whole header was told: the same, negated.
        p.update_hardware_checksum(u32::from(!checksum::fold(addresses)));
    }
    patch(p, h.l4() + 2, difference, false)
}

/// What came of translating what an error quotes, in one register: these bits, and below them what it does to the checksum of
/// the error.
const QUOTE_DONE: u64 = 1 << 63;
/// The error comes from the end that the quoted packet was for, not from a router on its way.
const QUOTE_FROM_END: u64 = 1 << 62;

#[inline(always)]
fn quote_v4<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple) -> u64 {
    let inner = h.l4() + ICMP_LEN;
    // No window outlives the next one: the kernel may have to move the packet to make one.
    let Some(w) = p.window::<20>(inner) else {
        return 0;
    };
    let (src, dst) = (w.u32(12), w.u32(16));
    let new = [to.dst.v4_as_word(), to.src.v4_as_word()];
    let (l4, sum, is_echo) = (inner + ((w.u8(0) & 0xf) as usize) * 4, w.u16(10), w.u8(9) == ICMP);
    let Some(w) = p.window_mut::<20>(inner) else {
        return 0;
    };
    // The quoted header's own checksum makes up for its addresses.
    w.set_u16(10, checksum::update(sum, checksum::difference(&[src, dst], &new)));
    w.set_u32(12, new[0]);
    w.set_u32(16, new[1]);
    let from_end = if h.key.tuple.src == Addr::v4_word(dst) { QUOTE_FROM_END } else { 0 };
    quoted_ports(p, l4, is_echo, to).map_or(0, |ports| QUOTE_DONE | from_end | u64::from(ports))
}

#[inline(always)]
fn quote_v6<P: PacketMut>(p: &mut P, h: &Headers, to: &Tuple) -> u64 {
    let inner = h.l4() + ICMP_LEN;
    let Some(w) = p.window::<40>(inner) else {
        return 0;
    };
    let (next, from_end) = (w.u8(6), w.is_addr(24, &h.key.tuple.src));
    let Some((l4, protocol)) = quoted_ipv6(p, inner, next) else {
        return 0;
    };
    let src = replace_addr(p, inner + 8, &to.dst);
    let dst = replace_addr(p, inner + 24, &to.src);
    match quoted_ports(p, l4, protocol == ICMPV6, to) {
        Some(ports) if src & dst & QUOTE_DONE != 0 => {
            let end = if from_end { QUOTE_FROM_END } else { 0 };
            QUOTE_DONE | end | u64::from(src as u32 + dst as u32 + ports)
        }
        _ => 0,
    }
}

/// Replaces an address in a packet: `QUOTE_DONE`, and what that does to a checksum.
// Rare: with a stack frame of its own.
#[inline(never)]
fn replace_addr<P: PacketMut>(p: &mut P, offset: usize, new: &Addr) -> u64 {
    let offset = offset & MAX_OFFSET;
    // It has been read before: no look at whether it can be.
    let Some(w) = p.window_mut::<16>(offset) else {
        return 0;
    };
    let old = w.addr(0);
    w.set_addr(0, new);
    QUOTE_DONE | u64::from(checksum::difference(old.as_words(), new.as_words()))
}

/// The farthest that an error's quote is looked into, in bytes: a bound for the kernel's verifier.
const MAX_OFFSET: usize = 0x1ff;

/// The quoted ports; or an identifier in place of them, of which one is always zero. What that does to the checksum of the error.
#[inline(always)]
fn quoted_ports<P: PacketMut>(p: &mut P, l4: usize, is_echo: bool, to: &Tuple) -> Option<u32> {
    if is_echo {
        let old = p.window::<2>(l4 + 4)?.u16(0);
        let new = to.sport | to.dport;
        p.window_mut::<2>(l4 + 4)?.set_u16(0, new);
        return Some(checksum::difference(&[u32::from(old)], &[u32::from(new)]));
    }
    let w = p.window::<4>(l4)?;
    let ports = [u32::from(w.u16(0)), u32::from(w.u16(2))];
    let w = p.window_mut::<4>(l4)?;
    w.set_u16(0, to.dport);
    w.set_u16(2, to.sport);
    Some(checksum::difference(&ports, &[u32::from(to.dport), u32::from(to.sport)]))
}
