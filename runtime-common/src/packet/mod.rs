//! Reading packets: Ethernet, IPv4, IPv6 and what of the transport headers a decision needs.

mod icmp;
mod tcp;
mod window;

pub use icmp::{ICMP_LEN, Quote, check_neighbour_options, neighbour_target, quoted, quoted_ipv6, quoted_mtu};
pub use tcp::NO_WINDOW_SCALE;
pub use window::{Mac, Packet, Window};

use icmp::icmp;
use tcp::tcp_options;

use crate::maps::{FlowKey, Zone};
use crate::{Addr, Verdict};

/// EtherType of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETH_IPV6: u16 = 0x86dd;
/// EtherType of frames with a tag (IEEE 802.1Q).
pub const ETH_VLAN: u16 = 0x8100;
/// EtherType of frames with a provider's tag (IEEE 802.1ad).
pub const ETH_SERVICE_VLAN: u16 = 0x88a8;
/// EtherType of ARP.
pub const ETH_ARP: u16 = 0x0806;
/// Length of the Ethernet header in bytes: where the IP header starts.
pub const ETH_LEN: usize = 14;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of IGMP.
pub const IGMP: u8 = 2;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IP protocol number of PIM, which multicast routers speak.
pub const PIM: u8 = 103;
/// IP protocol number of SCTP.
pub const SCTP: u8 = 132;

/// IPv6 extension headers by number (RFC 8200 §4, RFC 4302, RFC 6275).
const HOP_BY_HOP: u8 = 0;
const ROUTING_HEADER: u8 = 43;
const FRAGMENT_HEADER: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// The most extension headers that are looked through, and the offset of what may follow them, in bytes.
const MAX_EXTENSIONS: usize = 4;
const MAX_L4: usize = 0xff;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// The Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination MAC address.
    pub dst: Mac,
    /// Source MAC address.
    pub src: Mac,
    /// EtherType in host byte order.
    pub ethertype: u16,
}

/// What kind of message a packet is, as far as policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Message {
    /// A TCP segment with SYN and without ACK.
    TcpOpen,
    /// Any other TCP segment.
    TcpSegment,
    /// UDP or SCTP.
    Datagram,
    /// An ICMP or ICMPv6 echo request.
    EchoRequest,
    /// An ICMP or ICMPv6 echo reply.
    EchoReply,
    /// An ICMP or ICMPv6 error.
    IcmpError,
    /// IPv6 neighbour solicitation or advertisement (RFC 4861).
    Neighbour,
    /// What routers alone have to say: router advertisements and redirects (RFC 4861, RFC 1256, RFC 792), queries for listeners to
    /// multicast groups (RFC 2710, RFC 3376), advertisements of multicast routers (RFC 4286), PIM.
    Router,
    /// A fragment other than the first: it has no transport header.
    LaterFragment,
    /// IPv6 with extension headers that cannot be looked through: anything may be behind them.
    Extended,
    /// Anything else.
    Other,
}

impl Message {
    /// Whether it may begin a conversation.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        matches!(self, Message::TcpOpen | Message::Datagram | Message::EchoRequest)
    }
}

/// What was read of the IP and transport headers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Addresses, ports, protocol and zone: the key of the packet's flow. For echo requests the source port, for echo
    /// replies the destination port is the identifier, and the other is zero.
    pub key: FlowKey,
    /// Identification of the datagram, for fragments.
    pub id: u32,
    /// Length from the IP header on, in bytes, without the padding of a short frame.
    pub bytes: u32,
    /// Offset of the transport header from the start of the packet, in bytes.
    pub l4: u32,
    /// TCP: sequence number (host byte order).
    pub seq: u32,
    /// TCP: the sequence number behind the segment's data (host byte order). SYN and FIN are not counted.
    pub end: u32,
    /// TCP: acknowledgement number (host byte order).
    pub ack: u32,
    /// TCP, while options are read: offset of the next one from the start of the packet, in bytes.
    pub option: u32,
    /// TCP: the window as it stands in the header (host byte order).
    pub window: u16,
    /// TCP, of a SYN: the factor of the sender's windows as a power of two, or [`NO_WINDOW_SCALE`].
    pub window_scale: u8,
    /// TCP: the flags SYN, FIN and RST as they stand in the header; otherwise 0.
    pub flags: u8,
    /// Kind of message.
    pub message: Message,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Whether it is IPv4.
    pub v4: bool,
    /// Whether it is the first of several fragments.
    pub first_fragment: bool,
    /// Whether it belonged to a flow of which the publication, link or container is gone.
    pub ended: bool,
}

impl Headers {
    /// [`Headers::l4`], bounded as the kernel's verifier wants to see it.
    #[inline(always)]
    pub const fn l4(&self) -> usize {
        self.l4 as usize & MAX_L4
    }

    /// Whether it is a TCP segment with SYN.
    #[inline(always)]
    pub const fn syn(&self) -> bool {
        self.flags & TCP_SYN != 0
    }

    /// Whether it is a TCP segment with FIN.
    #[inline(always)]
    pub const fn fin(&self) -> bool {
        self.flags & TCP_FIN != 0
    }

    /// Whether it is a TCP segment with RST.
    #[inline(always)]
    pub const fn rst(&self) -> bool {
        self.flags & TCP_RST != 0
    }

    /// Whether the IP header's length has room for a transport header of `len` bytes.
    #[inline(always)]
    const fn has(&self, len: u32) -> bool {
        self.l4 + len <= ETH_LEN as u32 + self.bytes
    }
}

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
