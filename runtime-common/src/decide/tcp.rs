//! Connection tracking of TCP: whose word counts about the end of a connection.
//!
//! Of each direction three numbers are kept, in its own entry, so that a data segment looks up and writes no other one: the highest
//! acknowledgement, the end of the last segment, and the largest window offered. That is less than netfilter's `tcp_in_window`
//! keeps, and enough, because nothing is dropped by it. Segments out of the window go on to the end that they are for, which
//! judges them better (RFC 9293 §3.10.7.4, RFC 5961), and Docker's own rules would only leave them untranslated. What the window
//! decides is what changes the *state* of a flow:
//!
//! - A reset counts at the number that its receiver expects next, or behind its sender's last segment within the window: where
//!   Linux' stack takes it (with SACK, behind the highest that it has). To any other one in the window a stack answers by a
//!   challenge ACK, and the flow stays established.
//! - A FIN counts within the window, with an acknowledgement that its sender can have sent.
//! - A SYN says nothing before it is answered, and its answer only where it acknowledges just that SYN: the same ports are used
//!   again.
//! - An acknowledgement counts up to the window that its own sender has offered: more than that nobody has sent him. Beyond, it has
//!   to be of the very last segment of the other side, which somebody who guesses does not know. Of a segment with any other one
//!   nothing is remembered.
//!
//! Of a connection whose SYN was not seen (it is older than the datapath, or one of its entries was lost) the factor of the windows is
//! not known: the largest is taken. Who was never heard has taken no end of the other side either.
//!
//! States, for their timeouts: established; `FLOW_FIN` in one direction (half-closed) or in both (closed but for what may still be
//! in flight); `FLOW_RST` in any (closed).

use super::Tables;
use super::pair::pair_of;
use crate::maps::{FLOW_ANSWERED, FLOW_FIN, FLOW_RST, FLOW_SYN, Flow, MAX_WINDOW_SCALE};
use crate::packet::{Headers, Message, NO_WINDOW_SCALE};

/// Follows a segment of a flow in its state.
#[inline(always)]
pub(super) fn track_segment<T: Tables>(t: &T, flow: &mut Flow, h: &Headers) {
    if h.flags == 0 {
        let _ = track_numbers(t, flow, h);
    } else {
        track_flags(t, flow, h);
    }
}

/// Follows the numbers of a segment with neither SYN nor RST. False where its sender cannot have sent it: what it acknowledges is nothing
/// that its receiver may have sent (RFC 5961 §5). Nothing of such a segment counts, or else it would prepare the way for a reset.
#[inline(always)]
fn track_numbers<T: Tables>(t: &T, flow: &mut Flow, h: &Headers) -> bool {
    let window = u32::from(h.window).wrapping_shl(flow.window_scale.into());
    if flow.window == 0 && flow.ack == 0 && window != 0 {
        flow.ack = h.ack;
        flow.window = window;
    }
    let ahead = h.ack.wrapping_sub(flow.ack);
    if ahead != 0 {
        if ahead <= flow.window {
            flow.ack = h.ack;
        } else if !acknowledges_else(t, flow, h) {
            return false;
        }
    }
    if window > flow.window {
        flow.window = window;
    }
    flow.end = h.end;
    true
}

/// Whether an acknowledgement that is not within the window ahead can be its sender's: an old one, or one of the other side's last segment.
/// Of a side whose SYN was not seen it is taken at any rate, for what stands in the entry may have been forged before it was heard.
// Rare: with a stack frame of its own.
#[inline(never)]
fn acknowledges_else<T: Tables>(t: &T, flow: &mut Flow, h: &Headers) -> bool {
    if flow.ack.wrapping_sub(h.ack) <= flow.window {
        return true;
    }
    if let Some(pair) = pair_of(t, flow, h.key.protocol) {
        // SAFETY: entries stay valid while the program runs.
        if unsafe { pair.as_ref() }.end == h.ack {
            flow.ack = h.ack;
            return true;
        }
    }
    flow.state & FLOW_SYN == 0
}

