//! Keys and values of the maps: what userspace writes and the kernel side reads, byte for byte.
//!
//! Ports are in network byte order and addresses in [`Addr`]'s form; everything else is in host byte order.

mod flow;
mod publication;

pub use flow::*;
pub use publication::*;

use crate::Addr;
use crate::protocol::{TCP, UDP};

/// Key of `LINKS`: one per open port of each link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkKey {
    /// The recipient's address.
    pub recipient: Addr,
    /// The source's address.
    pub source: Addr,
    /// The source's port (network byte order); 0 for echo requests and for [`ALL_PROTOCOLS`].
    pub port: u16,
    /// IP protocol number, or [`ALL_PROTOCOLS`].
    pub protocol: u8,
    /// Always zero.
    pub reserved: u8,
}

/// `LinkKey::protocol` of a link that opens every port.
pub const ALL_PROTOCOLS: u8 = 0;

/// Value of `LINKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its generation, also found in `RULES[rule]`.
    pub generation: u64,
    /// Slot in `RULES`.
    pub rule: u32,
    /// Always zero.
    pub reserved: u32,
}

/// The network is isolated: only links and publications let anything into its containers.
pub const ENDPOINT_ISOLATED: u16 = 1;
/// What the container begins with the outside goes out under an IPv4 address of the host's.
pub const ENDPOINT_MASQUERADE_V4: u16 = 2;
/// The same for IPv6.
pub const ENDPOINT_MASQUERADE_V6: u16 = 4;

/// Value of `ENDPOINTS`, by host-side interface index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its generation, also found in `RULES[rule]`.
    pub generation: u64,
    /// A number that stands for the container: its endpoints on all networks have the same one, and nobody else's. Never 0.
    pub container: u64,
    /// IPv4 address; all zero where it has none.
    pub ipv4: Addr,
    /// IPv6 address; all zero where it has none.
    pub ipv6: Addr,
    /// The host's IPv4 address on its network; all zero where it has none.
    pub gateway4: Addr,
    /// The host's IPv6 address on its network; all zero where it has none.
    pub gateway6: Addr,
    /// Slot in `RULES`.
    pub rule: u32,
    /// Its network's bridge.
    pub bridge: u32,
    /// The container's MAC address.
    pub mac: [u8; 6],
    /// Bits `ENDPOINT_*`.
    pub flags: u16,
}

impl Endpoint {
    /// Its address of a family; all zero where it has none.
    #[inline(always)]
    pub const fn own(&self, v4: bool) -> &Addr {
        if v4 { &self.ipv4 } else { &self.ipv6 }
    }

    /// Whether its network is isolated.
    #[inline(always)]
    pub const fn is_isolated(&self) -> bool {
        self.flags & ENDPOINT_ISOLATED != 0
    }
}

/// Key of `FRAGMENTS`: what all fragments of one datagram share (RFC 791, RFC 8200 §4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification, as in the packet.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`Zone`].
    pub zone: u8,
    /// Always zero.
    pub reserved: u16,
}

/// Value of `FRAGMENTS`: the ports, which only the first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port (network byte order).
    pub sport: u16,
    /// Destination port (network byte order).
    pub dport: u16,
}

/// An address of this host.
pub const ADDRESS_HOST: u8 = 1;
/// An address of a container.
pub const ADDRESS_ENDPOINT: u8 = 2;

/// Value of `PREFIXES`: the host's routes say that these addresses are its own (`ip route add local`).
pub const PREFIX_HOST: u32 = 1;
/// Value of `PREFIXES`: of an isolated network. Whose address is no entry of `ADDRESSES` is no container that is known.
pub const PREFIX_ISOLATED: u32 = 2;
/// Value of `PREFIXES`: of a network of containers that is not isolated. Nobody outside has such an address.
pub const PREFIX_NETWORK: u32 = 3;
/// Value of `PREFIXES`: a broadcast address of one of the host's networks. Nobody has it.
pub const PREFIX_BROADCAST: u32 = 4;

/// Value of `ADDRESSES`: what an address on this machine belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The container's host-side interface; 0 for the host's own.
    pub ifindex: u32,
    /// The container's network's bridge; 0 for the host's own.
    pub bridge: u32,
    /// The container's MAC address.
    pub mac: [u8; 6],
    /// `ADDRESS_*`.
    pub kind: u8,
    /// Bits `ENDPOINT_*` of the container.
    pub flags: u8,
}

impl Address {
    /// Whether it is a container's on an isolated network.
    #[inline(always)]
    pub const fn is_isolated(&self) -> bool {
        self.flags as u16 & ENDPOINT_ISOLATED != 0
    }
}

/// Value of `UPLINKS`, by interface index: addresses that masqueraded conversations have where the kernel does not say
/// which one its route would choose (before Linux 6.7), and of which bridge it is a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// IPv4 address; all zero where it has none.
    pub ipv4: Addr,
    /// IPv6 address; all zero where it has none.
    pub ipv6: Addr,
    /// The MAC address of the bridge that it is a port of, where what is for the bridge is to be seen before the bridge's own
    /// netfilter (`br_netfilter`) sees it.
    pub bridge_mac: [u8; 6],
    /// 1 where `bridge_mac` is one, else 0.
    pub is_port: u16,
}

