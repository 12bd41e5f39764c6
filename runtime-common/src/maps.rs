//! Keys and values of the maps: what userspace writes and the kernel side reads, byte for byte.
//!
//! Ports are in network byte order and addresses in [`Addr`]'s form; everything else is in host byte order.

use crate::Addr;
use crate::checksum::difference;

/// Where a packet was when a flow's key was made: the same tuple means different things in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Zone {
    /// Came from outside, through an uplink.
    Uplink = 0,
    /// Came from a container.
    Endpoint = 1,
    /// About to enter a container from the host's stack.
    Gate = 2,
}

/// A conversation as seen from one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port (network byte order); the identifier of an echo request.
    pub sport: u16,
    /// Destination port (network byte order); the identifier of an echo reply.
    pub dport: u16,
}

impl Tuple {
    /// The same conversation, seen from the other side.
    #[inline(always)]
    pub const fn reversed(&self) -> Tuple {
        Tuple { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

/// Key of `FLOWS` and `PENDING`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The tuple as the packet carries it.
    pub tuple: Tuple,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`Zone`].
    pub zone: u8,
    /// Always zero.
    pub reserved: u16,
}

impl FlowKey {
    /// A key.
    #[inline(always)]
    pub const fn new(tuple: Tuple, protocol: u8, zone: Zone) -> Self {
        FlowKey { tuple, protocol, zone: zone as u8, reserved: 0 }
    }
}

/// What is done with a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowAction {
    /// Rewrite the destination, then to the container behind `ifindex`.
    Publish = 1,
    /// Rewrite the source, then to the outside by the host's routes.
    ReplyOut = 2,
    /// Rewrite the source, then to the container behind `ifindex` (a sibling that used the host's address).
    ReplyLocal = 3,
    /// Recipient to source, to the container behind `ifindex`; unchanged, but perhaps for the source port.
    Link = 4,
    /// Source to recipient, to the container behind `ifindex`; the same, back.
    LinkReply = 5,
    /// Unchanged, to the host's stack: a container's own conversation, or one that older rules carry.
    Stack = 6,
    /// Rewrite the source, then on into the container: the host's own, from a socket that is bound to a loopback address.
    FromLoopback = 7,
    /// Rewrite the destination, then to that socket.
    ToLoopback = 8,
    /// Rewrite the source to an address of the host's, then to the outside by the host's routes.
    Masquerade = 9,
    /// Rewrite the destination, then to the container behind `ifindex`, which began the conversation.
    MasqueradeReply = 10,
    /// Rewrite the destination, then to the host's stack: its firewall has not let the conversation through yet. What has
    /// come through reaches the gate, where this becomes `Publish`.
    Ask = 11,
    /// Unchanged, to the host's stack, whose own rules rewrite the destination; otherwise as `Ask`.
    AskUnchanged = 12,
}

/// The other side has answered.
pub const FLOW_ANSWERED: u8 = 1;
/// This side has sent its FIN.
pub const FLOW_FIN: u8 = 2;
/// This side has reset the connection.
pub const FLOW_RST: u8 = 4;
/// This is the direction of the answers.
pub const FLOW_REPLY: u8 = 8;

/// TCP: the answer to the SYN was seen, which says nothing about who has sent that.
pub const FLOW_SYN: u8 = 16;

/// Value of `FLOWS` (answered conversations) and `PENDING` (unanswered ones): one entry a direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Generation of `rule` when the flow was made; another one there now means that the flow has ended.
    pub generation: u64,
    /// Time of the last packet: nanoseconds of the kernel's coarse monotonic clock.
    pub last_seen: u64,
    /// Packets in this direction.
    pub packets: u64,
    /// Bytes in this direction, from the IP header on.
    pub bytes: u64,
    /// The tuple after translation; reversed, it is the key of the other direction.
    pub to: Tuple,
    /// Slot in `RULES` of the publication, link or endpoint that allows the flow.
    pub rule: u32,
    /// TCP, of the answers: the sequence number of the SYN (network byte order), with [`FLOW_SYN`].
    pub isn: u32,
    /// Host-side interface of the container that packets of this direction go to; 0 for the outside.
    pub ifindex: u32,
    /// What the translation does to checksums.
    pub sums: Sums,
    /// When `way` was asked for: [`Flow::tick`] of that time; 0 for never.
    pub way_tick: u32,
    /// Interface that leads to the outside, as the host's routes said.
    pub way_ifindex: u32,
    /// That interface's MAC address.
    pub way_mac: [u8; 6],
    /// The MTU of the way out, in bytes from the IP header on.
    pub way_mtu: u16,
    /// The MAC address of the container, or of the next hop on the way out.
    pub mac: [u8; 6],
    /// A [`FlowAction`].
    pub action: u8,
    /// Bits `FLOW_*`.
    pub state: u8,
    /// [`Zone`] of the other direction's key.
    pub pair_zone: u8,
    /// Always zero.
    pub reserved: [u8; 7],
}

