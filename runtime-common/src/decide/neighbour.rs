//! ARP and neighbour discovery: what a container may say and ask on an isolated network. Nobody is believed about somebody else.

use super::addresses::is_elsewhere;
use super::{Decision, Tables};
use crate::maps::{Endpoint, PREFIX_ISOLATED};
use crate::packet::{
    Headers, Mac, Message, Packet, arp_message, check_neighbour_options, is_link_local, is_multicast, neighbour_target,
};
use crate::{Addr, Verdict};

/// Decides about ARP from a container: of an isolated one, about its own addresses only, and for those of containers that are known.
/// A kernel asks for a next hop from the address that its packet has, which may be the container's on another network.
#[inline(always)]
pub fn arp<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint) -> Decision {
    if !ep.is_isolated() {
        return Decision::pass(Verdict::Neighbour);
    }
    let message = match arp_message(p) {
        Ok(message) => message,
        Err(v) => return Decision::drop(v),
    };
    if message.mac != Mac::read(&ep.mac) {
        return Decision::drop(Verdict::SpoofedMac);
    }
    // A probe before an address is used has no sender (RFC 5227): whoever is asked by one must not use the address.
    let own = if message.sender == 0 { message.target } else { message.sender };
    if own != ep.ipv4.v4_as_word() && !is_elsewhere(t, ep.container, &Addr::v4_word(own)) {
        return Decision::drop(Verdict::SpoofedAddress);
    }
    if is_unknown(t, &Addr::v4_word(message.target)) {
        return Decision::drop(Verdict::UnknownEndpoint);
    }
    Decision::pass(Verdict::Neighbour)
}

/// What isolation refuses of a container's neighbour discovery, and of what routers alone have to say: a container is none. It
/// advertises its own addresses, and asks one neighbour about that one's address or all about anybody's.
// Rare: with a stack frame of its own.
#[inline(never)]
pub(super) fn check_neighbour<P: Packet, T: Tables>(p: &P, t: &T, ep: &Endpoint, h: &Headers) -> Result<(), Verdict> {
    if matches!(h.message, Message::Router) {
        return Err(Verdict::RouterMessage);
    }
    // Nobody takes it in fragments (RFC 6980).
    if h.first_fragment {
        return Err(Verdict::Fragment);
    }
    let (target, advertisement) = neighbour_target(p, h)?;
    let mac = Mac::read(&ep.mac);
    let (src, dst) = (&h.key.tuple.src, &h.key.tuple.dst);
    let has_source = *src != Addr::ANY_V6;
    if advertisement || !has_source {
        // Without a source, it asks whether an address is still free: whoever is about to use it must not, then (RFC 4862 §5.4.3).
        let own = target == ep.ipv6 || target == mac.link_local();
        if !own || advertisement && !has_source {
            return Err(Verdict::SpoofedAddress);
        }
    } else if is_unknown(t, &target) {
        return Err(Verdict::UnknownEndpoint);
    }
    let asks_well = *dst == target && has_source || *dst == target.solicited_node();
    if !advertisement && !asks_well {
        return Err(Verdict::NeighbourTarget);
    }
    check_neighbour_options(p, h, mac, advertisement)
}

/// Whether an address is one of an isolated network, but no container's that is known: nothing of that one has been closed or
/// opened yet.
#[inline(always)]
fn is_unknown<T: Tables>(t: &T, addr: &Addr) -> bool {
    t.address(addr).is_none() && t.prefix(addr) == PREFIX_ISOLATED
}

/// What a container's IPv6 packet is whose source is none or link-local, on an isolated network. A link-local address is the one that
/// follows from its MAC address (RFC 4291, appendix A): any other might be a neighbour's.
#[inline(always)]
pub(super) fn check_unrouted_source(ep: &Endpoint, h: &Headers) -> Verdict {
    let src = &h.key.tuple.src;
    if is_link_local(src) && *src != Mac::read(&ep.mac).link_local() {
        return Verdict::SpoofedAddress;
    }
    // Duplicate address detection has no source yet; neighbour and listener discovery use link-local ones.
    match h.message {
        Message::Neighbour => Verdict::Neighbour,
        Message::Extended => Verdict::ProtocolUnsupported,
        _ if is_multicast(&h.key.tuple.dst) => Verdict::Multicast,
        _ => Verdict::SpoofedAddress,
    }
}
