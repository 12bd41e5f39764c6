//! Whether a packet that belongs to no flow may begin one.

use super::addresses::has_loopback;
use super::conntrack::{Found, Rules, Target, prepare, track};
use super::masquerade::is_masqueraded;
use super::publication::to_host;
use super::{Next, Step, Tables};
use crate::maps::{
    ADDRESS_HOST, ALL_PROTOCOLS, Address, Endpoint, FlowAction, Link, LinkKey, PREFIX_BROADCAST, PREFIX_HOST,
    PREFIX_ISOLATED, PREFIX_NETWORK, Zone,
};
use crate::packet::{Headers, Mac, Message, SCTP, TCP, UDP, hides_ports, is_no_unicast};
use crate::{Addr, Verdict};

/// A packet that arrives on an uplink.
#[inline(always)]
pub fn admit_from_outside<T: Tables>(t: &T, h: &mut Headers) -> Step {
    let mut step = from_outside(t, h);
    if !step.is(Next::Finish)
        && let Some(refused) = strange_source(t, &h.key.tuple.src)
    {
        step = Step::finish(refused);
    }
    let nobody = step.is(Next::Finish) && (!step.verdict().is_drop() || step.verdict() == Verdict::Unpublished);
    if h.ended && nobody { Step::finish(Verdict::FlowEnded) } else { step }
}

/// Why nobody outside may use a published port from an address, wherever a filter may allow that one. What is for the host itself
/// its own stack judges: a machine that has no address yet speaks to it.
// For new conversations alone: with a stack frame of its own.
#[inline(never)]
fn strange_source<T: Tables>(t: &T, src: &Addr) -> Option<Verdict> {
    if is_no_unicast(src) {
        return Some(Verdict::Martian);
    }
    // A container's, also one that no container has at the moment.
    if t.maybe_endpoint(src) && t.address(src).is_some() {
        return Some(Verdict::SpoofedLocal);
    }
    match t.prefix(src) {
        PREFIX_ISOLATED | PREFIX_NETWORK => Some(Verdict::SpoofedLocal),
        PREFIX_BROADCAST => Some(Verdict::Martian),
        _ => None,
    }
}

#[inline(always)]
fn from_outside<T: Tables>(t: &T, h: &mut Headers) -> Step {
    // No flow has such an address: what belongs to one needs no look at that.
    if has_loopback(h) {
        return Step::finish(Verdict::Loopback);
    }
    let (src, dst) = (&h.key.tuple.src, &h.key.tuple.dst);
    if t.maybe_host_address(src) && t.address(src).is_some_and(|a| a.kind == ADDRESS_HOST || a.is_isolated()) {
        return Step::finish(Verdict::SpoofedLocal);
    }
    if hides_ports(h) && is_hosts(t, dst) {
        // The host's stack would look behind them, and a proxy of the engine's have it served unasked.
        return Step::finish(Verdict::ProtocolUnsupported);
    }
    match t.address(dst) {
        None => match t.prefix(dst) {
            PREFIX_HOST => to_host(t, h, None),
            PREFIX_ISOLATED => Step::finish(Verdict::UnknownEndpoint),
            _ => Step::finish(Verdict::Host),
        },
        Some(a) if a.kind == ADDRESS_HOST => to_host(t, h, None),
        Some(a) => {
            let isolated = a.is_isolated();
            h.key.zone = Zone::Gate as u8;
            Step::finish(match track(t, h) {
                Found::Live(_) => Verdict::OutboundReply,
                _ if !isolated => Verdict::Network,
                _ => Verdict::NotPublished,
            })
        }
    }
}

/// Whether an address is the host's own.
#[inline(always)]
pub(super) fn is_hosts<T: Tables>(t: &T, addr: &Addr) -> bool {
    match t.address(addr) {
        Some(a) => a.kind == ADDRESS_HOST,
        None => t.prefix(addr) == PREFIX_HOST,
    }
}

/// A packet that the container `ep` behind `ifindex` sends.
#[inline(always)]
pub fn admit_from_container<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers) -> Step {
    match t.address(&h.key.tuple.dst) {
        None => match t.prefix(&h.key.tuple.dst) {
            PREFIX_HOST => to_host(t, h, Some((ep, ifindex))),
            // Its own network's too: a container that the daemon has not told of yet is nobody's to reach.
            PREFIX_ISOLATED => Step::finish(Verdict::UnknownEndpoint),
            _ => outbound(ep, h),
        },
        Some(a) if a.kind == ADDRESS_HOST => to_host(t, h, Some((ep, ifindex))),
        Some(a) => sibling(t, ep, ifindex, h, a),
    }
}

/// To the outside: under the host's address, or through its stack.
#[inline(always)]
fn outbound(ep: &Endpoint, h: &Headers) -> Step {
    if matches!(h.message, Message::LaterFragment) {
        return Step::finish(Verdict::Outbound);
    }
    // The host's stack forwards nothing there; `::` it does.
    if h.key.tuple.dst == Addr::ANY_V4 {
        return Step::finish(Verdict::Martian);
    }
    if is_masqueraded(ep, h) {
        Step::new(Next::Masqueraded, Verdict::Masqueraded)
    } else {
        Step::new(Next::Untranslated, Verdict::Outbound)
    }
}

/// To another container.
#[inline(always)]
fn sibling<T: Tables>(t: &T, ep: &Endpoint, ifindex: u32, h: &Headers, to: &Address) -> Step {
    // Between networks of which none is isolated, the engine's own rules decide.
    if !ep.is_isolated() && !to.is_isolated() {
        return Step::finish(Verdict::Network);
    }
    if to.bridge != ep.bridge {
        return Step::finish(Verdict::OtherNetwork);
    }
    if matches!(h.message, Message::Neighbour) {
        return Step::finish(Verdict::Neighbour);
    }
    let Some(link) = link(t, h) else {
        return Step::finish(match h.message {
            Message::LaterFragment => Verdict::Fragment,
            Message::Other => Verdict::ProtocolUnsupported,
            _ => Verdict::NotLinked,
        });
    };
    let forward = Target { action: FlowAction::Link, ifindex: to.ifindex, mac: Mac::read(&to.mac) };
    let reply = Target { action: FlowAction::LinkReply, ifindex, mac: Mac::read(&ep.mac) };
    match prepare(t, Rules::one(link.generation, link.rule), &h.key.tuple, forward, reply) {
        Some(_) => Step::new(Next::Published, Verdict::Linked),
        None => Step::finish(Verdict::FlowTableFull),
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
