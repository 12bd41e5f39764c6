//! The decisions' tables, as maps.

use core::ptr::NonNull;

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, bpf_redir_neigh};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use runtime_common::Addr;
use runtime_common::decide::{Clock, NewFlow, Scratch, Tables, hold, make_room, release_closed};
use runtime_common::maps::{
    Address, Endpoint, FLOW_PORT_HALVES, FilterKey, Flow, FlowKey, FragmentKey, FragmentPorts, Holder, Limit, Link,
    LinkKey, MAX_CLOSED, MAX_FLOWS, Publication, PublicationKey, Zone, address_bit, port_bit,
};

use runtime_common::packet::Headers;

use crate::fib::FibRoom;
use crate::kernel_lookup;
use crate::maps::{
    ADDRESS_BITS, ADDRESSES, CLOSED, CLOSED_ENDS, ENDPOINTS, FILTERS, FLOW_PORTS, FLOWS, FRAGMENTS, HELD, HELD_BY,
    HELD_BY_RULE, LIMITS, LINKS, PENDING, PORTS, PREFIXES, PUBLICATIONS, RULES, SCRATCH, UNSERVED, UPLINKS,
};

/// How many conversations `FLOWS` is to take: tests have smaller tables.
#[unsafe(no_mangle)]
static FLOW_ROOM: u32 = (MAX_FLOWS / 2) as u32;

/// The kernel's maps, this run's scratch room, and what it was called with.
#[derive(Clone, Copy)]
pub struct Maps(NonNull<Scratch>, *mut __sk_buff);

