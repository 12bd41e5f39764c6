//! Packets that belong to no flow: functions that the kernel verifies each for itself, whoever calls them. What they share
//! with their callers is in the scratch room; the callers verify much faster without them.

use aya_ebpf::bindings::__sk_buff;
use runtime_common::Verdict;
use runtime_common::decide::{Decision, Opening, Tables, begin_masquerade, settle, uplink_new};

use crate::maps::ENDPOINTS;
use crate::tables::Maps;

const PASS: u32 = 0;
const DROP: u32 = 1;
const FORWARD: u32 = 2;

/// The second half of the decision about a packet from outside: a verdict's number, and what is done above it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn new_from_outside() -> u32 {
    match Maps::new() {
        Some(maps) => number(uplink_new(&maps, maps.headers())),
        None => number(Decision::Drop(Verdict::Malformed)),
    }
}

/// Finds a source port for a conversation with a published port; 0 where there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn settle_published() -> u32 {
    found::<false>(Maps::new())
}

/// The same for one that is to go out under the host's address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn settle_masqueraded(skb: *mut __sk_buff) -> u32 {
    found::<true>(Maps::with(skb))
}

/// Opens a conversation under the host's address, or says why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn masquerade_begins(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is the caller's own.
    let ifindex = unsafe { (*skb).ifindex };
    // SAFETY: entries are replaced as a whole and stay readable while the program runs.
    match (unsafe { ENDPOINTS.get(ifindex) }, Maps::with(skb)) {
        (Some(ep), Some(maps)) => begin_masquerade(&maps, ep, ifindex, maps.headers()),
        // Its container went a moment ago: left to the stack.
        _ => 0,
    }
}

#[inline(always)]
fn found<const HOSTS: bool>(maps: Option<Maps>) -> u32 {
    let Some((maps, opening)) = maps.and_then(|maps| Some((maps, maps.scratch()?))) else {
        return 0;
    };
    settle::<Maps, HOSTS>(&maps, &maps.headers().key, opening).into()
}

#[inline(always)]
fn number(decision: Decision) -> u32 {
    let kind = match decision {
        Decision::Pass(_) => PASS,
        Decision::Drop(_) => DROP,
        Decision::Forward(..) => FORWARD,
    };
    decision.verdict() as u32 | kind << 8
}

/// The decision of a number.
#[inline(always)]
pub fn decision(number: u32, maps: &Maps) -> Decision {
    // SAFETY: `number` has put a verdict there.
    let verdict = unsafe { core::mem::transmute::<u32, Verdict>(number & 0xff) };
    match (number >> 8, maps.scratch()) {
        (PASS, _) => Decision::Pass(verdict),
        (FORWARD, Some(opening)) => {
            // SAFETY: a field of a valid object.
            let flow = unsafe { &raw mut (*opening.cast::<Opening>().as_ptr()).forward };
            // SAFETY: no object is at zero.
            Decision::Forward(verdict, unsafe { core::ptr::NonNull::new_unchecked(flow) })
        }
        _ => Decision::Drop(verdict),
    }
}
