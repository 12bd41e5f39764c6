//! Packets that come from outside.

use super::flow::{Found, complete_fragment, follow, is_asked, quoted_flow};
use super::publication::to_host;
use super::{Decision, Tables};
use crate::Verdict;
use crate::maps::{ADDRESS_HOST, FlowAction, Zone};
use crate::packet::{Headers, Message, Packet, is_loopback};

/// Decides about a packet that arrives on an uplink; its key is in [`Zone::Uplink`].
#[inline(always)]
pub fn uplink<P: Packet, T: Tables>(p: &P, t: &T, h: &mut Headers) -> Decision {
    uplink_known(p, t, h).unwrap_or_else(|| uplink_new(t, h))
}

/// The first half of [`uplink`]: what belongs to a flow, and what cannot begin one.
#[inline(always)]
pub fn uplink_known<P: Packet, T: Tables>(p: &P, t: &T, h: &mut Headers) -> Option<Decision> {
    if !complete_fragment(t, h) {
        if has_loopback(h) {
            return Some(Decision::Drop(Verdict::Loopback));
        }
        // Its first fragment went to nobody of ours, or has not come: alone it makes no datagram at the host either.
        return Some(match t.address(&h.key.tuple.dst) {
            Some(a) if a.kind != ADDRESS_HOST => Decision::Drop(Verdict::Fragment),
            _ => Decision::Pass(Verdict::Host),
        });
    }
    if matches!(h.message, Message::IcmpError) {
        return Some(icmp_error(p, t, h));
    }
    match follow(t, h) {
        Found::Live(flow) => {
            // SAFETY: entries stay valid while the program runs.
            let action = unsafe { flow.as_ref() }.action;
            Some(if action == FlowAction::Stack as u8 {
                Decision::Pass(Verdict::Carried)
            } else if action == FlowAction::AskUnchanged as u8 {
                Decision::Pass(Verdict::Asked)
            } else if h.ttl <= 1 {
                Decision::Drop(Verdict::TtlExceeded)
            } else {
                Decision::Forward(inward(action), flow)
            })
        }
        Found::Ended if !h.message.opens() => Some(Decision::Drop(Verdict::FlowEnded)),
        _ => None,
    }
}

/// The second half: what belongs to no flow. A flow that it sends a packet by is the one in [`Tables::scratch`].
#[inline(always)]
pub fn uplink_new<T: Tables>(t: &T, h: &mut Headers) -> Decision {
    // No flow has such an address: what belongs to one needs no look at that.
    if has_loopback(h) {
        return Decision::Drop(Verdict::Loopback);
    }
    let (src, dst) = (&h.key.tuple.src, &h.key.tuple.dst);
    if t.may_be_ours(src) && t.address(src).is_some() {
        return Decision::Drop(Verdict::SpoofedLocal);
    }
    // Most of what is for the host itself needs no more than that.
    if !t.may_be_endpoint(dst) && !t.may_publish(h.key.tuple.dport, h.key.protocol) {
        return Decision::Pass(Verdict::Host);
    }
    match t.address(dst) {
        None => Decision::Pass(Verdict::Host),
        Some(a) if a.kind == ADDRESS_HOST => to_host(t, h, None),
        Some(_) => {
            h.key.zone = Zone::Gate as u8;
            match follow(t, h) {
                Found::Live(_) => Decision::Pass(Verdict::OutboundReply),
                _ => Decision::Drop(Verdict::NotPublished),
            }
        }
    }
}

#[inline(always)]
fn has_loopback(h: &Headers) -> bool {
    is_loopback(&h.key.tuple.src) || is_loopback(&h.key.tuple.dst)
}

/// An error about a published conversation goes to its container, one about a container's own conversation too.
#[inline(always)]
fn icmp_error<P: Packet, T: Tables>(p: &P, t: &T, h: &Headers) -> Decision {
    if has_loopback(h) {
        return Decision::Drop(Verdict::Loopback);
    }
    if t.address(&h.key.tuple.src).is_some() {
        return Decision::Drop(Verdict::SpoofedLocal);
    }
    let Some(a) = t.address(&h.key.tuple.dst) else {
        return Decision::Pass(Verdict::Host);
    };
    if a.kind != ADDRESS_HOST {
        return match quoted_flow(p, t, h, Zone::Endpoint, false) {
            Some(_) => Decision::Pass(Verdict::OutboundReply),
            None => Decision::Drop(Verdict::IcmpError),
        };
    }
    match quoted_flow(p, t, h, Zone::Uplink, true) {
        Some(flow) => {
            // SAFETY: entries stay valid while the program runs.
            let action = unsafe { flow.as_ref() }.action;
            if action == FlowAction::Stack as u8 || is_asked(action) {
                Decision::Pass(Verdict::Host)
            } else if h.ttl <= 1 {
                Decision::Drop(Verdict::TtlExceeded)
            } else {
                Decision::Forward(inward(action), flow)
            }
        }
        None => Decision::Pass(Verdict::Host),
    }
}

/// What sending towards a container is called.
#[inline(always)]
const fn inward(action: u8) -> Verdict {
    if action == FlowAction::Publish as u8 {
        Verdict::Published
    } else if action == FlowAction::Ask as u8 {
        Verdict::Asked
    } else {
        Verdict::MasqueradedReply
    }
}