/// What a translation does to the checksums of a packet: one's complement differences, see [`crate::checksum`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of both addresses; 0 where none changes.
    pub addresses: u32,
    /// Of both ports; 0 where none changes.
    pub ports: u32,
}

impl Sums {
    /// Of what makes one tuple the other.
    #[inline(always)]
    pub fn between(from: &Tuple, to: &Tuple) -> Self {
        let mut sums = Sums::default();
        for (from, to) in [(&from.src, &to.src), (&from.dst, &to.dst)] {
            if from != to {
                sums.addresses += difference(from.as_words(), to.as_words());
            }
        }
        if from.sport != to.sport || from.dport != to.dport {
            let ports = |t: &Tuple| [t.sport as u32, t.dport as u32];
            sums.ports = difference(&ports(from), &ports(to));
        }
        sums
    }
}

impl Flow {
    /// Number of the period that a time in nanoseconds is in: a little more than a second long. Never 0 on a host that
    /// has been up for one.
    #[inline(always)]
    pub const fn tick(time: u64) -> u32 {
        (time >> 30) as u32
    }

    /// Key of the other direction.
    #[inline(always)]
    pub const fn pair(&self, protocol: u8) -> FlowKey {
        FlowKey { tuple: self.to.reversed(), protocol, zone: self.pair_zone, reserved: 0 }
    }
}

/// Key of `PUBLICATIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicationKey {
    /// The host's address; `0.0.0.0` or `::` for every host address of that family.
    pub addr: Addr,
    /// The host's port (network byte order).
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub reserved: u8,
}

/// The publication is closed: what arrives is dropped, whatever other rules the host has.
pub const PUBLICATION_CLOSED: u16 = 1;

/// `FILTERS` says which sources may use the publication; what it does not name may.
pub const PUBLICATION_FILTERED: u16 = 2;
/// With [`PUBLICATION_FILTERED`]: what `FILTERS` does not name may not.
pub const PUBLICATION_LISTED_ONLY: u16 = 4;
/// `LIMITS` says how many conversations may begin in a second.
pub const PUBLICATION_LIMITED: u16 = 8;
/// The host's sockets that are bound to a loopback address reach it (`route_localnet` of the bridge, or IPv6).
pub const PUBLICATION_FROM_LOOPBACK: u16 = 16;
/// New conversations go through the host's stack once, and its firewall decides.
pub const PUBLICATION_ASK: u16 = 32;
/// With [`PUBLICATION_ASK`]: rules of the host itself rewrite what goes to the port.
pub const PUBLICATION_HOST_TRANSLATES: u16 = 64;

/// Data of a key of `FILTERS`, a longest-prefix-match trie: the first 64 bits of every prefix are the generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterKey {
    /// The publication's generation.
    pub generation: u64,
    /// A source address, or the beginning of one.
    pub addr: Addr,
}

/// Value of `FILTERS`: the source may use the publication.
pub const FILTER_ALLOW: u32 = 1;
/// Value of `FILTERS`: the source may not use the publication.
pub const FILTER_DENY: u32 = 2;

/// Value of `LIMITS`, by generation: a bucket of conversations that may begin.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What is in the bucket: billionths of a conversation.
    pub tokens: u64,
    /// When something was last put in: nanoseconds of the kernel's coarse monotonic clock.
    pub last: u64,
    /// Conversations that may begin in a second.
    pub per_second: u32,
    /// Always zero.
    pub reserved: u32,
}

impl Limit {
    const ONE: u64 = 1_000_000_000;

    /// A full bucket: as much as a second brings.
    pub const fn full(per_second: u32) -> Self {
        Limit { tokens: per_second as u64 * Self::ONE, last: 0, per_second, reserved: 0 }
    }

    /// Takes one conversation out of the bucket; false where there is none. CPUs that race can at worst take a few more.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        let full = self.per_second as u64 * Self::ONE;
        let elapsed = now.wrapping_sub(self.last);
        let elapsed = if elapsed > Self::ONE { Self::ONE } else { elapsed };
        let tokens = self.tokens + elapsed * self.per_second as u64;
        let tokens = if tokens > full { full } else { tokens };
        self.last = now;
        if tokens < Self::ONE {
            self.tokens = tokens;
            return false;
        }
        self.tokens = tokens - Self::ONE;
        true
    }
}

/// Value of `PUBLICATIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Its generation, also found in `RULES[rule]`.
    pub generation: u64,
    /// The container's address.
    pub addr: Addr,
    /// Slot in `RULES`.
    pub rule: u32,
    /// The container's host-side interface.
    pub ifindex: u32,
    /// Its network's bridge.
    pub bridge: u32,
    /// The container's port (network byte order).
    pub port: u16,
    /// Bits `PUBLICATION_*`.
    pub flags: u16,
    /// The container's MAC address.
    pub mac: [u8; 6],
    /// Always zero.
    pub reserved: u16,
}

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

