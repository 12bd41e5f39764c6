//! Packets of the host's sockets that are bound to a loopback address: into a container they go with the address that the
//! host has on its network, and the answers come back to the loopback address.

use core::ptr::NonNull;

use super::conntrack::{Found, Rules, Target, open, prepare, track};
use super::fragment::complete_fragment;
use super::{Decision, Tables};
use crate::maps::{Endpoint, Flow, FlowAction, FlowKey, Tuple, Zone};
use crate::packet::{Headers, Mac, TCP, UDP};
use crate::{Addr, Verdict};

/// How many ports are tried where sockets of several loopback addresses have the same one.
const ATTEMPTS: u16 = 4;

/// Decides about a packet of the host from a loopback address that is about to enter `ep`.
#[inline(always)]
pub(super) fn from_loopback<T: Tables>(t: &T, ep: &Endpoint, h: &mut Headers) -> Decision {
    if !matches!(h.key.protocol, TCP | UDP) {
        return Decision::pass(Verdict::FromHost);
    }
    let mut reason = Verdict::FlowTableFull;
    match flow(t, ep, h, &mut reason) {
        Some(flow) => Decision::forward(Verdict::FromHost, flow),
        None => Decision::drop(reason),
    }
}

/// The packet's flow, opened where there is none; else the reason.
// Rare: with a stack frame of its own. The kernel follows pointers out of such a function only by themselves.
#[inline(never)]
fn flow<T: Tables>(t: &T, ep: &Endpoint, h: &mut Headers, reason: &mut Verdict) -> Option<NonNull<Flow>> {
    if !complete_fragment(t, h) {
        *reason = Verdict::Fragment;
        return None;
    }
    if let Found::Live(flow) = track(t, h) {
        return Some(flow);
    }
    if !h.message.opens() {
        *reason = Verdict::NoFlow;
        return None;
    }
    let src = if h.v4 { ep.gateway4 } else { ep.gateway6 };
    if src == Addr::ANY_V6 {
        *reason = Verdict::NoRoute;
        return None;
    }
    let mut to = Tuple { src, ..h.key.tuple };
    for _ in 0..ATTEMPTS {
        if is_free(t, &to, &h.key) {
            let forward = Target { action: FlowAction::FromLoopback, ifindex: 0, mac: Mac::read(&ep.mac) };
            let reply = Target { action: FlowAction::ToLoopback, ifindex: 0, mac: Mac::NONE };
            return prepare(t, Rules::one(ep.generation, ep.rule), &to, forward, reply)
                .and_then(|new_flow| open(t, h, new_flow, Zone::Endpoint));
        }
        // Somewhere else among the ports that nobody needs a right to use.
        to.sport = (to.sport.swap_bytes().wrapping_add(7_919) | 0x8000).swap_bytes();
    }
    None
}

/// Whether no other conversation's answers than those of `own` would come by the same key.
#[inline(always)]
fn is_free<T: Tables>(t: &T, to: &Tuple, own: &FlowKey) -> bool {
    let Some(scratch) = t.scratch() else {
        return false;
    };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let key = unsafe { &mut (*scratch.as_ptr()).reply_key };
    *key = FlowKey::new(to.reversed(), own.protocol, Zone::Endpoint);
    let Some(found) = t.answered(key).or_else(|| t.pending(key)) else {
        return true;
    };
    // SAFETY: the tables' entries stay valid while the program runs.
    let flow = unsafe { found.as_ref() };
    // Where the first one with these ports is over, this is the next.
    let is_own = flow.pair_zone == own.zone && flow.to.dport == own.tuple.sport && flow.to.dst == own.tuple.src;
    is_own || t.generation(flow.rule) != flow.generation
}