/// Key of `HOST_PEERS`: a socket of the host and where its packets really go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostPeerKey {
    /// The kernel's cookie of the socket: never given out twice.
    pub cookie: u64,
    /// The container's address.
    pub addr: Addr,
    /// The container's port (network byte order).
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub reserved: [u8; 5],
}

impl HostPeerKey {
    /// A key; `port` in network byte order.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Addr, port: u16, protocol: u8) -> Self {
        HostPeerKey { cookie, addr, port, protocol, reserved: [0; 5] }
    }
}

/// What a socket of the host keeps in `HOST_SOCKETS`, and value of `HOST_PEERS`: the original destination, to be shown to it again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSocket {
    /// Generation of the publication; 0 where the socket has connected to the container itself since.
    pub generation: u64,
    /// The original destination address.
    pub original: Addr,
    /// The container's address.
    pub addr: Addr,
    /// Slot in `RULES` of the publication.
    pub rule: u32,
    /// The original destination port (network byte order).
    pub port: u16,
    /// The container's port (network byte order).
    pub peer_port: u16,
}

impl HostSocket {
    /// As the kernel shows it to userspace; `None` where it is not as long as that.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let (generation, rest) = bytes.split_first_chunk()?;
        let (original, rest) = rest.split_first_chunk()?;
        let (addr, rest) = rest.split_first_chunk()?;
        let (rule, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        Some(HostSocket {
            generation: u64::from_ne_bytes(*generation),
            original: Addr(*original),
            addr: Addr(*addr),
            rule: u32::from_ne_bytes(*rule),
            port: u16::from_ne_bytes(*port),
            peer_port: u16::from_ne_bytes(*rest.first_chunk()?),
        })
    }

    /// Whether it says anything.
    #[inline(always)]
    pub const fn is_used(&self) -> bool {
        self.generation != 0
    }

    /// Whether it is of what goes there; `port` in network byte order.
    #[inline(always)]
    pub fn is_of(&self, addr: &Addr, port: u16) -> bool {
        self.is_used() && self.peer_port == port && self.addr == *addr
    }
}

/// Where a port (host byte order) of a protocol has its bit in `PORTS`: the element, and the bit alone.
#[inline(always)]
pub const fn port_bit(port: u16, protocol: u8) -> (u32, u64) {
    let first = match protocol {
        TCP => 0,
        UDP => 1,
        _ => 2,
    } * (1 << 10);
    (first + port as u32 / 64, 1 << (port % 64))
}

/// Words of `ADDRESS_BITS`: as many for all addresses of this machine as for those of its containers.
pub const ADDRESS_WORDS: usize = 2 << 10;

/// Where an address has its bit in `ADDRESS_BITS`, one of containers among those of containers alone: the element, and the
/// bit alone. Others share it: a bit that is set says "perhaps".
#[inline(always)]
pub const fn address_bit(addr: &Addr, of_containers: bool) -> (u32, u64) {
    let w = addr.as_words();
    // Most addresses differ in the last word alone, by little.
    let mixed = (w[0] ^ w[1].rotate_left(7) ^ w[2].rotate_left(13) ^ w[3]).wrapping_mul(0x9e37_79b1) >> 16;
    let first = if of_containers { ADDRESS_WORDS as u32 / 2 } else { 0 };
    (first + mixed / 64, 1 << (mixed % 64))
}

/// Value of `NEXT_HOPS`: what the host's FIB and neighbour tables said not long ago of packets between two addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Source address: the host's.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// The bridge that the packets come by.
    pub bridge: u32,
    /// When it was asked for: [`Flow::tick`] of that time; 0 for never.
    pub tick: u32,
    /// Interface that leads there.
    pub ifindex: u32,
    /// The MAC address of the next hop.
    pub mac: [u8; 6],
    /// The interface's own.
    pub own_mac: [u8; 6],
    /// The MTU, in bytes from the IP header on.
    pub mtu: u16,
    /// IP protocol number, which routes may ask for as well.
    pub protocol: u8,
    /// Always zero.
    pub reserved: [u8; 5],
}

impl NextHop {
    /// The element of `NEXT_HOPS` that a translated tuple has.
    #[inline(always)]
    pub const fn slot(to: &Tuple) -> u32 {
        let (src, dst) = (to.src.as_words(), to.dst.as_words());
        let mixed = dst[0] ^ dst[1] ^ dst[2] ^ dst[3] ^ src[3];
        mixed.wrapping_mul(0x9e37_79b1) >> 24
    }

    /// Whether it still stands for packets of that tuple.
    #[inline(always)]
    pub fn is_of(&self, to: &Tuple, bridge: u32, protocol: u8, tick: u32) -> bool {
        self.tick == tick
            && self.bridge == bridge
            && self.protocol == protocol
            && self.src == to.src
            && self.dst == to.dst
    }
}

/// Value of `CONFIG[0]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Layout of every map: a loader of another layout does not adopt them.
    pub layout: u32,
    /// 0 while the loader learns the conversations that it finds: decisions are made, but nothing is dropped.
    pub enforce: u32,
}

