//! ICMP errors about flows: whose word counts.
//!
//! An error is believed where what it says can be true: it is about a packet of a flow that goes to where the error comes from, was
//! sent to that packet's sender, and about something that may be on the way. Outside, any router on the way may say so, and the way
//! there may be another than back: neither its address nor the uplink tells anything. What a neighbour on the LAN can still do who
//! guesses or sees the addresses and ports of a conversation, is what he can do to any Linux host's UDP sockets: for the minute after
//! a datagram, forge an error about it. About TCP he has to guess the sequence number as well, and the container's own stack then
//! looks whether that was sent.

use core::ptr::NonNull;

use super::Tables;
use super::conntrack::stands;
use super::pair::pair_of;
use super::tcp::is_in_flight;
use crate::maps::{FLOW_ANSWERED, Flow, Zone};
use crate::packet::{Headers, Packet, Quote, TCP, quoted, quoted_mtu};

/// Where an error comes from, and so to whom the packet went that it quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Origin {
    /// From outside, about what went there under an address of the host's.
    Outside = 0,
    /// From the container that the packet was for.
    Container = 1,
    /// From outside or the host's stack, about what the container that the error is for has sent under its own address.
    Beyond = 2,
}

/// What an error turned out to be that is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum About {
    /// Something that cannot be read.
    Unknown = 0,
    /// What no flow is known of.
    NoFlow = 1,
    /// A flow that it does not fit, or what its sender knows nothing of.
    Flow = 2,
}

/// The longest error that is passed on, from the IP header on (RFC 1812 §4.3.2.3, RFC 4443 §2.4 c), in bytes.
const MAX_V4: u32 = 576;
const MAX_V6: u32 = 1280;

/// The MTU of IPv4 that Linux takes for one that is too small to be true (`ip_rt_min_pmtu`), in bytes.
const ASSUMED: u32 = 552;

/// How long after the last packet of a conversation without sequence numbers an error about it may come, in nanoseconds: as long as
/// fragments may be waited for (RFC 1122 §3.3.2).
const RECENT: u64 = 60_000_000_000;

/// The flow that an ICMP error is about, where it is believed: that of the packets that come from where the error comes from, or for
/// [`Origin::Beyond`] that of the packet itself. Otherwise `about` tells more.
// Rare: with a stack frame of its own.
#[inline(never)]
pub(super) fn quoted_flow<P: Packet, T: Tables>(
    p: &P,
    t: &T,
    h: &Headers,
    from: Origin,
    about: &mut About,
) -> Option<NonNull<Flow>> {
    let scratch = t.scratch()?;
    // SAFETY: the scratch room belongs to this run of the program alone.
    let key = unsafe { &mut (*scratch.as_ptr()).reply_key };
    key.zone = if from == Origin::Outside { Zone::Uplink as u8 } else { Zone::Endpoint as u8 };
    let quote = quoted(p, h, key)?;
    // A container is no router: it has a say about what was for itself.
    let foreign = from == Origin::Container && key.tuple.dst != h.key.tuple.src;
    *about = if foreign { About::Flow } else { About::NoFlow };
    // It goes to the sender of what it quotes.
    let fits = !foreign && key.tuple.src == h.key.tuple.dst && is_sane(p, h, &quote);
    if from != Origin::Beyond {
        key.tuple.reverse();
    }
    let protocol = key.protocol;
    let found = t.answered(key).or_else(|| t.pending(key))?;
    // SAFETY: entries stay valid while the program runs.
    let flow = unsafe { found.as_ref() };
    if !stands(t, flow) {
        return None;
    }
    *about = About::Flow;
    // What goes to another container is answered by that one.
    if !fits || from == Origin::Beyond && flow.ifindex != 0 {
        return None;
    }
    let pair = pair_of(t, flow, protocol)?;
    // SAFETY: as above.
    let pair = unsafe { pair.as_ref() };
    let (sender, receiver) = if from == Origin::Beyond { (flow, pair) } else { (pair, flow) };
    // Of one that is older than the datapath, it was not seen.
    if sender.packets == 0 && sender.state & FLOW_ANSWERED == 0 {
        return None;
    }
    let believed = if protocol == TCP {
        is_in_flight(receiver, quote.seq)
    } else {
        t.now().wrapping_sub(sender.last_seen) < RECENT
    };
    believed.then_some(found)
}

/// Whether an error is no longer than it may be, and an MTU that it tells of is one that the quoted packet did not fit in and that
/// the family allows.
#[inline(always)]
fn is_sane<P: Packet>(p: &P, h: &Headers, quote: &Quote) -> bool {
    let (longest, least) = if h.v4 { (MAX_V4, 68) } else { (MAX_V6, 1280) };
    if h.bytes > longest || h.first_fragment {
        return false;
    }
    match quoted_mtu(p, h) {
        // A router from before RFC 1191 tells none, and Linux takes this one for it.
        Some(0) if h.v4 => ASSUMED < quote.len,
        Some(mtu) => mtu >= least && mtu < quote.len,
        None => true,
    }
}
