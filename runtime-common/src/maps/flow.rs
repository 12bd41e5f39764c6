//! Conversations: what `FLOWS` and `PENDING` hold.

use crate::Addr;
use crate::checksum::difference;
use crate::protocol::{TCP, UDP};

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
    /// Turns it to the other side's view, in place.
    #[inline(always)]
    pub fn reverse(&mut self) {
        self.src.exchange(&mut self.dst);
        core::mem::swap(&mut self.sport, &mut self.dport);
    }

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

/// Elements of `FLOW_PORTS`: one for each port of TCP, of UDP, and of everything else together.
pub const MAX_FLOW_PORTS: usize = 3 << 16;

/// A bit for each half of the time: see `FLOW_PORTS`.
pub const FLOW_PORT_HALVES: u8 = 3;

impl FlowKey {
    /// The element of `FLOW_PORTS` that tells whether there may be a flow with this key. Only keys of [`Zone::Uplink`] have one.
    #[inline(always)]
    pub const fn port_element(&self) -> u32 {
        let first = match self.protocol {
            TCP => 0,
            UDP => 1,
            _ => 2,
        } << 16;
        first | u16::from_be(self.tuple.dport) as u32
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
    Defer = 11,
    /// Unchanged, to the host's stack, whose own rules rewrite the destination; otherwise as `Defer`.
    DeferUntranslated = 12,
}

/// The other side has answered.
pub const FLOW_ANSWERED: u8 = 1;
/// This side has sent its FIN.
pub const FLOW_FIN: u8 = 2;
/// This side has reset the connection.
pub const FLOW_RST: u8 = 4;
/// This is the direction of the answers.
pub const FLOW_REPLY: u8 = 8;

/// TCP: a SYN of this side was seen, which says nothing about whoever it answers.
pub const FLOW_SYN: u8 = 16;

/// The conversation is counted in the shares of the table.
pub const FLOW_COUNTED: u8 = 128;

/// The largest factor of a TCP window, as a power of two (RFC 7323 §2.3): also what is taken of a connection whose SYN was
/// not seen.
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Value of `FLOWS` (conversations whose client has gone on after an answer) and `PENDING` (all others): one entry a direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Generation of `rule` when the flow was made; another one there now means that the flow has ended.
    pub generation: u64,
    /// Generation of the container that began the flow, where `rule` is a publication's, which outlives it: as for `rule`. 0 where
    /// none has begun it, or where `rule` ends with it.
    pub client_generation: u64,
    /// Time of the last packet: nanoseconds of the kernel's coarse monotonic clock.
    pub last_seen: u64,
    /// Packets in this direction.
    pub packets: u64,
    /// Bytes in this direction, from the IP header on.
    pub bytes: u64,
    /// TCP: the highest number that this side has acknowledged: what it expects next (host byte order).
    pub ack: u32,
    /// TCP: the sequence number behind the last segment of this side, of a SYN without its data (host byte order).
    pub end: u32,
    /// TCP: the largest window that this side has offered, in bytes; 0 where it was not heard yet.
    pub window: u32,
    /// The tuple after translation; reversed, it is the key of the other direction.
    pub to: Tuple,
    /// Slot in `RULES` of the publication, link or endpoint that allows the flow.
    pub rule: u32,
    /// Host-side interface of the container that packets of this direction go to; 0 for the outside.
    pub ifindex: u32,
    /// What the translation does to checksums.
    pub sums: ChecksumDeltas,
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
    /// TCP: the factor of this side's windows, as a power of two.
    pub window_scale: u8,
    /// The MAC address of the container that packets of this direction come from.
    pub from_mac: [u8; 6],
    /// Slot in `RULES` of the container that began the flow, as of `client_generation`.
    pub client_rule: u32,
    /// Host-side interface of that container; 0 where they come from elsewhere, or where it is not known.
    pub from_ifindex: u32,
}

/// Key of `HELD_BY`: whose conversations are counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The address of who begins them. Outside, of IPv6 its first half: whoever has one address there has 2^64. All zero of a container
    /// that they lead to.
    pub source: Addr,
    /// Host-side interface of the container that they lead to; 0 of a source.
    pub ifindex: u32,
}

impl Holder {
    /// Who begins conversations; `ifindex` is a container's, which shares the first half with others of its network, or 0.
    #[inline(always)]
    pub const fn source(addr: &Addr, ifindex: u32) -> Self {
        let w = addr.as_words();
        let source = if addr.is_v4() || ifindex != 0 { *addr } else { Addr::words([w[0], w[1], 0, 0]) };
        Holder { source, ifindex: 0 }
    }

    /// The container behind an interface.
    #[inline(always)]
    pub const fn container(ifindex: u32) -> Self {
        Holder { source: Addr::words([0; 4]), ifindex }
    }
}

/// What a translation does to the checksums of a packet: one's complement differences, see [`crate::checksum`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumDeltas {
    /// Of both addresses; 0 where none changes.
    pub addresses: u32,
    /// Of both ports; 0 where none changes.
    pub ports: u32,
}

impl ChecksumDeltas {
    /// Of what makes one tuple the other.
    #[inline(always)]
    pub fn between(from: &Tuple, to: &Tuple) -> Self {
        let mut sums = ChecksumDeltas::default();
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
