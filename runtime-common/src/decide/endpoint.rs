//! Packets that a container sends.

use super::addresses::is_elsewhere;
use super::admit::{admit_from_container, is_hosts};
use super::begin::{begin_masqueraded, begin_published, begin_untranslated, prepare_masqueraded, resume_published};
use super::conntrack::{Found, account, established, track};
use super::fragment::complete_fragment;
use super::icmp::{About, Origin, quoted_flow};
use super::masquerade::moved;
use super::neighbour::{check_neighbour, check_unrouted_source};
use super::{Decision, Next, Tables};
use crate::maps::{ADDRESS_HOST, Endpoint, FLOW_RST, Flow, FlowAction, PREFIX_ISOLATED};
use crate::packet::{
    ETH_LEN, Headers, IGMP, Mac, Message, PIM, Packet, hides_ports, is_link_local, is_loopback, is_multicast,
};
use crate::{Addr, Verdict};

/// Decides about an IP packet from the container with the MAC address `mac` behind `ifindex`, where an answered conversation
/// has them both: whether the container may have them, and everything else that [`endpoint`] looks at, was looked at when it
/// began. `None` for all others, and for what may close a connection.
#[inline(always)]
pub fn endpoint_known<T: Tables>(t: &T, ifindex: u32, mac: Mac, h: &Headers) -> Option<Decision> {
    if !matches!(h.message, Message::TcpSegment | Message::Datagram) || h.flags != 0 || h.first_fragment {
        return None;
    }
    let flow = established(t, h, ifindex, mac)?;
    // SAFETY: entries stay valid while the program runs; counters may race and only that.
    let f = unsafe { &mut *flow.as_ptr() };
    if f.action == FlowAction::Masquerade as u8 && moved(t, f) {
        return None;
    }
    account(t, f, h);
    Some(forward(h, f.action, flow))
}

/// Decides about an IP packet from the container `ep` behind `ifindex`; its key is in [`Zone::Endpoint`](crate::maps::Zone::Endpoint).
#[inline(always)]
pub fn endpoint<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, ifindex: u32, h: &mut Headers) -> Decision {
    if let Some(decision) = track_from_container(p, t, ep, h) {
        return decision;
    }
    let mut step = admit_from_container(t, ep, ifindex, h);
    if step.is(Next::Resume) {
        step = resume_published(t, h);
    }
    if step.is(Next::Masqueraded) {
        step = prepare_masqueraded(t, ep, ifindex, h);
    }
    if step.is(Next::Untranslated) {
        step = begin_untranslated(t, ep, ifindex, h);
    }
    if step.is(Next::Masqueraded) {
        step = begin_masqueraded(t, h);
    }
    if step.is(Next::Published) {
        step = begin_published(t, h);
    }
    step.decision(t)
}

/// What a packet from the container `ep` is as long as nothing begins: one with a source that is not its own, part of a flow, or
/// an error about one. `None` where it belongs to no flow.
#[inline(always)]
pub fn track_from_container<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &mut Headers) -> Option<Decision> {
    let checked = if ep.is_isolated() { check_isolated(p, t, ep, h) } else { check_open(t, ep, h) };
    if checked.is_some() {
        return checked;
    }
    if !complete_fragment(t, h) {
        return Some(if ep.is_isolated() {
            Decision::drop(Verdict::Fragment)
        } else {
            Decision::pass(Verdict::Network)
        });
    }
    if matches!(h.message, Message::IcmpError) {
        return Some(icmp_error(p, t, ep, h));
    }
    match track(t, h) {
        Found::Live(flow) => {
            // SAFETY: entries stay valid while the program runs.
            let f = unsafe { flow.as_ref() };
            if f.action != FlowAction::Masquerade as u8 || !moved(t, f) {
                return Some(forward(h, f.action, flow));
            }
            if !h.message.opens() {
                return Some(Decision::drop(Verdict::FlowEnded));
            }
        }
        Found::Ended if !h.message.opens() => return Some(allows_final_reset(p, t, h)),
        _ => {}
    }
    None
}

/// What isolation refuses of a container, or lets through without tracking.
#[inline(always)]
fn check_isolated<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &Headers) -> Option<Decision> {
    if matches!(h.message, Message::Neighbour | Message::Router)
        && let Err(v) = check_neighbour(p, t, ep, h)
    {
        return Some(Decision::drop(v));
    }
    if let Some(decision) = source_check(t, ep, h) {
        return Some(decision);
    }
    if is_loopback(&h.key.tuple.dst) {
        return Some(Decision::drop(Verdict::Loopback));
    }
    if matches!(h.message, Message::Extended) {
        // A neighbour advertisement could hide behind them, and what is behind an authentication header cannot be translated.
        return Some(Decision::drop(Verdict::ProtocolUnsupported));
    }
    if matches!(h.message, Message::LaterFragment) && matches!(h.key.protocol, IGMP | PIM) {
        // A bridge takes what is in there for a message of its own.
        return Some(Decision::drop(Verdict::Fragment));
    }
    is_multicast(&h.key.tuple.dst).then_some(Decision::pass(Verdict::Multicast))
}

