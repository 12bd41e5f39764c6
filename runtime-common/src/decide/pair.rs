//! The two entries of a flow, one for each direction.

use core::ptr::NonNull;

use super::Tables;
use crate::maps::Flow;

/// The entry of a flow's other direction, wherever it is.
#[inline(always)]
pub(super) fn pair_of<T: Tables>(t: &T, flow: &Flow, protocol: u8) -> Option<NonNull<Flow>> {
    let scratch = t.scratch()?;
    // SAFETY: the scratch room belongs to this run of the program alone.
    let key = unsafe { &mut (*scratch.as_ptr()).reply_key };
    *key = flow.pair(protocol);
    t.pending(key).or_else(|| t.answered(key))
}
