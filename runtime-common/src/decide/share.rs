//! Shares of `FLOWS`: however many conversations somebody has, room for others' is left.
//!
//! Nobody has a fixed number. A publication (or a link, or a container by what it begins itself), a container by what leads to it,
//! and a source may each hold a multiple of what is still free: alone, that is most of the table; of many that press, each has
//! less, and something is always free. What is over its share is not refused as long as it can be forgotten instead: it stays
//! in `PENDING`, where the oldest make room. A TCP connection that cannot be more than that is refused at its SYN.

use core::ptr::NonNull;

use super::Tables;
use crate::Addr;
use crate::maps::{FLOW_COUNTED, FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow, FlowKey, Holder};

/// How many times what is free a rule may hold: four fifths of the table where it is alone.
const RULE: u64 = 4;
/// The same of a container, by what leads to it under all of its rules: eight ninths.
const CONTAINER: u64 = 8;
/// The same of a source, by what it begins under all rules: behind one address there may be a whole provider's clients.
const SOURCE: u64 = 8;

/// Whether one more conversation from `src` by this forward entry is within all shares.
// Once or twice a conversation: with a stack frame of its own.
#[inline(never)]
pub(super) fn is_within_shares<T: Tables>(t: &T, src: &Addr, forward: &Flow) -> bool {
    let free = t.room().saturating_sub(read(t.held()));
    if read(t.held_by_rule(forward.rule)) >= RULE * free {
        return false;
    }
    if forward.ifindex != 0 && read(t.held_by(&Holder::container(forward.ifindex))) >= CONTAINER * free {
        return false;
    }
    read(t.held_by(&Holder::source(src, forward.from_ifindex))) < SOURCE * free
}

/// Counts a conversation that has a key in `PENDING`, where all shares allow it. Also true of a further way for the answers of one that
/// is counted already, and stands: it goes where that is.
#[inline(always)]
pub fn hold<T: Tables>(t: &T, key: &FlowKey) -> bool {
    let Some(flow) = t.pending(key) else {
        return false;
    };
    // SAFETY: entries stay valid while the program runs; bits may race and only that.
    let flow = unsafe { &mut *flow.as_ptr() };
    let Some(scratch) = t.scratch() else {
        return false;
    };
    // SAFETY: the scratch room belongs to this run of the program alone, and keys take room on the stack.
    let pair_key = unsafe { &mut (*scratch.as_ptr()).reply_key };
    *pair_key = flow.pair(key.protocol);
    let Some(pair) = t.pending(pair_key) else {
        return flow.state & FLOW_REPLY != 0 && t.answered(pair_key).is_some();
    };
    // SAFETY: as above.
    let pair = unsafe { &mut *pair.as_ptr() };
    let (src, forward) = if flow.state & FLOW_REPLY == 0 { (key.tuple.src, &*flow) } else { (flow.to.dst, &*pair) };
    if !is_within_shares(t, &src, forward) {
        return false;
    }
    add(t.held(), 1);
    add(t.held_by_rule(forward.rule), 1);
    if forward.ifindex != 0 {
        count(t, &Holder::container(forward.ifindex));
    }
    count(t, &Holder::source(&src, forward.from_ifindex));
    flow.state |= FLOW_COUNTED;
    pair.state |= FLOW_COUNTED;
    true
}

#[inline(always)]
fn count<T: Tables>(t: &T, holder: &Holder) {
    match t.held_by(holder) {
        None => t.begin_holding(holder),
        known => add(known, 1),
    }
}

/// Counts a connection no more that both sides have closed, or one has reset, and notes that its entries may make room: of the
/// one that has a key in `FLOWS`.
#[inline(always)]
pub fn release_closed<T: Tables>(t: &T, key: &FlowKey) {
    let Some(flow) = t.answered(key) else {
        return;
    };
    // SAFETY: as in `hold`.
    let flow = unsafe { &mut *flow.as_ptr() };
    let pair_key = flow.pair(key.protocol);
    let Some(pair) = t.answered(&pair_key) else {
        return;
    };
    // SAFETY: as above.
    let pair = unsafe { &mut *pair.as_ptr() };
    if flow.state & FLOW_COUNTED == 0 || !is_closed(flow, pair) {
        return;
    }
    flow.state &= !FLOW_COUNTED;
    pair.state &= !FLOW_COUNTED;
    let is_reply = flow.state & FLOW_REPLY != 0;
    let (src, forward) = if is_reply { (flow.to.dst, &*pair) } else { (key.tuple.src, &*flow) };
    let less = u64::MAX;
    add(t.held(), less);
    add(t.held_by_rule(forward.rule), less);
    if forward.ifindex != 0 {
        add(t.held_by(&Holder::container(forward.ifindex)), less);
    }
    add(t.held_by(&Holder::source(&src, forward.from_ifindex)), less);
    t.note_closed(if is_reply { &pair_key } else { key });
}

/// Takes entries of a closed connection away, the oldest first. False where none is known.
#[inline(always)]
pub fn make_room<T: Tables>(t: &T) -> bool {
    /// Of those that were noted, some may have been opened anew meanwhile, or collected.
    const ATTEMPTS: usize = 4;
    for _ in 0..ATTEMPTS {
        let Some(key) = t.next_closed() else {
            return false;
        };
        if let Some(flow) = t.answered(&key) {
            // SAFETY: entries stay valid while the program runs.
            let flow = unsafe { flow.as_ref() };
            let pair_key = flow.pair(key.protocol);
            // SAFETY: as above.
            let pair = t.answered(&pair_key).map(|pair| unsafe { pair.as_ref() });
            // Under another rule, another conversation may have the answers' key meanwhile. As in `source_port`: keys take room on the stack.
            let own = pair.filter(|pair| {
                let (to, tuple) = (&pair.to, &key.tuple);
                pair.generation == flow.generation
                    && pair.pair_zone == key.zone
                    && to.sport == tuple.dport
                    && to.dport == tuple.sport
                    && to.src == tuple.dst
                    && to.dst == tuple.src
            });
            if own.map_or(flow.state & (FLOW_FIN | FLOW_RST) != 0, |pair| is_closed(flow, pair)) {
                if own.is_some() {
                    t.forget(&pair_key);
                }
                t.forget(&key);
                return true;
            }
        }
    }
    false
}

/// Whether nothing is to be said any more in a TCP connection.
#[inline(always)]
pub(super) fn is_closed(flow: &Flow, pair: &Flow) -> bool {
    (flow.state | pair.state) & FLOW_RST != 0 || flow.state & pair.state & FLOW_FIN != 0
}

#[inline(always)]
fn read(count: Option<NonNull<u64>>) -> u64 {
    // Entries that were counted twice or never can make it less than nothing.
    // SAFETY: entries stay valid while the program runs.
    count.map_or(0, |count| unsafe { *count.as_ptr() }.cast_signed().max(0).cast_unsigned())
}

#[inline(always)]
fn add(count: Option<NonNull<u64>>, n: u64) {
    if let Some(count) = count {
        // SAFETY: as above; processors that race lose counts, and only that: the daemon counts anew.
        let count = unsafe { &mut *count.as_ptr() };
        *count = count.wrapping_add(n);
    }
}
