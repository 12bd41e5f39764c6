//! Beginning a flow that was admitted: source port allocation, and the entries of both directions.

use core::ptr::NonNull;

use super::conntrack::{Rules, Target, expect_at_gate, fill, open, prepare};
use super::masquerade::expect_answers;
use super::publication::{lookup, refused};
use super::share::is_within_shares;
use super::source_port::{allocate_source_port, is_through_stack};
use super::{NewFlow, Next, Step, Tables};
use crate::Verdict;
use crate::maps::{Endpoint, FlowAction, FlowKey, Zone};
use crate::packet::{Headers, Mac, TCP};

/// Begins the flow with a published port or over a link that admission has prepared in the scratch room.
#[inline(always)]
pub fn begin_published<T: Tables>(t: &T, h: &Headers) -> Step {
    const DEFER: u8 = FlowAction::Defer as u8;
    const DEFER_UNTRANSLATED: u8 = FlowAction::DeferUntranslated as u8;
    const LINK: u8 = FlowAction::Link as u8;
    const STACK: u8 = FlowAction::Stack as u8;
    let Some(new_flow) = t.scratch() else {
        return Step::finish(Verdict::FlowTableFull);
    };
    if action(new_flow) != STACK && is_beyond_share(t, h, new_flow) {
        return Step::finish(Verdict::ShareSpent);
    }
    // A client's port may lead to several host ports of one container, and a recipient may use the same port for the source
    // itself and for a port that it publishes: the container has to see them apart.
    if !allocate_source_port::<T, false>(t, &h.key, new_flow) {
        return Step::finish(Verdict::PortsExhausted);
    }
    let opened = open(t, h, new_flow, Zone::Endpoint).is_some();
    match action(new_flow) {
        // Remembered or not, it is the host's.
        STACK => Step::finish(Verdict::Preexisting),
        _ if !opened => Step::finish(Verdict::FlowTableFull),
        LINK => Step::new(Next::Forward, Verdict::Linked),
        DEFER | DEFER_UNTRANSLATED if !expect_at_gate(t, h, new_flow) => Step::finish(Verdict::FlowTableFull),
        DEFER => Step::new(Next::Forward, Verdict::Deferred),
        DEFER_UNTRANSLATED => Step::finish(Verdict::Deferred),
        _ => Step::new(Next::Forward, Verdict::Published),
    }
}

/// Whether the segment of no known connection to a published port, whose flow is prepared in the scratch room, begins that flow:
/// its container answers with a reset, or knows the connection. A socket of the host may have it as well, of a proxy for example,
/// and the engine's rules may carry it: then its answers are known to go through the stack.
#[inline(always)]
pub fn resume_published<T: Tables>(t: &T, h: &Headers) -> Step {
    let Some(new_flow) = t.scratch() else {
        return Step::finish(Verdict::Preexisting);
    };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *new_flow.as_ptr() };
    o.reply_key = FlowKey::new(o.forward.to.reversed(), h.key.protocol, Zone::Endpoint);
    if is_through_stack(t, &o.reply_key) || t.host_connection(&h.key) {
        return Step::finish(Verdict::Preexisting);
    }
    match lookup(t, &h.key).and_then(|p| refused(t, h, p)) {
        Some(refused) => Step::finish(refused),
        None => Step::new(Next::Published, Verdict::Published),
    }
}

/// Prepares in the scratch room a flow of the container `ep` behind `ifindex` that goes out under an address of the host's;
/// [`Next::Untranslated`] where its way does not lead through an uplink.
#[inline(always)]
pub fn prepare_masqueraded<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> Step {
    let Some(new_flow) = t.scratch() else {
        return Step::finish(Verdict::FlowTableFull);
    };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *new_flow.as_ptr() };
    o.forward.to = h.key.tuple;
    if !t.source(h, ep.bridge, &mut o.forward.to.src) {
        return Step::new(Next::Untranslated, Verdict::Outbound);
    }
    if h.ttl <= 1 {
        return Step::finish(Verdict::TtlExceeded);
    }
    let forward = Target { action: FlowAction::Masquerade, ifindex: 0, mac: Mac::NONE };
    let reply = Target { action: FlowAction::MasqueradeReply, ifindex, mac: Mac::read(&ep.mac) };
    fill(o, Rules::one(ep.generation, ep.rule), forward, reply);
    Step::new(Next::Masqueraded, Verdict::Masqueraded)
}

/// Begins the flow that [`prepare_masqueraded`] has prepared.
#[inline(always)]
pub fn begin_masqueraded<T: Tables>(t: &T, h: &Headers) -> Step {
    let Some(new_flow) = t.scratch() else {
        return Step::finish(Verdict::FlowTableFull);
    };
    if is_beyond_share(t, h, new_flow) {
        return Step::finish(Verdict::ShareSpent);
    }
    if !allocate_source_port::<T, true>(t, &h.key, new_flow) {
        return Step::finish(Verdict::PortsExhausted);
    }
    match open(t, h, new_flow, Zone::Uplink) {
        Some(_) => Step::new(Next::Forward, Verdict::Masqueraded),
        None => Step::finish(Verdict::FlowTableFull),
    }
}

/// Begins a flow of the container `ep` behind `ifindex` that goes through the host's stack unchanged: its answers are expected at
/// the gate.
#[inline(always)]
pub fn begin_untranslated<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> Step {
    let forward = Target { action: FlowAction::Stack, ifindex: 0, mac: Mac::NONE };
    let reply = Target { action: FlowAction::Stack, ifindex, mac: Mac::read(&ep.mac) };
    let opened = prepare(t, Rules::one(ep.generation, ep.rule), &h.key.tuple, forward, reply)
        .and_then(|new_flow| open(t, h, new_flow, Zone::Gate));
    if opened.is_none() {
        // Where nothing is isolated, the gate lets its answers through as well.
        return Step::finish(if ep.is_isolated() { Verdict::FlowTableFull } else { Verdict::Outbound });
    }
    expect_answers(t, ep, h);
    Step::finish(Verdict::Outbound)
}

/// Whether it is a connection that could not be told apart from a flood's. Other protocols' one-packet exchanges need no share.
#[inline(always)]
fn is_beyond_share<T: Tables>(t: &T, h: &Headers, new_flow: NonNull<NewFlow>) -> bool {
    // SAFETY: the scratch room belongs to this run of the program alone.
    h.key.protocol == TCP && !is_within_shares(t, &h.key.tuple.src, &unsafe { new_flow.as_ref() }.forward)
}

#[inline(always)]
fn action(new_flow: NonNull<NewFlow>) -> u8 {
    // SAFETY: the scratch room belongs to this run of the program alone.
    unsafe { new_flow.as_ref() }.forward.action
}