// Rare: with a stack frame of its own.
#[inline(never)]
fn track_flags<T: Tables>(t: &T, flow: &mut Flow, h: &Headers) {
    let Some(pair) = pair_of(t, flow, h.key.protocol) else {
        return;
    };
    // SAFETY: entries stay valid while the program runs; racing CPUs lose what the other one has written, and only that.
    let pair = unsafe { &mut *pair.as_ptr() };
    if h.syn() {
        if matches!(h.message, Message::TcpOpen) {
            open(flow, pair, h);
        } else {
            synchronize(flow, pair, h);
        }
    } else if h.rst() {
        if resets(flow, pair, h) {
            flow.state |= FLOW_RST;
        }
    } else {
        let end = h.end.wrapping_add(1);
        if pair.window == 0 || end.wrapping_sub(pair.ack) > pair.window {
            return;
        }
        if track_numbers(t, flow, h) {
            flow.state |= FLOW_FIN;
            flow.end = end;
        }
    }
}

/// A SYN: nothing more than an attempt, as long as the connection stands.
#[inline(always)]
fn open(flow: &mut Flow, pair: &mut Flow, h: &Headers) {
    flow.state |= FLOW_SYN;
    flow.end = h.seq.wrapping_add(1);
    if flow.state & FLOW_ANSWERED == 0 {
        flow.window_scale = scale(h);
        pair.ack = h.seq;
        pair.window = 0;
    }
}

/// An answer to a SYN.
#[inline(always)]
fn synchronize(flow: &mut Flow, pair: &mut Flow, h: &Headers) {
    let end = h.seq.wrapping_add(1);
    let again = flow.state & FLOW_ANSWERED != 0 && flow.end == end;
    if !acknowledges_syn(pair, h) || again {
        return;
    }
    if flow.state & FLOW_ANSWERED != 0 {
        // A new connection of the same ports. Nobody has kept the factor that its SYN had.
        flow.state &= !(FLOW_FIN | FLOW_RST);
        pair.state &= !(FLOW_FIN | FLOW_RST);
        pair.window_scale = MAX_WINDOW_SCALE;
    }
    if h.window_scale == NO_WINDOW_SCALE {
        pair.window_scale = 0;
    }
    flow.state |= FLOW_SYN;
    flow.window_scale = scale(h);
    flow.ack = h.ack;
    flow.end = end;
    // Heard, if only just: what it has offered is not multiplied yet.
    flow.window = u32::from(h.window) | u32::from(h.window == 0);
    pair.ack = h.seq;
    pair.window = 1;
}

/// Whether a segment acknowledges the SYN that the other side has just sent, with or without what data it carried (RFC 7413).
#[inline(always)]
fn acknowledges_syn(pair: &Flow, h: &Headers) -> bool {
    pair.state & FLOW_SYN != 0 && h.ack.wrapping_sub(pair.end) <= 0xffff
}

/// Whether the end that a reset is for takes it.
#[inline(always)]
fn resets(flow: &Flow, pair: &Flow, h: &Headers) -> bool {
    if pair.window == 0 {
        // It has sent no more than a SYN: the reset has to acknowledge that (RFC 9293 §3.10.7.3).
        return acknowledges_syn(pair, h);
    }
    let ahead = h.seq.wrapping_sub(pair.ack);
    ahead == 0
        || h.seq == flow.end && ahead <= pair.window
        // After a FIN that was taken, also in its place.
        || ahead == u32::MAX && flow.state & FLOW_FIN != 0
}

/// Begins both directions with the first packet of a flow.
#[inline(always)]
pub(super) fn begin(forward: &mut Flow, reply: &mut Flow, h: &Headers) {
    reply.window_scale = MAX_WINDOW_SCALE;
    reply.window = 0;
    // No more than it can have acknowledged, and what it is to send.
    reply.ack = h.seq;
    reply.end = h.ack;
    forward.window_scale = MAX_WINDOW_SCALE;
    forward.window = 0;
    forward.ack = h.ack;
    forward.end = h.end;
    if h.syn() {
        forward.ack = 0;
        forward.state |= FLOW_SYN;
        forward.window_scale = scale(h);
        forward.end = h.seq.wrapping_add(1);
    } else {
        forward.window = u32::from(h.window) << MAX_WINDOW_SCALE | 1;
    }
}

/// The factor of the windows of a SYN's sender.
#[inline(always)]
fn scale(h: &Headers) -> u8 {
    if h.window_scale == NO_WINDOW_SCALE { 0 } else { h.window_scale }
}

/// Whether a segment with that sequence number can be on the way to the side whose entry this is: within what it has not acknowledged.
/// Of a side that was not heard since the loader found the connection nothing is known; the sender's own stack looks then.
#[inline(always)]
pub(super) fn is_in_flight(receiver: &Flow, seq: u32) -> bool {
    let unknown = receiver.window == 0 && receiver.ack == 0;
    unknown || seq.wrapping_sub(receiver.ack) <= receiver.window
}
