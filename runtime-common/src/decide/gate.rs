//! Packets that are about to enter a container from the host's stack or its bridge: the last gate.

use super::conntrack::{Found, netfilter_accepted, track};
use super::fragment::complete_fragment;
use super::icmp::{About, Origin, quoted_flow};
use super::loopback::from_loopback;
use super::{Decision, Tables};
use crate::Verdict;
use crate::maps::{ADDRESS_ENDPOINT, Endpoint, FlowAction};
use crate::packet::{Headers, Message, Packet, is_loopback};

/// Decides about an IP packet on its way into the container `ep`; its key is in [`Zone::Gate`](crate::maps::Zone::Gate).
/// `ingress`: the interface by which it came in; 0 where the host itself made it.
#[inline(always)]
pub fn gate<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &mut Headers, ingress: u32) -> Decision {
    let decision = served(p, t, ep, h, ingress == 0);
    match decision.verdict() {
        // Where it came in there is no program, and nobody has looked whether it is published: what the engine's own rules let
        // through is theirs to answer for.
        Verdict::Fragment | Verdict::IcmpError | Verdict::NotPublished if t.is_unserved(ingress) => {
            Decision::pass(Verdict::Unserved)
        }
        _ => decision,
    }
}

/// As [`gate`], where programs look at everything that comes in.
#[inline(always)]
fn served<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &mut Headers, from_host: bool) -> Decision {
    if from_host && is_loopback(&h.key.tuple.src) {
        return from_loopback(t, ep, h);
    }
    if from_host {
        return Decision::pass(Verdict::FromHost);
    }
    if matches!(h.message, Message::Neighbour) {
        // What a router has sent on is nobody's neighbour's (RFC 4861 §7.1).
        return if h.ttl == 255 { Decision::pass(Verdict::Neighbour) } else { refuse(ep, Verdict::OtherNetwork) };
    }
    if !complete_fragment(t, h) {
        return refuse(ep, Verdict::Fragment);
    }
    if matches!(h.message, Message::IcmpError) {
        // About a packet that the container itself has sent.
        return match quoted_flow(p, t, h, Origin::Beyond, &mut About::Unknown) {
            Some(_) => Decision::pass(Verdict::OutboundReply),
            None => refuse(ep, Verdict::IcmpError),
        };
    }
    if let Found::Live(flow) = track(t, h) {
        // SAFETY: entries stay valid while the program runs.
        let flow = unsafe { flow.as_ref() };
        if flow.action != FlowAction::Defer as u8 {
            return Decision::pass(Verdict::OutboundReply);
        }
        netfilter_accepted(t, h, flow);
        return Decision::pass(Verdict::Published);
    }
    match t.address(&h.key.tuple.src) {
        Some(a) if a.kind == ADDRESS_ENDPOINT => {
            if !ep.is_isolated() && !a.is_isolated() {
                Decision::pass(Verdict::Network)
            } else if a.bridge != ep.bridge {
                Decision::drop(Verdict::OtherNetwork)
            } else {
                Decision::drop(Verdict::NotLinked)
            }
        }
        _ => refuse(ep, Verdict::NotPublished),
    }
}

/// Whether a frame on its way into the container `ep` comes from a stranger: over the bridge, by an interface that the daemon has not
/// told of, where there may be no program that looks at what it sends. `ingress` as for [`gate`].
#[inline(always)]
pub fn is_strangers<T: Tables>(t: &T, ep: &Endpoint, ingress: u32, bridged: bool) -> bool {
    bridged
        && ingress != 0
        && ep.is_isolated()
        && t.endpoint(ingress).is_none()
        && !t.is_uplink(ingress)
        && !t.is_unserved(ingress)
}

/// What only isolation refuses.
#[inline(always)]
fn refuse(ep: &Endpoint, v: Verdict) -> Decision {
    if ep.is_isolated() { Decision::drop(v) } else { Decision::pass(Verdict::Network) }
}
