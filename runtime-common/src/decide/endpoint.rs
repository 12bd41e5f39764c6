//! Packets that a container sends.

use super::flow::{Found, Target, complete_fragment, established, follow, open, prepare, quoted_flow, touch};
use super::masquerade::{expect, masquerade, moved};
use super::publication::to_host;
use super::{Decision, Tables};
use crate::maps::{
    ADDRESS_HOST, ALL_PROTOCOLS, Address, ENDPOINT_ISOLATED, Endpoint, FLOW_RST, Flow, FlowAction, Link, LinkKey, Zone,
};
use crate::packet::{
    ETH_LEN, Headers, Mac, Message, Packet, SCTP, TCP, UDP, arp_sender, is_link_local, is_loopback, is_multicast,
    neighbour_target,
};
use crate::{Addr, Verdict};

/// Decides about ARP from a container: its own addresses only.
#[inline(always)]
pub fn arp<P: Packet>(p: &P, ep: &Endpoint) -> Decision {
    match arp_sender(p) {
        Err(v) => Decision::Drop(v),
        Ok((mac, _)) if mac != Mac::new(ep.mac) => Decision::Drop(Verdict::SpoofedMac),
        // A probe before an address is used has none (RFC 5227).
        Ok((_, addr)) if addr != ep.ipv4.v4_as_word() && addr != 0 => Decision::Drop(Verdict::SpoofedAddress),
        Ok(_) => Decision::Pass(Verdict::Neighbour),
    }
}

/// Decides about an IP packet from the container with the MAC address `mac` behind `ifindex`, where an answered conversation
/// has them both: whether the container may have them, and everything else that [`endpoint`] looks at, was looked at when it
/// began. `None` for all others.
#[inline(always)]
pub fn endpoint_known<T: Tables>(t: &T, ifindex: u32, mac: Mac, h: &Headers) -> Option<Decision> {
    if !matches!(h.message, Message::TcpSegment | Message::Datagram) || h.syn || h.first_fragment {
        return None;
    }
    let flow = established(t, h, ifindex, mac)?;
    // SAFETY: entries stay valid while the program runs; counters may race and only that.
    let f = unsafe { &mut *flow.as_ptr() };
    if f.action == FlowAction::Masquerade as u8 && moved(t, f) {
        return None;
    }
    touch(t, f, h);
    Some(forward(h, f.action, flow))
}

/// Decides about an IP packet from the container `ep` behind `ifindex`; its key is in [`Zone::Endpoint`].
#[inline(always)]
pub fn endpoint<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, ifindex: u32, h: &mut Headers) -> Decision {
    if matches!(h.message, Message::Neighbour | Message::Router)
        && let Err(v) = neighbour(p, t, ep, h)
    {
        return Decision::Drop(v);
    }
    if let Some(decision) = source_check(ep, h) {
        return decision;
    }
    if is_loopback(&h.key.tuple.dst) {
        return Decision::Drop(Verdict::Loopback);
    }
    if matches!(h.message, Message::Extended) {
        // A neighbour advertisement could hide behind them, and what is behind an authentication header cannot be translated.
        return Decision::Drop(Verdict::ProtocolUnsupported);
    }
    if is_multicast(&h.key.tuple.dst) {
        return Decision::Pass(Verdict::Multicast);
    }
    if !complete_fragment(t, h) {
        return Decision::Drop(Verdict::Fragment);
    }
    if matches!(h.message, Message::IcmpError) {
        return icmp_error(p, t, h);
    }
    match follow(t, h) {
        Found::Live(flow) => {
            // SAFETY: entries stay valid while the program runs.
            let f = unsafe { flow.as_ref() };
            if f.action != FlowAction::Masquerade as u8 || !moved(t, f) {
                return forward(h, f.action, flow);
            }
            if !h.message.opens() {
                return Decision::Drop(Verdict::FlowEnded);
            }
        }
        Found::Ended if !h.message.opens() => return last_word(p, t, h),
        _ => {}
    }
    match t.address(&h.key.tuple.dst) {
        None => outbound(t, ep, ifindex, h),
        Some(a) if a.kind == ADDRESS_HOST => to_host(t, h, Some((ep, ifindex))),
        Some(a) => sibling(t, ep, ifindex, h, a),
    }
}

