//! The stages of a packet that belongs to no established flow: functions that the kernel verifies each by itself, called by the
//! hooks one after another. What they share is in the scratch room; what they tell each other is a [`Step`].
//!
//! Kernels up to 6.8 allow 512 bytes of stack over a whole chain of calls, so no stage calls another.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{
    Next, Step, admit_from_container, admit_from_outside, arp, begin_masqueraded, begin_published, begin_untranslated,
    prepare_masqueraded, resume_published, track_from_container,
};
use runtime_common::maps::Endpoint;
use runtime_common::packet::{ETH_ARP, Mac, ethernet};

use crate::maps::ENDPOINTS;
use crate::report::enforcing;
use crate::skb::{Readable, Skb};
use crate::tables::Maps;

/// The step that a stage returned as an integer.
#[inline(always)]
fn step(bits: u32) -> Step {
    // SAFETY: every stage here returns the bits of a step.
    unsafe { Step::from_bits(bits) }
}

/// What becomes of a packet from outside that belongs to no flow. A flow that it is sent by is in the scratch room.
#[inline(always)]
pub fn new_from_outside(skb: *mut __sk_buff) -> Step {
    let mut next = step(admit_outside());
    if next.is(Next::Resume) {
        // While the loader learns which connections other rules carry, they keep them.
        next = if enforcing() { step(resume(skb)) } else { Step::finish(Verdict::Preexisting) };
    }
    if next.is(Next::Published) {
        next = step(begin_with_port());
    }
    next
}

/// The same before there is a packet: what the host's sockets have to be asked for is left to the stack's own hook.
#[inline(always)]
pub fn new_frame_from_outside() -> Step {
    let next = step(admit_outside());
    if next.is(Next::Resume) {
        return Step::finish(Verdict::Preexisting);
    }
    if next.is(Next::Published) { step(begin_with_port()) } else { next }
}

/// What becomes of a packet from a container that belongs to no established flow: `parsed` is the bits of [`Step::ADMIT`] where
/// its headers could be read, else what is wrong with them. A flow that it is sent by is in the scratch room.
#[inline(always)]
pub fn new_from_container(skb: *mut __sk_buff, parsed: u32) -> Step {
    let mut next = step(track_container(skb, parsed));
    if next.is(Next::Admit) {
        next = step(admit_container(skb));
    }
    if next.is(Next::Resume) {
        // While the loader learns which connections other rules carry, they keep them.
        next = if enforcing() { step(resume(skb)) } else { Step::finish(Verdict::Preexisting) };
    }
    if next.is(Next::Masqueraded) {
        next = step(choose_host_address(skb));
    }
    if next.is(Next::Untranslated) {
        next = step(begin_through_stack(skb));
    }
    if next.is(Next::Masqueraded) {
        next = step(begin_under_host_address(skb));
    }
    if next.is(Next::Published) {
        next = step(begin_with_port());
    }
    next
}

/// The container behind an interface.
#[inline(always)]
pub fn behind(ifindex: u32) -> Option<&'static Endpoint> {
    // SAFETY: entries are replaced as a whole and stay readable while the program runs.
    unsafe { ENDPOINTS.get(ifindex) }
}

/// A stage of a packet from a container, with the container and its interface.
#[inline(always)]
fn of_container(skb: *mut __sk_buff, stage: impl FnOnce(&Maps, &Endpoint, u32) -> Step) -> u32 {
    // SAFETY: the context is the caller's own.
    let ifindex = unsafe { (*skb).ifindex };
    match (behind(ifindex), Maps::with(skb)) {
        (Some(ep), Some(maps)) => stage(&maps, ep, ifindex).bits(),
        // The packet's container went a moment ago.
        _ => Step::finish(Verdict::EndpointClosed).bits(),
    }
}

/// Admission of a packet from outside.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit_outside() -> u32 {
    match Maps::new() {
        Some(maps) => admit_from_outside(&maps, maps.headers()).bits(),
        None => MALFORMED,
    }
}

/// Whether a segment of no known connection begins a flow, or is one of the host's own sockets.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn resume(skb: *mut __sk_buff) -> u32 {
    match Maps::with(skb) {
        Some(maps) => resume_published(&maps, maps.headers()).bits(),
        None => MALFORMED,
    }
}

/// Source port and table entries of a flow with a published port or over a link.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_with_port() -> u32 {
    match Maps::new() {
        Some(maps) => begin_published(&maps, maps.headers()).bits(),
        None => MALFORMED,
    }
}

/// Tracking of a packet from a container: whether it may have its addresses, and the flow that it belongs to.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn track_container(skb: *mut __sk_buff, parsed: u32) -> u32 {
    // SAFETY: the context is the caller's own.
    let (ifindex, tagged) = unsafe { ((*skb).ifindex, (*skb).vlan_present != 0) };
    let Some(ep) = behind(ifindex) else {
        return Step::finish(Verdict::EndpointClosed).bits();
    };
    let ctx = TcContext::new(skb);
    let skb: Skb<'_> = Skb(&ctx);
    // Of a frame that is too short the hook has said so.
    let Ok(frame) = ethernet(&Readable(&skb)) else {
        return MALFORMED;
    };
    if frame.src != Mac::read(&ep.mac) && ep.is_isolated() {
        return Step::finish(Verdict::SpoofedMac).bits();
    }
    let Some(maps) = Maps::new() else {
        return MALFORMED;
    };
    if parsed != Step::ADMIT.bits() {
        return match frame.ethertype {
            ETH_ARP if !tagged => Step::finish(arp(&skb, &maps, ep).verdict()).bits(),
            // What the stack itself makes of it is its own affair where nothing is isolated.
            _ if !ep.is_isolated() => Step::finish(Verdict::Network).bits(),
            _ => parsed,
        };
    }
    match track_from_container(&skb, &maps, ep, maps.headers()) {
        Some(decision) => Step::of(decision, &maps).bits(),
        None => Step::ADMIT.bits(),
    }
}

/// Admission of a packet from a container.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit_container(skb: *mut __sk_buff) -> u32 {
    of_container(skb, |maps, ep, ifindex| admit_from_container(maps, ep, ifindex, maps.headers()))
}

/// Source address of a flow that is to go out under an address of the host's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_host_address(skb: *mut __sk_buff) -> u32 {
    of_container(skb, |maps, ep, ifindex| prepare_masqueraded(maps, ep, ifindex, maps.headers()))
}

/// Source port and table entries of that flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_under_host_address(skb: *mut __sk_buff) -> u32 {
    match Maps::with(skb) {
        Some(maps) => begin_masqueraded(&maps, maps.headers()).bits(),
        None => MALFORMED,
    }
}

/// Table entries of a flow that goes through the host's stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_through_stack(skb: *mut __sk_buff) -> u32 {
    of_container(skb, |maps, ep, ifindex| begin_untranslated(maps, ep, ifindex, maps.headers()))
}

/// Of what never happens, but the verifier does not know.
const MALFORMED: u32 = Step::finish(Verdict::Malformed).bits();