/// The layout that this crate describes.
pub const LAYOUT: u32 = 11;

/// A drop, as the ring buffer `EVENTS` carries it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of the kernel's coarse monotonic clock.
    pub time: u64,
    /// The packet's tuple, as far as it could be read.
    pub tuple: Tuple,
    /// The interface that it was seen on.
    pub ifindex: u32,
    /// Number of the [`crate::Verdict`].
    pub verdict: u32,
    /// IP protocol number, or 0.
    pub protocol: u8,
    /// A [`Zone`].
    pub zone: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

/// Slots in `RULES`: room for all publications, links and endpoints together.
pub const MAX_RULES: usize = 532_480;
const _: () = assert!(MAX_RULES == MAX_PUBLICATIONS + MAX_LINKS + MAX_ENDPOINTS);
/// Entries of `PUBLICATIONS`.
pub const MAX_PUBLICATIONS: usize = 262_144;
/// Elements of `PORTS`: a bit for each port of TCP, of UDP, and of SCTP.
pub const PORT_WORDS: usize = 3 * 65_536 / 64;
/// Elements of `NEXT_HOPS`: 8 bits of a hash.
pub const MAX_NEXT_HOPS: usize = 256;
/// Entries of `FILTERS`: those of before and those of after a change, which are there together for a moment.
pub const MAX_FILTERS: usize = 131_072;
/// Entries of `LIMITS`: as of `FILTERS`.
pub const MAX_LIMITS: usize = 131_072;
/// Entries of `LINKS`.
pub const MAX_LINKS: usize = 262_144;
/// Entries of `ENDPOINTS`.
pub const MAX_ENDPOINTS: usize = 8_192;
/// Entries of `ADDRESSES`: two of each container's interface, and as many of the host's.
pub const MAX_ADDRESSES: usize = 32_768;
/// Entries of `PREFIXES`.
pub const MAX_PREFIXES: usize = 4_096;
/// Entries of `UPLINKS`.
pub const MAX_UPLINKS: usize = 1_024;
/// Entries of `UNSERVED`.
pub const MAX_UNSERVED: usize = 1_024;
/// Entries of `FLOWS`: two a conversation.
pub const MAX_FLOWS: usize = 262_144;
/// Entries of `PENDING`: two a conversation.
pub const MAX_PENDING: usize = 65_536;
/// Entries of `HELD_BY`: containers and sources whose conversations are counted.
pub const MAX_HOLDERS: usize = 65_536;
/// Elements of `CLOSED`: a power of two.
pub const MAX_CLOSED: usize = 32_768;
/// Entries of `FRAGMENTS`: datagrams of which further fragments may come.
pub const MAX_FRAGMENTS: usize = 8_192;
/// Entries of `HOST_PEERS`: peers of UDP sockets of the host that are connected, or send to several published ports.
pub const MAX_HOST_PEERS: usize = 65_536;

macro_rules! plain_data {
    ($($t:ty = $size:literal: $($field:ty),+;)+) => {
        $(
            // The sum of the fields is the size: no padding, so that hashing sees no garbage and nothing leaks.
            const _: () = assert!(size_of::<$t>() == $size && 0 $(+ size_of::<$field>())+ == $size);
            // SAFETY: `repr(C)`, `Copy`, made of integers only, without padding as asserted above.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $t {}
        )+
    };
}

plain_data! {
    Addr = 16: [u8; 16];
    Tuple = 36: Addr, Addr, u16, u16;
    FlowKey = 40: Tuple, u8, u8, u16;
    Holder = 20: Addr, u32;
    ChecksumDeltas = 8: u32, u32;
    Flow = 144: u64, u64, u64, u64, u64, u32, u32, u32, Tuple, u32, u32, ChecksumDeltas, u32, u32, [u8; 6], u16, [u8; 6], u8, u8, u8, u8, [u8; 6], u32, u32;
    PublicationKey = 20: Addr, u16, u8, u8;
    Publication = 56: u64, u64, Addr, u32, u32, u32, u16, u16, [u8; 6], u16;
    FilterKey = 24: u64, Addr;
    Limit = 24: u64, u64, u32, u32;
    LinkKey = 36: Addr, Addr, u16, u8, u8;
    Link = 16: u64, u32, u32;
    Endpoint = 96: u64, u64, Addr, Addr, Addr, Addr, u32, u32, [u8; 6], u16;
    FragmentKey = 40: Addr, Addr, u32, u8, u8, u16;
    FragmentPorts = 4: u16, u16;
    Address = 16: u32, u32, [u8; 6], u8, u8;
    HostPeerKey = 32: u64, Addr, u16, u8, [u8; 5];
    HostSocket = 48: u64, Addr, Addr, u32, u16, u16;
    Uplink = 40: Addr, Addr, [u8; 6], u16;
    NextHop = 64: Addr, Addr, u32, u32, u32, [u8; 6], [u8; 6], u16, u8, [u8; 5];
    Config = 8: u32, u32;
    Event = 56: u64, Tuple, u32, u32, u8, u8, [u8; 2];
}
