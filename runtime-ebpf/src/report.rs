//! Counting verdicts, and telling userspace of drops.

use runtime_common::maps::{Tuple, Zone};
use runtime_common::packet::Headers;
use runtime_common::{Kind, Verdict};

use crate::maps::{CONFIG, COUNTERS, EVENTS, REPORTED};
use crate::tables::now;

/// At most one event per reason, CPU and this many nanoseconds: a flood of drops costs counters only.
const EVENT_INTERVAL: u64 = 10_000_000;

/// Counts a verdict.
#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: this CPU's slot; a program of another context on it can at worst lose one count.
        unsafe { *counter += 1 };
    }
}

/// Whether a drop is to be carried out: not while the loader is still learning what goes on.
#[inline(always)]
pub fn enforcing() -> bool {
    CONFIG.get(0).is_some_and(|c| c.enforce != 0)
}

/// Counts a drop and tells of it.
// With a stack frame of its own: drops are to leave the others' alone.
#[inline(never)]
pub fn dropped(verdict: Verdict, headers: Option<&Headers>, ifindex: u32, zone: Zone) {
    count(verdict);
    debug_assert!(matches!(verdict.kind(), Kind::Drop));
    let Some(last) = REPORTED.get_ptr_mut(verdict as u32) else {
        return;
    };
    let time = now();
    // SAFETY: this CPU's slot, as in `count`.
    unsafe {
        if time - *last < EVENT_INTERVAL {
            return;
        }
        *last = time;
    }
    let Some(mut entry) = EVENTS.reserve(0) else {
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is this run's alone until it is submitted, and every field is written.
    unsafe {
        (*event).time = time;
        (*event).ifindex = ifindex;
        (*event).verdict = verdict as u32;
        (*event).zone = zone as u8;
        (*event).reserved = [0; 2];
        match headers {
            Some(h) => {
                (*event).tuple = h.key.tuple;
                (*event).protocol = h.key.protocol;
            }
            None => {
                (*event).tuple = Tuple::default();
                (*event).protocol = 0;
            }
        }
    }
    entry.submit(0);
}
