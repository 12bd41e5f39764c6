//! What containers begin with the outside.

use core::ptr::NonNull;

use super::flow::{Target, fill, open};
use super::ports::is_live;
use super::publication::lookup;
use super::{Decision, Tables};
use crate::Verdict;
use crate::maps::{
    ADDRESS_HOST, ENDPOINT_MASQUERADE_V4, ENDPOINT_MASQUERADE_V6, Endpoint, Flow, FlowAction, FlowKey, Zone,
};
use crate::packet::{Headers, Message, SCTP, UDP};

/// Opens a conversation of the container `ep` behind `ifindex` under an address of the host's. `None` where that is not to
/// be, or the way does not lead through an uplink: then it is the stack's.
#[inline(always)]
pub(super) fn masquerade<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> Option<Decision> {
    let wanted = if h.v4 { ENDPOINT_MASQUERADE_V4 } else { ENDPOINT_MASQUERADE_V6 };
    // A segment without SYN may belong to a connection of which one entry was lost: it comes to the same port again.
    let can = match h.message {
        Message::TcpOpen | Message::TcpSegment | Message::EchoRequest => true,
        Message::Datagram => h.key.protocol != SCTP,
        _ => false,
    };
    if ep.flags & wanted == 0 || !can {
        return None;
    }
    match t.begin_masquerade(ep, ifindex, h) {
        NOT_OURS => None,
        OPENED => {
            let opening = t.scratch()?;
            // SAFETY: the scratch room belongs to this run of the program alone.
            Some(Decision::Forward(Verdict::Masqueraded, NonNull::from(unsafe { &mut (*opening.as_ptr()).forward })))
        }
        TTL => Some(Decision::Drop(Verdict::TtlExceeded)),
        NO_PORT => Some(Decision::Drop(Verdict::PortsExhausted)),
        _ => Some(Decision::Drop(Verdict::FlowTableFull)),
    }
}

/// What came of [`begin_masquerade`]: plain numbers, so that the kernel can verify it by itself.
const NOT_OURS: u32 = 0;
const OPENED: u32 = 1;
const TTL: u32 = 2;
const NO_PORT: u32 = 3;
const FULL: u32 = 4;

/// Opens a conversation of the container `ep` behind `ifindex` in the scratch room, or says why not.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
pub fn begin_masquerade<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> u32 {
    // Written where it is to be: there is little stack left here.
    let Some(opening) = t.scratch() else {
        return FULL;
    };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *opening.as_ptr() };
    o.forward.to = h.key.tuple;
    if !t.source(h, ep.bridge, &mut o.forward.to.src) {
        return NOT_OURS;
    }
    if h.ttl <= 1 {
        return TTL;
    }
    let forward = Target { action: FlowAction::Masquerade, ifindex: 0, mac: [0; 6] };
    let reply = Target { action: FlowAction::MasqueradeReply, ifindex, mac: ep.mac };
    fill(o, (ep.generation, ep.rule), forward, reply);
    if !t.settle::<true>(&h.key, opening) {
        return NO_PORT;
    }
    if open(t, h, opening, Zone::Uplink).is_some() { OPENED } else { FULL }
}

/// Whether the address that a conversation goes out under is no longer the host's: no answer would find it.
#[inline(always)]
pub(super) fn moved<T: Tables>(t: &T, flow: &Flow) -> bool {
    t.address(&flow.to.src).is_none_or(|a| a.kind != ADDRESS_HOST)
}

/// Marks the answers to a datagram that was left to the stack as such, where they would be taken for a client's of a
/// published port: the host's own rules keep the source port wherever they can.
#[inline(always)]
pub(super) fn expect<T: Tables>(t: &T, ep: &Endpoint, h: &Headers) {
    if h.key.protocol == UDP {
        expect_datagram(t, ep, h);
    }
}

// Once a conversation: with a stack frame of its own.
#[inline(never)]
fn expect_datagram<T: Tables>(t: &T, ep: &Endpoint, h: &Headers) {
    let Some(scratch) = t.scratch() else {
        return;
    };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *scratch.as_ptr() };
    // `reply` is as it stands at the gate: the same answers, only seen earlier.
    o.reply_key = FlowKey::new(h.key.tuple.reversed(), h.key.protocol, Zone::Uplink);
    if !t.source(h, ep.bridge, &mut o.reply_key.tuple.dst) {
        return;
    }
    if lookup(t, &o.reply_key).is_none() || is_live(t, &o.reply_key) {
        return;
    }
    let _ = t.insert_pending(&o.reply_key, &o.reply);
}