impl Maps {
    /// `None` never happens, but the verifier does not know.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        Maps::with(core::ptr::null_mut())
    }

    /// For what containers send: the packet itself is asked for its way out.
    #[inline(always)]
    pub fn with(skb: *mut __sk_buff) -> Option<Self> {
        SCRATCH.get_ptr_mut(0).and_then(NonNull::new).map(|scratch| Maps(scratch, skb))
    }

    /// Room for the headers.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each hook takes it once")]
    pub fn headers(&self) -> &mut Headers {
        // SAFETY: this CPU's slot, and programs of one hook do not interrupt one another on a CPU.
        unsafe { &mut (*self.0.as_ptr()).headers }
    }

    /// The flow that a stage has begun or found.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "delivery alone takes it")]
    pub fn new_flow(&self) -> &mut Flow {
        // SAFETY: as for the headers.
        unsafe { &mut (*self.0.as_ptr()).new_flow.forward }
    }

    /// Room for the parameters of a route lookup.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each lookup fills it anew")]
    pub fn fib(&self) -> &mut FibRoom {
        // SAFETY: as for the headers.
        unsafe { &mut (*self.0.as_ptr()).fib }
    }

    /// Room for the next hop of a redirection.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each redirection fills it anew")]
    pub fn neighbour(&self) -> &mut bpf_redir_neigh {
        const _: () = assert!(size_of::<bpf_redir_neigh>() == 20 && align_of::<bpf_redir_neigh>() == 4);
        // SAFETY: as large and aligned as that, and plain integers.
        unsafe { &mut *(&raw mut (*self.0.as_ptr()).neighbour).cast() }
    }

    /// Whom an ICMP error comes from.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "written before an error is made, and read by what makes it")]
    pub fn error_source(&self) -> &mut Addr {
        // SAFETY: as for the headers.
        unsafe { &mut (*self.0.as_ptr()).error_source }
    }

    /// Takes one error from the budget for those to the outside.
    #[inline(always)]
    pub fn icmp_rate_limit(&self) -> bool {
        let now = self.now();
        // SAFETY: as for the headers.
        unsafe { (*self.0.as_ptr()).budget.take(now) }
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: as for the headers.
        let clock = unsafe { &mut (*self.0.as_ptr()).clock };
        // SAFETY: the helper takes nothing, and becomes a plain load.
        let tick = unsafe { bpf_jiffies64() };
        if clock.tick != tick {
            *clock = Clock { tick, now: now() };
        }
        clock.now
    }

    #[inline(always)]
    fn answered(&self, key: &FlowKey) -> Option<NonNull<Flow>> {
        FLOWS.get_ptr_mut(key).and_then(NonNull::new)
    }

    #[inline(always)]
    fn pending(&self, key: &FlowKey) -> Option<NonNull<Flow>> {
        PENDING.get_ptr_mut(key).and_then(NonNull::new)
    }

    #[inline(always)]
    fn maybe_flow(&self, key: &FlowKey) -> bool {
        FLOW_PORTS.get(key.port_element()).is_some_and(|halves| *halves != 0)
    }

    #[inline(always)]
    fn insert_pending(&self, key: &FlowKey, flow: &Flow) -> bool {
        if key.zone == Zone::Uplink as u8
            && let Some(halves) = FLOW_PORTS.get_ptr_mut(key.port_element())
        {
            // SAFETY: an element of a map, written as a whole. Where it is as it should be, other CPUs keep their copy of it.
            unsafe {
                if halves.read_volatile() != FLOW_PORT_HALVES {
                    halves.write_volatile(FLOW_PORT_HALVES);
                }
            }
        }
        PENDING.insert(key, flow, u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn promote(&self, key: &FlowKey, flow: &Flow) -> bool {
        if FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_err() {
            return false;
        }
        let _ = PENDING.remove(key);
        true
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey) {
        let _ = FLOWS.remove(key);
    }

    #[inline(always)]
    fn room(&self) -> u64 {
        // SAFETY: read once, so that the verifier sees the loader's constant.
        u64::from(unsafe { (&raw const FLOW_ROOM).read_volatile() })
    }

    #[inline(always)]
    fn held(&self) -> Option<NonNull<u64>> {
        HELD.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn held_by_rule(&self, slot: u32) -> Option<NonNull<u64>> {
        HELD_BY_RULE.get_ptr_mut(slot).and_then(NonNull::new)
    }

    #[inline(always)]
    fn held_by(&self, holder: &Holder) -> Option<NonNull<u64>> {
        HELD_BY.get_ptr_mut(holder).and_then(NonNull::new)
    }

    #[inline(always)]
    fn begin_holding(&self, holder: &Holder) {
        let _ = HELD_BY.insert(holder, 1, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn note_closed(&self, key: &FlowKey) {
        let Some(written) = CLOSED_ENDS.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: an element of a map; where two processors race, one of their connections is left to the daemon.
        let at = unsafe { *written };
        let _ = CLOSED.set((at % MAX_CLOSED as u64) as u32, key, 0);
        // SAFETY: as above.
        unsafe { *written = at + 1 };
    }

    #[inline(always)]
    fn next_closed(&self) -> Option<FlowKey> {
        let written = *CLOSED_ENDS.get(0)?;
        let read = CLOSED_ENDS.get_ptr_mut(1)?;
        // SAFETY: an element of a map; where two processors race, one reads what the other does.
        let next = unsafe { *read }.max(written.saturating_sub(MAX_CLOSED as u64));
        if next >= written {
            return None;
        }
        // SAFETY: as above.
        unsafe { *read = next + 1 };
        CLOSED.get((next % MAX_CLOSED as u64) as u32).copied()
    }

    #[inline(always)]
    fn hold(&self, _: &FlowKey) -> bool {
        hold_conversation() != 0
    }

    #[inline(always)]
    fn release_closed(&self, _: &FlowKey) {
        release_connection();
    }

    #[inline(always)]
    fn make_room(&self) -> bool {
        make_room_in_flows() != 0
    }

    #[inline(always)]
    fn scratch(&self) -> Option<NonNull<NewFlow>> {
        // SAFETY: a field of a valid object.
        NonNull::new(unsafe { &raw mut (*self.0.as_ptr()).new_flow })
    }

    #[inline(always)]
    fn generation(&self, slot: u32) -> u64 {
        RULES.get(slot).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn maybe_published(&self, port: u16, protocol: u8) -> bool {
        has_bit(&PORTS, port_bit(u16::from_be(port), protocol))
    }

    #[inline(always)]
    fn publication(&self, key: &PublicationKey) -> Option<&Publication> {
        // SAFETY: userspace replaces entries as a whole, and a freed one stays readable while the program runs (RCU).
        unsafe { PUBLICATIONS.get(key) }
    }

    #[inline(always)]
    fn filter(&self, key: &FilterKey) -> u32 {
        // Of the key to look up, every bit counts.
        const BITS: u32 = 8 * size_of::<FilterKey>() as u32;
        FILTERS.get(&Key::new(BITS, *key)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn limit(&self, generation: u64) -> Option<NonNull<Limit>> {
        LIMITS.get_ptr_mut(generation).and_then(NonNull::new)
    }

    #[inline(always)]
    fn link(&self, key: &LinkKey) -> Option<&Link> {
        // SAFETY: as for publications.
        unsafe { LINKS.get(key) }
    }

    #[inline(always)]
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        // SAFETY: as for publications.
        unsafe { ENDPOINTS.get(ifindex) }
    }

    #[inline(always)]
    fn address(&self, addr: &Addr) -> Option<&Address> {
        // SAFETY: as for publications.
        unsafe { ADDRESSES.get(addr) }
    }

    #[inline(always)]
    fn maybe_host_address(&self, addr: &Addr) -> bool {
        has_bit(&ADDRESS_BITS, address_bit(addr, false))
    }

    #[inline(always)]
    fn maybe_endpoint(&self, addr: &Addr) -> bool {
        has_bit(&ADDRESS_BITS, address_bit(addr, true))
    }

    #[inline(always)]
    fn source(&self, h: &Headers, bridge: u32, found: &mut Addr) -> bool {
        kernel_lookup::source(self.1, self.fib(), h, bridge, found)
    }

    #[inline(always)]
    fn is_uplink(&self, ifindex: u32) -> bool {
        UPLINKS.get_ptr(ifindex).is_some()
    }

    #[inline(always)]
    fn is_unserved(&self, ifindex: u32) -> bool {
        UNSERVED.get_ptr(ifindex).is_some()
    }

    #[inline(always)]
    fn prefix(&self, addr: &Addr) -> u32 {
        // Of the key to look up, every bit counts.
        const BITS: u32 = 8 * size_of::<Addr>() as u32;
        PREFIXES.get(&Key::new(BITS, *addr)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn host_socket(&self, key: &FlowKey) -> bool {
        kernel_lookup::host_socket(self.1, key)
    }

    #[inline(always)]
    fn host_connection(&self, key: &FlowKey) -> bool {
        kernel_lookup::host_connection(self.1, key)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: as for publications.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, ports: FragmentPorts) {
        let _ = FRAGMENTS.insert(key, ports, u64::from(BPF_ANY));
    }
}

// Rare, and verified each by itself: the packet's key is in the scratch room.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hold_conversation() -> u32 {
    Maps::new().map_or(0, |maps| u32::from(hold(&maps, &maps.headers().key)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn release_connection() -> u32 {
    if let Some(maps) = Maps::new() {
        release_closed(&maps, &maps.headers().key);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make_room_in_flows() -> u32 {
    Maps::new().map_or(0, |maps| u32::from(make_room(&maps)))
}

#[inline(always)]
fn has_bit<const N: usize>(map: &Array<u64, N>, (element, bit): (u32, u64)) -> bool {
    map.get(element).is_some_and(|bits| bits & bit != 0)
}

/// Nanoseconds of the coarse monotonic clock: one tick exact, and far cheaper than the fine one.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}
