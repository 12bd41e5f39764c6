//! Every decision about a packet: pure functions of its headers and of the tables.
//!
//! A packet goes through stages that follow one another, and the hook calls each: *parse* ([`crate::packet::headers`]), *track*
//! (the flow that it belongs to), *admit* (whether a packet of none may begin one), *begin* (source port allocation and the table
//! entries), *translate* ([`crate::rewrite`]) and *deliver* (the hook's own). [`uplink`], [`endpoint`] and [`gate`] are the
//! first four in a row, one for each hook. What they share is here. The host's own sockets are in [`host`].
//!
//! Between stages that the kernel verifies apart there is one integer, a [`Step`], and what the scratch room holds.

mod addresses;
mod admit;
mod begin;
mod conntrack;
mod endpoint;
mod fragment;
mod gate;
pub mod host;
mod icmp;
mod loopback;
mod masquerade;
mod neighbour;
mod pair;
mod publication;
mod share;
mod source_port;
mod step;
mod tcp;
mod uplink;

use core::ptr::NonNull;

pub use admit::{admit_from_container, admit_from_outside};
pub use begin::{begin_masqueraded, begin_published, begin_untranslated, prepare_masqueraded, resume_published};
pub use conntrack::NewFlow;
pub use endpoint::{endpoint, endpoint_known, track_from_container};
pub use gate::{gate, is_strangers};
pub use neighbour::arp;
pub use share::{hold, make_room, release_closed};
pub use step::{Next, Step};
pub use uplink::{uplink, uplink_known};

use crate::maps::{
    Address, Endpoint, FilterKey, Flow, FlowKey, FragmentKey, FragmentPorts, Holder, Limit, Link, LinkKey, Publication,
    PublicationKey,
};
use crate::packet::Headers;
use crate::{Addr, Verdict};

