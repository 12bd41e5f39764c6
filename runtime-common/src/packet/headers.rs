//! What is read of a packet's headers, and the numbers that stand in them.

use super::window::Mac;
use crate::maps::FlowKey;

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

/// IPv6 extension headers by number (RFC 8200 §4, RFC 4302, RFC 6275).
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING_HEADER: u8 = 43;
pub(super) const FRAGMENT_HEADER: u8 = 44;
pub(super) const AUTHENTICATION: u8 = 51;
pub(super) const DESTINATION_OPTIONS: u8 = 60;
pub(super) const MOBILITY: u8 = 135;
/// The most extension headers that are looked through, and the offset of what may follow them, in bytes.
pub(super) const MAX_EXTENSIONS: usize = 4;
pub(super) const MAX_L4: usize = 0xff;

/// The SYN has no window scale option (RFC 7323 §2.2): windows are what the headers say.
pub const NO_WINDOW_SCALE: u8 = 0xff;

pub(super) const TCP_FIN: u8 = 0x01;
pub(super) const TCP_SYN: u8 = 0x02;
pub(super) const TCP_RST: u8 = 0x04;
pub(super) const TCP_ACK: u8 = 0x10;

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
    pub(super) const fn has(&self, len: u32) -> bool {
        self.l4 + len <= ETH_LEN as u32 + self.bytes
    }
}
