//! Source ports by which the answers of conversations are told apart.

use core::ptr::NonNull;

use super::publication::lookup;
use super::{NewFlow, Tables};
use crate::maps::{Flow, FlowAction, FlowKey, Tuple, Zone};
use crate::packet::SCTP;

/// How many ports are tried: where half of all are taken, one search in four thousand million finds none.
const ATTEMPTS: u32 = 32;
/// The first port that takes no right to use.
const FIRST: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST;
/// Has no divisor in common with `PORTS`: the search comes to the same port only after all the others.
const STEP: u32 = 40_503;

/// Sees to it that the answers of a conversation that is about to be opened have a key of their own: keeps the source port
/// of `forward.to` where that does, and takes another one where not. False where none was found.
///
/// The same conversation comes to the same port again, so that it goes on where one of its entries was lost.
/// `HOSTS`: the port is to be one at which neither the host nor another container would have heard the answers.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
pub(super) fn allocate_source_port<T: Tables, const HOSTS: bool>(
    t: &T,
    key: &FlowKey,
    new_flow: NonNull<NewFlow>,
) -> bool {
    // Published conversations are answered by the container, masqueraded ones from outside.
    let reply_zone = if HOSTS { Zone::Uplink } else { Zone::Endpoint };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *new_flow.as_ptr() };
    o.reply_key = FlowKey::new(o.forward.to.reversed(), key.protocol, reply_zone);
    if is_free::<T, HOSTS>(t, &o.reply_key, key) {
        return true;
    }
    if key.protocol == SCTP {
        // Its checksum covers the ports, and is not made anew.
        return false;
    }
    let start = mix(&key.tuple);
    for n in 0..ATTEMPTS {
        let port = ((FIRST + (start + n * STEP) % PORTS) as u16).to_be();
        o.reply_key.tuple.dport = port;
        if is_free::<T, HOSTS>(t, &o.reply_key, key) {
            o.forward.to.sport = port;
            return true;
        }
    }
    false
}

/// Whether a conversation has that key.
#[inline(always)]
pub(super) fn is_live<T: Tables>(t: &T, key: &FlowKey) -> bool {
    // SAFETY: entries stay valid while the program runs.
    let live = |flow: NonNull<Flow>| unsafe { t.generation(flow.as_ref().rule) == flow.as_ref().generation };
    t.answered(key).is_some_and(live) || t.pending(key).is_some_and(live)
}

/// Whether a flow has that key, and goes through the host's stack.
#[inline(always)]
pub(super) fn is_through_stack<T: Tables>(t: &T, key: &FlowKey) -> bool {
    let Some(flow) = t.answered(key).or_else(|| t.pending(key)) else {
        return false;
    };
    // SAFETY: entries stay valid while the program runs.
    let flow = unsafe { flow.as_ref() };
    flow.action == FlowAction::Stack as u8 && t.generation(flow.rule) == flow.generation
}

/// Whether answers with that key can be those of the conversation `own`.
#[inline(always)]
fn is_free<T: Tables, const HOSTS: bool>(t: &T, reply: &FlowKey, own: &FlowKey) -> bool {
    if let Some(flow) = t.answered(reply).or_else(|| t.pending(reply)) {
        // SAFETY: entries stay valid while the program runs.
        let flow = unsafe { flow.as_ref() };
        if t.generation(flow.rule) == flow.generation {
            let to = &flow.to;
            return flow.pair_zone == own.zone
                && to.sport == own.tuple.dport
                && to.dport == own.tuple.sport
                && to.src == own.tuple.dst
                && to.dst == own.tuple.src;
        }
    }
    if !HOSTS {
        return true;
    }
    match lookup(t, reply) {
        // What comes for the port goes to the container's very socket either way, and the host's own ones never see it.
        Some(p) => p.addr == own.tuple.src && p.port == own.tuple.sport,
        None => !t.host_socket(reply),
    }
}

/// A number that looks like chance, and is the same for the same tuple; below 2^16.
#[inline(always)]
fn mix(tuple: &Tuple) -> u32 {
    let (src, dst) = (tuple.src.as_words(), tuple.dst.as_words());
    let mut n = u32::from(tuple.sport) << 16 | u32::from(tuple.dport);
    for word in [src[0], src[2], src[3], dst[0], dst[2], dst[3]] {
        n = (n ^ word).wrapping_mul(0x9e37_79b1);
        n ^= n >> 15;
    }
    n >> 16
}