/// When a rule ends, the daemon closes the containers' ends of its connections, and the kernel tells the other ends by a
/// RST each. That alone still goes through an ended flow: once, and without data.
// Rare: with a stack frame of its own.
#[inline(never)]
fn last_word<P: Packet, T: Tables>(p: &P, t: &T, h: &Headers) -> Decision {
    let ended = Decision::Drop(Verdict::FlowEnded);
    if !h.rst || !matches!(h.message, Message::TcpSegment) || h.first_fragment {
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
fn icmp_error<P: Packet, T: Tables>(p: &P, t: &T, h: &Headers) -> Decision {
    if let Some(flow) = quoted_flow(p, t, h, Zone::Endpoint, true) {
        // SAFETY: entries stay valid while the program runs.
        return forward(h, unsafe { flow.as_ref() }.action, flow);
    }
    match t.address(&h.key.tuple.dst) {
        Some(a) if a.kind == ADDRESS_HOST => Decision::Pass(Verdict::Host),
        _ => Decision::Drop(Verdict::IcmpError),
    }
}

/// A container is no router. It advertises an address of its own, which a link-local one of nobody else is, and asks a
/// single neighbour about that neighbour's address alone.
// Rare: with a stack frame of its own.
#[inline(never)]
fn neighbour<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &Headers) -> Result<(), Verdict> {
    if matches!(h.message, Message::Router) {
        return Err(Verdict::RouterMessage);
    }
    let (target, advertisement) = neighbour_target(p, h)?;
    if advertisement {
        let own = target == ep.ipv6 || (is_link_local(&target) && t.address(&target).is_none());
        return if own { Ok(()) } else { Err(Verdict::SpoofedAddress) };
    }
    let dst = &h.key.tuple.dst;
    if is_multicast(dst) || target == *dst { Ok(()) } else { Err(Verdict::NeighbourTarget) }
}

/// The source address must be the container's own.
#[inline(always)]
fn source_check(ep: &Endpoint, h: &Headers) -> Option<Decision> {
    let own = if h.v4 { &ep.ipv4 } else { &ep.ipv6 };
    if h.key.tuple.src == *own && *own != Addr::ANY_V6 {
        return None;
    }
    if !h.v4 && (h.key.tuple.src == Addr::ANY_V6 || is_link_local(&h.key.tuple.src)) {
        // Duplicate address detection has no source yet; neighbour and listener discovery use link-local ones.
        return Some(match h.message {
            Message::Neighbour => Decision::Pass(Verdict::Neighbour),
            Message::Extended => Decision::Drop(Verdict::ProtocolUnsupported),
            _ if is_multicast(&h.key.tuple.dst) => Decision::Pass(Verdict::Multicast),
            _ => Decision::Drop(Verdict::SpoofedAddress),
        });
    }
    Some(Decision::Drop(Verdict::SpoofedAddress))
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
    const ASK: u8 = FlowAction::Ask as u8;
    const ASK_UNCHANGED: u8 = FlowAction::AskUnchanged as u8;
    match action {
        LINK => Decision::Forward(Verdict::Linked, flow),
        LINK_REPLY => Decision::Forward(Verdict::LinkedReply, flow),
        PUBLISH | REPLY_OUT | REPLY_LOCAL | MASQUERADE | ASK if h.ttl <= 1 => Decision::Drop(Verdict::TtlExceeded),
        PUBLISH => Decision::Forward(Verdict::Published, flow),
        REPLY_OUT | REPLY_LOCAL => Decision::Forward(Verdict::PublishedReply, flow),
        TO_LOOPBACK => Decision::Forward(Verdict::PublishedReply, flow),
        MASQUERADE => Decision::Forward(Verdict::Masqueraded, flow),
        ASK => Decision::Forward(Verdict::Asked, flow),
        ASK_UNCHANGED => Decision::Pass(Verdict::Asked),
        _ => Decision::Pass(Verdict::Outbound),
    }
}

/// To the outside: under the host's address, or through its stack, and the answers are expected at the gate.
#[inline(always)]
fn outbound<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> Decision {
    if matches!(h.message, Message::LaterFragment) {
        return Decision::Pass(Verdict::Outbound);
    }
    if let Some(decision) = masquerade(t, ep, ifindex, h) {
        return decision;
    }
    let forward = Target { action: FlowAction::Stack, ifindex: 0, mac: [0; 6] };
    let reply = Target { action: FlowAction::Stack, ifindex, mac: ep.mac };
    let opened = prepare(t, (ep.generation, ep.rule), &h.key.tuple, forward, reply)
        .and_then(|opening| open(t, h, opening, Zone::Gate));
    match opened {
        Some(_) => {
            expect(t, ep, h);
            Decision::Pass(Verdict::Outbound)
        }
        None => Decision::Drop(Verdict::FlowTableFull),
    }
}

/// To another container.
#[inline(always)]
fn sibling<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers, to: &Address) -> Decision {
    if to.bridge != ep.bridge {
        return Decision::Drop(Verdict::OtherNetwork);
    }
    if (ep.flags | to.flags as u16) & ENDPOINT_ISOLATED == 0 {
        return Decision::Pass(Verdict::Network);
    }
    if matches!(h.message, Message::Neighbour) {
        return Decision::Pass(Verdict::Neighbour);
    }
    let Some(link) = link(t, h) else {
        return Decision::Drop(match h.message {
            Message::LaterFragment => Verdict::Fragment,
            Message::Other => Verdict::ProtocolUnsupported,
            _ => Verdict::NotLinked,
        });
    };
    let forward = Target { action: FlowAction::Link, ifindex: to.ifindex, mac: to.mac };
    let reply = Target { action: FlowAction::LinkReply, ifindex, mac: ep.mac };
    let Some(opening) = prepare(t, (link.generation, link.rule), &h.key.tuple, forward, reply) else {
        return Decision::Drop(Verdict::FlowTableFull);
    };
    // The recipient may use the same port to reach the source through a published port: it has to see them apart.
    if !t.settle::<false>(&h.key, opening) {
        return Decision::Drop(Verdict::PortsExhausted);
    }
    match open(t, h, opening, Zone::Endpoint) {
        Some(flow) => Decision::Forward(Verdict::Linked, flow),
        None => Decision::Drop(Verdict::FlowTableFull),
    }
}

/// The link that allows a packet from recipient to source, if any.
///
/// A TCP segment without SYN is allowed as well: the connection may be older than the datapath.
// For new conversations alone: with a stack frame of its own.
#[inline(never)]
fn link<'t, T: Tables>(t: &'t T, h: &Headers) -> Option<&'t Link> {
    let (port, protocol) = match h.message {
        Message::TcpOpen | Message::TcpSegment | Message::Datagram => match h.key.protocol {
            TCP | UDP | SCTP => (h.key.tuple.dport, h.key.protocol),
            _ => return None,
        },
        Message::EchoRequest => (0, h.key.protocol),
        _ => return None,
    };
    let mut key = LinkKey { recipient: h.key.tuple.src, source: h.key.tuple.dst, port, protocol, reserved: 0 };
    if let Some(link) = t.link(&key) {
        return Some(link);
    }
    key.port = 0;
    key.protocol = ALL_PROTOCOLS;
    t.link(&key)
}
