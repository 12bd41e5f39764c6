//! TCP: what only a SYN says.

use super::headers::{Headers, NO_WINDOW_SCALE};
use super::window::Packet;
use crate::maps::MAX_WINDOW_SCALE;

/// Option kinds (RFC 9293 §3.1, RFC 7323 §2.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;

/// The most options that are read: what stacks send of them in a SYN are eight, padding included.
const MAX_OPTIONS: usize = 10;
/// A bound for the kernel's verifier on where an option can be, in bytes.
const MAX_OFFSET: usize = 0x1ff;

/// Reads the window scale of a SYN whose headers are `headers` bytes long, from the start of the packet.
// Once a connection: with a stack frame of its own.
#[inline(never)]
pub(super) fn tcp_options<P: Packet>(p: &P, h: &mut Headers, headers: u32) {
    h.window_scale = NO_WINDOW_SCALE;
    h.option = h.l4 + 20;
    for _ in 0..MAX_OPTIONS {
        // SAFETY: a plain field. Volatile: read back from there it is the same to the kernel's verifier in every round.
        let at = unsafe { core::ptr::read_volatile(&raw const h.option) };
        if at + 3 > headers {
            return;
        }
        let Some(w) = p.window::<3>(at as usize & MAX_OFFSET) else {
            return;
        };
        let (kind, len) = (w.u8(0), w.u8(1));
        if kind == NO_OPERATION {
            h.option = at + 1;
            continue;
        }
        if kind == WINDOW_SCALE && len == 3 {
            // More is taken for the most (RFC 7323 §2.3).
            let scale = w.u8(2);
            h.window_scale = if scale > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { scale };
            return;
        }
        if kind == END || len < 2 {
            return;
        }
        h.option = at + u32::from(len);
    }
}