/// The tables that decisions are made from: maps in the kernel, ordinary collections elsewhere.
pub trait Tables {
    /// Nanoseconds of a monotonic clock.
    fn now(&self) -> u64;
    /// An entry of `FLOWS`.
    fn answered(&self, key: &FlowKey) -> Option<NonNull<Flow>>;
    /// An entry of `PENDING`.
    fn pending(&self, key: &FlowKey) -> Option<NonNull<Flow>>;
    /// Whether there may be an entry of either with this key, of [`Zone::Uplink`](crate::maps::Zone::Uplink): a cheap question
    /// that spares packets for the host itself two searches in large tables.
    fn maybe_flow(&self, _key: &FlowKey) -> bool {
        true
    }
    /// Puts an entry into `PENDING`, in place of what is there. False where there is no room.
    fn insert_pending(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// Moves an entry from `PENDING` to `FLOWS`. False where there is no room: then it stays.
    fn promote(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes an entry from `FLOWS`.
    fn forget(&self, key: &FlowKey);
    /// How many conversations `FLOWS` is to take.
    fn room(&self) -> u64;
    /// How many open ones are counted.
    fn held(&self) -> Option<NonNull<u64>>;
    /// How many of them under the rule in a slot.
    fn held_by_rule(&self, slot: u32) -> Option<NonNull<u64>>;
    /// How many of them of a container or a source; none where there was never any.
    fn held_by(&self, holder: &Holder) -> Option<NonNull<u64>>;
    /// Counts the first one of a container or a source.
    fn begin_holding(&self, holder: &Holder);
    /// Notes the forward entry of a connection that is closed.
    fn note_closed(&self, key: &FlowKey);
    /// The oldest of them, and forgets it.
    fn next_closed(&self) -> Option<FlowKey>;
    /// Has [`hold`] count a conversation: the packet's own.
    fn hold(&self, key: &FlowKey) -> bool;
    /// Has [`release_closed`] count a connection no more: the packet's own.
    fn release_closed(&self, key: &FlowKey);
    /// Has [`make_room`] take entries of a closed connection away.
    fn make_room(&self) -> bool;
    /// Room for one flow while it is made, this run's alone.
    fn scratch(&self) -> Option<NonNull<NewFlow>>;
    /// The generation in `RULES[slot]`; 0 where there is no rule.
    fn generation(&self, slot: u32) -> u64;
    /// Whether there may be an entry of `PUBLICATIONS` with this port (network byte order) and protocol: a Bloom filter with one hash,
    /// `PORTS`. A packet for a port that is not published costs a bit, not two lookups in a hash map.
    fn maybe_published(&self, _port: u16, _protocol: u8) -> bool {
        true
    }
    /// An entry of `PUBLICATIONS`.
    fn publication(&self, key: &PublicationKey) -> Option<&Publication>;
    /// The value that the longest matching prefix of `FILTERS` has; 0 where none matches.
    fn filter(&self, key: &FilterKey) -> u32;
    /// An entry of `LIMITS`.
    fn limit(&self, generation: u64) -> Option<NonNull<Limit>>;
    /// An entry of `LINKS`.
    fn link(&self, key: &LinkKey) -> Option<&Link>;
    /// An entry of `ENDPOINTS`.
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint>;
    /// An entry of `ADDRESSES`.
    fn address(&self, addr: &Addr) -> Option<&Address>;
    /// Whether there may be an entry of `ADDRESSES` with this address: a Bloom filter with one hash, `ADDRESS_BITS`.
    fn maybe_host_address(&self, _addr: &Addr) -> bool {
        true
    }
    /// Whether there may be such an entry, of a container.
    fn maybe_endpoint(&self, _addr: &Addr) -> bool {
        true
    }
    /// The address of this host that its routes would give a packet from a container behind `bridge`, where they lead out
    /// by an uplink, into `found`. False where they do not.
    fn source(&self, h: &Headers, bridge: u32, found: &mut Addr) -> bool;
    /// Whether there is an entry of `UPLINKS` with this interface index.
    fn is_uplink(&self, ifindex: u32) -> bool;
    /// Whether there is an entry of `UNSERVED` with this interface index: it leads outside and has no program.
    fn is_unserved(&self, ifindex: u32) -> bool;
    /// The value that the longest matching prefix of `PREFIXES` has; 0 where none matches.
    fn prefix(&self, addr: &Addr) -> u32;
    /// Whether a socket of this host waits for what arrives with this key.
    fn host_socket(&self, key: &FlowKey) -> bool;
    /// Whether a socket of this host has the TCP connection of what arrives with this key: not one that only listens.
    fn host_connection(&self, key: &FlowKey) -> bool;
    /// An entry of `FRAGMENTS`.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Puts an entry into `FRAGMENTS`.
    fn remember_fragment(&self, key: &FragmentKey, ports: FragmentPorts);
}

/// What a program needs room for while it runs and has no stack for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// The packet's headers.
    pub headers: Headers,
    /// A flow that is being opened.
    pub new_flow: NewFlow,
    /// What the datapath may still say of itself.
    pub budget: Budget,
    /// What time it was when last asked.
    pub clock: Clock,
    /// Parameters of the kernel's route lookup: they would take too much of the stack.
    pub fib: [u32; 16],
    /// Parameters of the kernel's redirection to a neighbour.
    pub neighbour: [u32; 5],
    /// Whom an ICMP error of the datapath's own comes from.
    pub error_source: Addr,
    /// Always zero.
    pub reserved: u32,
}

/// The coarse monotonic clock, asked once a tick: until the next one it says the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Number of the tick in which it was asked.
    pub tick: u64,
    /// What it said: nanoseconds.
    pub now: u64,
}

/// Keeps the errors that the datapath sends to the outside to a number that hurts nobody, whoever asks for them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// When the running period began: nanoseconds of the coarse monotonic clock.
    pub since: u64,
    /// Errors sent in it.
    pub sent: u64,
}

impl Budget {
    /// Length of a period in nanoseconds, and errors in it: a thousand a second, as the kernel's own
    /// `icmp_msgs_per_sec` has it, but for each CPU.
    const PERIOD: u64 = 100_000_000;
    const ERRORS: u64 = 100;

    /// Takes one error from the budget. False where nothing is left.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        if now.wrapping_sub(self.since) >= Self::PERIOD {
            self.since = now;
            self.sent = 0;
        }
        self.sent += 1;
        self.sent <= Self::ERRORS
    }
}

/// What to do with a packet: a plain structure, which every kernel's verifier can follow through memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    verdict: Verdict,
    flow: Option<NonNull<Flow>>,
}

impl Decision {
    /// To the host's stack, unchanged.
    #[inline(always)]
    pub const fn pass(verdict: Verdict) -> Self {
        Decision { verdict, flow: None }
    }

    /// Nowhere.
    #[inline(always)]
    pub const fn drop(verdict: Verdict) -> Self {
        Decision { verdict, flow: None }
    }

    /// Translate and send as the flow says. The pointer is valid until the tables change.
    #[inline(always)]
    pub const fn forward(verdict: Verdict, flow: NonNull<Flow>) -> Self {
        Decision { verdict, flow: Some(flow) }
    }

    /// The reason.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The flow by which it is translated and sent, if it is.
    #[inline(always)]
    pub const fn flow(&self) -> Option<NonNull<Flow>> {
        self.flow
    }
}