/// Value of `UPLINKS`, by interface index: addresses that masqueraded conversations have where the kernel does not say
/// which one its route would choose (before Linux 6.7).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// IPv4 address; all zero where it has none.
    pub ipv4: Addr,
    /// IPv6 address; all zero where it has none.
    pub ipv6: Addr,
}

/// Key of `HOST_SOCKETS`: a socket of the host and where its packets really go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostSocketKey {
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

impl HostSocketKey {
    /// A key; `port` in network byte order.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Addr, port: u16, protocol: u8) -> Self {
        HostSocketKey { cookie, addr, port, protocol, reserved: [0; 5] }
    }
}

/// Value of `HOST_SOCKETS`: what the program dialled, to be shown to it again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSocket {
    /// Generation of the publication.
    pub generation: u64,
    /// The address that was dialled.
    pub dialled: Addr,
    /// Slot in `RULES` of the publication.
    pub rule: u32,
    /// The port that was dialled (network byte order).
    pub port: u16,
    /// Always zero.
    pub reserved: u16,
}

/// Where a port (host byte order) has its bit in `PORTS`: the element, and the bit alone.
#[inline(always)]
pub const fn port_bit(port: u16) -> (u32, u64) {
    (port as u32 / 64, 1 << (port % 64))
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
pub const LAYOUT: u32 = 3;

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

/// Slots in `RULES`: the most publications, links and endpoints together.
pub const MAX_RULES: usize = 262_144;
/// Entries of `PUBLICATIONS`.
pub const MAX_PUBLICATIONS: usize = 131_072;
/// Elements of `PORTS`: a bit for each port.
pub const PORT_WORDS: usize = 65_536 / 64;
/// Entries of `FILTERS`.
pub const MAX_FILTERS: usize = 65_536;
/// Entries of `LIMITS`.
pub const MAX_LIMITS: usize = 16_384;
/// Entries of `LINKS`.
pub const MAX_LINKS: usize = 131_072;
/// Entries of `ENDPOINTS`.
pub const MAX_ENDPOINTS: usize = 8_192;
/// Entries of `ADDRESSES`.
pub const MAX_ADDRESSES: usize = 16_384;
/// Entries of `UPLINKS`.
pub const MAX_UPLINKS: usize = 1_024;
/// Entries of `FLOWS`: two a conversation.
pub const MAX_FLOWS: usize = 262_144;
/// Entries of `PENDING`: two a conversation.
pub const MAX_PENDING: usize = 65_536;
/// Entries of `FRAGMENTS`: datagrams of which further fragments may come.
pub const MAX_FRAGMENTS: usize = 8_192;
/// Entries of `HOST_SOCKETS`: peers of the host's sockets that what they dialled is known of.
pub const MAX_HOST_SOCKETS: usize = 65_536;

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
    Sums = 8: u32, u32;
    Flow = 120: u64, u64, u64, u64, Tuple, u32, u32, u32, Sums, u32, u32, [u8; 6], u16, [u8; 6], u8, u8, u8, [u8; 7];
    PublicationKey = 20: Addr, u16, u8, u8;
    Publication = 48: u64, Addr, u32, u32, u32, u16, u16, [u8; 6], u16;
    FilterKey = 24: u64, Addr;
    Limit = 24: u64, u64, u32, u32;
    LinkKey = 36: Addr, Addr, u16, u8, u8;
    Link = 16: u64, u32, u32;
    Endpoint = 88: u64, Addr, Addr, Addr, Addr, u32, u32, [u8; 6], u16;
    FragmentKey = 40: Addr, Addr, u32, u8, u8, u16;
    FragmentPorts = 4: u16, u16;
    Address = 16: u32, u32, [u8; 6], u8, u8;
    HostSocketKey = 32: u64, Addr, u16, u8, [u8; 5];
    HostSocket = 32: u64, Addr, u32, u16, u16;
    Uplink = 32: Addr, Addr;
    Config = 8: u32, u32;
    Event = 56: u64, Tuple, u32, u32, u8, u8, [u8; 2];
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        const MS: u64 = 1_000_000;
        let mut limit = Limit::full(10);
        let taken = (0..100).filter(|_| limit.take(0)).count();
        assert_eq!(taken, 10);
        // Two tenths of a second bring two.
        let taken = (0..100).filter(|_| limit.take(200 * MS)).count();
        assert_eq!(taken, 2);
        // An hour brings no more than a second does.
        let taken = (0..100).filter(|_| limit.take(3_600_000 * MS)).count();
        assert_eq!(taken, 10);
    }
}
