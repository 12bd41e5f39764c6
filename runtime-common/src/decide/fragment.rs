//! Fragments: those after the first have no ports, and get them by what the first one had.

use super::Tables;
use crate::maps::{FragmentKey, FragmentPorts};
use crate::packet::{Headers, Message};

/// Completes the ports of a fragment, or remembers those of a first fragment for the ones that follow.
///
/// False where the ports of a later fragment are not known.
#[inline(always)]
pub(super) fn complete_fragment<T: Tables>(t: &T, h: &mut Headers) -> bool {
    if !matches!(h.message, Message::LaterFragment) && !h.first_fragment {
        return true;
    }
    fragment_ports(t, h)
}

// Rare: out of the way, with a stack frame of its own (the kernel gives a program 512 bytes of stack in all).
#[inline(never)]
fn fragment_ports<T: Tables>(t: &T, h: &mut Headers) -> bool {
    let key = FragmentKey {
        src: h.key.tuple.src,
        dst: h.key.tuple.dst,
        id: h.id,
        protocol: h.key.protocol,
        zone: h.key.zone,
        reserved: 0,
    };
    if h.first_fragment {
        t.remember_fragment(&key, FragmentPorts { sport: h.key.tuple.sport, dport: h.key.tuple.dport });
        return true;
    }
    match t.fragment(&key) {
        Some(ports) => {
            h.key.tuple.sport = ports.sport;
            h.key.tuple.dport = ports.dport;
            true
        }
        None => false,
    }
}
