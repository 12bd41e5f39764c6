//! What containers begin with the outside.

use super::Tables;
use super::publication::lookup;
use super::source_port::is_live;
use crate::maps::{ADDRESS_HOST, ENDPOINT_MASQUERADE_V4, ENDPOINT_MASQUERADE_V6, Endpoint, Flow, FlowKey, Zone};
use crate::packet::{Headers, Message, SCTP, TCP, UDP};

/// Whether what the container `ep` begins goes out under an address of the host's.
#[inline(always)]
pub(super) fn is_masqueraded(ep: &Endpoint, h: &Headers) -> bool {
    let wanted = if h.v4 { ENDPOINT_MASQUERADE_V4 } else { ENDPOINT_MASQUERADE_V6 };
    // A segment without SYN may belong to a connection of which one entry was lost: it comes to the same port again.
    let can = match h.message {
        Message::TcpOpen | Message::EchoRequest => true,
        // Where nothing is isolated, it may as well answer what came in without the datapath.
        Message::TcpSegment => ep.is_isolated() && !h.syn(),
        Message::Datagram => h.key.protocol != SCTP,
        _ => false,
    };
    ep.flags & wanted != 0 && can
}

/// Whether the address that a conversation goes out under is no longer the host's: no answer would find it.
#[inline(always)]
pub(super) fn moved<T: Tables>(t: &T, flow: &Flow) -> bool {
    t.address(&flow.to.src).is_none_or(|a| a.kind != ADDRESS_HOST)
}

/// Marks the answers to a packet that was left to the stack as such, where they would be taken for a client's of a
/// published port: the host's own rules keep the source port wherever they can.
#[inline(always)]
pub(super) fn expect_answers<T: Tables>(t: &T, ep: &Endpoint, h: &Headers) {
    if matches!(h.key.protocol, TCP | UDP) && t.maybe_published(h.key.tuple.sport, h.key.protocol) {
        expect_at_uplink(t, ep, h);
    }
}

// Once a conversation: with a stack frame of its own.
#[inline(never)]
fn expect_at_uplink<T: Tables>(t: &T, ep: &Endpoint, h: &Headers) {
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