/// Where nothing is isolated, a container may be a router, have more addresses than the engine knows of, and speak any protocol:
/// what is not its own address's own unicast is left to the bridge and the stack. Towards isolated networks that helps nobody,
/// and filters of published ports are asked all the same.
#[inline(always)]
fn check_open<T: Tables>(t: &T, ep: &Endpoint, h: &Headers) -> Option<Decision> {
    let (src, dst) = (&h.key.tuple.src, &h.key.tuple.dst);
    if is_loopback(dst) {
        return Some(Decision::drop(Verdict::Loopback));
    }
    if is_multicast(dst) {
        return Some(Decision::pass(Verdict::Multicast));
    }
    if hides_ports(h) && is_hosts(t, dst) {
        return Some(Decision::drop(Verdict::ProtocolUnsupported));
    }
    let untracked = matches!(h.message, Message::Neighbour | Message::Router | Message::Extended);
    if !untracked && (src == ep.own(h.v4) || is_elsewhere(t, ep.container, src)) {
        return None;
    }
    match t.address(dst) {
        Some(a) if a.is_isolated() => Some(Decision::drop(Verdict::OtherNetwork)),
        Some(a) if a.kind == ADDRESS_HOST && !untracked => None,
        None if t.prefix(dst) == PREFIX_ISOLATED => Some(Decision::drop(Verdict::UnknownEndpoint)),
        _ => Some(Decision::pass(Verdict::Network)),
    }
}

/// When a rule ends, the daemon closes the containers' ends of its connections, and the kernel tells the other ends by a
/// RST each. That alone still goes through an ended flow: once, and without data.
// Rare: with a stack frame of its own.
#[inline(never)]
fn allows_final_reset<P: Packet, T: Tables>(p: &P, t: &T, h: &Headers) -> Decision {
    let ended = Decision::drop(Verdict::FlowEnded);
    if !h.rst() || !matches!(h.message, Message::TcpSegment) || h.first_fragment {
        return ended;
    }
    let Some(tcp) = p.window::<14>(h.l4()) else {
        return ended;
    };
    let headers = h.l4 - ETH_LEN as u32 + ((tcp.u8(12) >> 4) as u32) * 4;
    let Some(found) = t.answered(&h.key).or_else(|| t.pending(&h.key)) else {
        return ended;
    };
    // SAFETY: entries stay valid while the program runs.
    let flow = unsafe { &mut *found.as_ptr() };
    if h.bytes != headers || flow.state & FLOW_RST != 0 {
        return ended;
    }
    flow.state |= FLOW_RST;
    flow.last_seen = t.now();
    forward(h, flow.action, found)
}

/// An error goes the way of the conversation that it is about; others may tell the host alone.
#[inline(always)]
fn icmp_error<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &Headers) -> Decision {
    let mut about = About::Unknown;
    let src = &h.key.tuple.src;
    if (src == ep.own(h.v4) || is_elsewhere(t, ep.container, src))
        && let Some(flow) = quoted_flow(p, t, h, Origin::Container, &mut about)
    {
        // SAFETY: entries stay valid while the program runs.
        return forward(h, unsafe { flow.as_ref() }.action, flow);
    }
    match t.address(&h.key.tuple.dst) {
        Some(a) if a.kind == ADDRESS_HOST && (about != About::Flow || !ep.is_isolated()) => {
            Decision::pass(Verdict::Host)
        }
        Some(a) if a.is_isolated() => Decision::drop(Verdict::IcmpError),
        _ if !ep.is_isolated() => Decision::pass(Verdict::Network),
        _ => Decision::drop(Verdict::IcmpError),
    }
}

/// The source address must be the container's own.
#[inline(always)]
fn source_check<T: Tables>(t: &T, ep: &Endpoint, h: &Headers) -> Option<Decision> {
    let own = ep.own(h.v4);
    if h.key.tuple.src == *own && *own != Addr::ANY_V6 {
        return None;
    }
    if !h.v4 && (h.key.tuple.src == Addr::ANY_V6 || is_link_local(&h.key.tuple.src)) {
        return Some(Decision::pass(check_unrouted_source(ep, h)));
    }
    (!is_elsewhere(t, ep.container, &h.key.tuple.src)).then_some(Decision::drop(Verdict::SpoofedAddress))
}

#[inline(always)]
fn forward(h: &Headers, action: u8, flow: core::ptr::NonNull<Flow>) -> Decision {
    const PUBLISH: u8 = FlowAction::Publish as u8;
    const REPLY_OUT: u8 = FlowAction::ReplyOut as u8;
    const REPLY_LOCAL: u8 = FlowAction::ReplyLocal as u8;
    const TO_LOOPBACK: u8 = FlowAction::ToLoopback as u8;
    const LINK: u8 = FlowAction::Link as u8;
    const LINK_REPLY: u8 = FlowAction::LinkReply as u8;
    const MASQUERADE: u8 = FlowAction::Masquerade as u8;
    const DEFER: u8 = FlowAction::Defer as u8;
    const DEFER_UNTRANSLATED: u8 = FlowAction::DeferUntranslated as u8;
    match action {
        LINK => Decision::forward(Verdict::Linked, flow),
        LINK_REPLY => Decision::forward(Verdict::LinkedReply, flow),
        PUBLISH | REPLY_OUT | REPLY_LOCAL | MASQUERADE | DEFER if h.ttl <= 1 => Decision::drop(Verdict::TtlExceeded),
        PUBLISH => Decision::forward(Verdict::Published, flow),
        REPLY_OUT | REPLY_LOCAL => Decision::forward(Verdict::PublishedReply, flow),
        TO_LOOPBACK => Decision::forward(Verdict::PublishedReply, flow),
        MASQUERADE => Decision::forward(Verdict::Masqueraded, flow),
        DEFER => Decision::forward(Verdict::Deferred, flow),
        DEFER_UNTRANSLATED => Decision::pass(Verdict::Deferred),
        _ => Decision::pass(Verdict::Outbound),
    }
}
