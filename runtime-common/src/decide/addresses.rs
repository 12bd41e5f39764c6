//! Questions about addresses that several hooks have.

use super::Tables;
use crate::Addr;
use crate::maps::ADDRESS_ENDPOINT;
use crate::packet::{Headers, is_loopback};

/// Whether a packet is from or to a loopback address.
#[inline(always)]
pub(super) fn has_loopback(h: &Headers) -> bool {
    is_loopback(&h.key.tuple.src) || is_loopback(&h.key.tuple.dst)
}

/// Whether an address is the container's own on another of its networks. It may answer from there by any of its interfaces, as its
/// routes have it; what it may reach by one of them is that network's affair.
// Rare: with a stack frame of its own.
#[inline(never)]
pub(super) fn is_elsewhere<T: Tables>(t: &T, container: u64, addr: &Addr) -> bool {
    let Some(a) = t.address(addr) else {
        return false;
    };
    a.kind == ADDRESS_ENDPOINT && t.endpoint(a.ifindex).is_some_and(|other| other.container == container)
}
