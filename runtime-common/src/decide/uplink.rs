//! Packets that come from outside.

use super::addresses::has_loopback;
use super::admit::admit_from_outside;
use super::begin::{begin_published, resume_published};
use super::conntrack::{Found, is_asked, track};
use super::fragment::complete_fragment;
use super::icmp::{About, Origin, quoted_flow};
use super::{Decision, Next, Tables};
use crate::Verdict;
use crate::maps::{ADDRESS_HOST, FLOW_REPLY, FlowAction};
use crate::packet::{Headers, Message, Packet};

/// Decides about a packet that arrives on an uplink; its key is in [`Zone::Uplink`](crate::maps::Zone::Uplink).
#[inline(always)]
pub fn uplink<P: Packet, T: Tables>(p: &P, t: &T, h: &mut Headers) -> Decision {
    if let Some(decision) = uplink_known(p, t, h) {
        return decision;
    }
    let mut step = admit_from_outside(t, h);
    if step.is(Next::Resume) {
        step = resume_published(t, h);
    }
    if step.is(Next::Published) {
        step = begin_published(t, h);
    }
    step.decision(t)
}

/// The stage before admission: what belongs to a flow, and what cannot begin one.
#[inline(always)]
pub fn uplink_known<P: Packet, T: Tables>(p: &P, t: &T, h: &mut Headers) -> Option<Decision> {
    if !complete_fragment(t, h) {
        if has_loopback(h) {
            return Some(Decision::drop(Verdict::Loopback));
        }
        // Its first fragment went to nobody of ours, or has not come: alone it makes no datagram at the host either.
        return Some(match t.address(&h.key.tuple.dst) {
            Some(a) if a.kind != ADDRESS_HOST => Decision::drop(Verdict::Fragment),
            _ => Decision::pass(Verdict::Host),
        });
    }
    if matches!(h.message, Message::IcmpError) {
        return Some(icmp_error(p, t, h));
    }
    let found = if t.maybe_flow(&h.key) { track(t, h) } else { Found::None };
    match found {
        Found::Live(flow) => {
            // SAFETY: entries stay valid while the program runs.
            let (action, state) = unsafe { (flow.as_ref().action, flow.as_ref().state) };
            if action == FlowAction::Stack as u8 && matches!(h.message, Message::TcpOpen) && state & FLOW_REPLY == 0 {
                // What others carried with these ports is over.
                return None;
            }
            Some(if action == FlowAction::Stack as u8 {
                Decision::pass(Verdict::Preexisting)
            } else if action == FlowAction::DeferUntranslated as u8 {
                Decision::pass(Verdict::Deferred)
            } else if h.ttl <= 1 {
                Decision::drop(Verdict::TtlExceeded)
            } else {
                Decision::forward(inward(action), flow)
            })
        }
        // Whoever has the port now answers a segment of an old connection with a reset.
        Found::Ended if matches!(h.message, Message::TcpSegment) && !h.rst() => {
            h.ended = true;
            None
        }
        Found::Ended if !h.message.opens() => Some(Decision::drop(Verdict::FlowEnded)),
        _ => None,
    }
}

/// An error about a published conversation goes to its container, one about a container's own conversation too.
#[inline(always)]
fn icmp_error<P: Packet, T: Tables>(p: &P, t: &T, h: &Headers) -> Decision {
    if has_loopback(h) {
        return Decision::drop(Verdict::Loopback);
    }
    if t.address(&h.key.tuple.src).is_some() {
        return Decision::drop(Verdict::SpoofedLocal);
    }
    let Some(a) = t.address(&h.key.tuple.dst) else {
        return Decision::pass(Verdict::Host);
    };
    let mut about = About::Unknown;
    if a.kind != ADDRESS_HOST {
        return match quoted_flow(p, t, h, Origin::Beyond, &mut about) {
            // What is translated, nobody outside has seen untranslated.
            // SAFETY: entries stay valid while the program runs.
            Some(flow) if unsafe { flow.as_ref() }.action == FlowAction::Stack as u8 => {
                Decision::pass(Verdict::OutboundReply)
            }
            _ => Decision::drop(Verdict::IcmpError),
        };
    }
    match quoted_flow(p, t, h, Origin::Outside, &mut about) {
        Some(flow) => {
            // SAFETY: entries stay valid while the program runs.
            let action = unsafe { flow.as_ref() }.action;
            if action == FlowAction::Stack as u8 || is_asked(action) {
                Decision::pass(Verdict::Host)
            } else if h.ttl <= 1 {
                Decision::drop(Verdict::TtlExceeded)
            } else {
                Decision::forward(inward(action), flow)
            }
        }
        None if about == About::Flow => Decision::drop(Verdict::IcmpError),
        None => Decision::pass(Verdict::Host),
    }
}

/// What sending towards a container is called.
#[inline(always)]
const fn inward(action: u8) -> Verdict {
    if action == FlowAction::Publish as u8 {
        Verdict::Published
    } else if action == FlowAction::Defer as u8 {
        Verdict::Deferred
    } else {
        Verdict::MasqueradedReply
    }
}
