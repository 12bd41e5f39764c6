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
    // SAFETY: the scratch room belongs to this run of the program alone.
    let why = unsafe { &mut (*t.scratch()?.as_ptr()).refusal };
    *why = Refusal::None as u32;
    // In a register, and the reason beside it: the verifier does not see through more.
    match begin(t, ep, ifindex, h) {
        Some(flow) => Some(Decision::Forward(Verdict::Masqueraded, flow)),
        None if *why == Refusal::None as u32 => None,
        None if *why == Refusal::Ttl as u32 => Some(Decision::Drop(Verdict::TtlExceeded)),
        None if *why == Refusal::Ports as u32 => Some(Decision::Drop(Verdict::PortsExhausted)),
        None => Some(Decision::Drop(Verdict::FlowTableFull)),
    }
}

/// Why nothing was opened.
#[repr(u32)]
enum Refusal {
    /// It is the stack's.
    None,
    Ttl,
    Ports,
    Full,
}

// Once a conversation: with a stack frame of its own.
#[inline(never)]
fn begin<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> Option<NonNull<Flow>> {
    // Written where it is to be: there is little stack left here.
    let opening = t.scratch()?;
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *opening.as_ptr() };
    o.forward.to = h.key.tuple;
    if !t.source(h, ep.bridge, &mut o.forward.to.src) {
        return None;
    }
    if h.ttl <= 1 {
        o.refusal = Refusal::Ttl as u32;
        return None;
    }
    let forward = Target { action: FlowAction::Masquerade, ifindex: 0, mac: [0; 6] };
    let reply = Target { action: FlowAction::MasqueradeReply, ifindex, mac: ep.mac };
    fill(o, (ep.generation, ep.rule), forward, reply);
    o.refusal = Refusal::Ports as u32;
    if !t.settle::<true>(&h.key, opening) {
        return None;
    }
    o.refusal = Refusal::Full as u32;
    open(t, h, opening, Zone::Uplink)
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
