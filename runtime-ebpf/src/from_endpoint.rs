//! tc ingress of a container's host-side interface: what the container sends.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer, bpf_skb_change_type};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{Next, Step, endpoint_known};
use runtime_common::maps::{ChecksumDeltas, Flow, FlowAction, Zone};
use runtime_common::packet::{ETH_IPV4, ETH_IPV6, Headers, Mac, ethernet, headers};
use runtime_common::rewrite::{set_macs, translate, translate_segment};

use crate::icmp_error::{TIME_EXCEEDED, send_icmp_error};
use crate::next_hop::{Sent, outward};
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Skb};
use crate::stages::{behind, new_from_container};
use crate::tables::Maps;

#[classifier]
pub fn from_endpoint(ctx: TcContext) -> i32 {
    let mut skb: Skb<'_> = Skb(&ctx);
    let ifindex = skb.raw().ifindex;
    let Some(maps) = Maps::with(ctx.skb.skb) else {
        return DROP;
    };
    let h = maps.headers();
    let parsed = match parse(&skb, h) {
        Ok(src) => {
            if let Some(decision) = endpoint_known(&maps, ifindex, src, h) {
                let Some(flow) = decision.flow() else {
                    return finish(&mut skb, h, decision.verdict(), true);
                };
                // SAFETY: an entry of a map, valid while the program runs.
                let flow = unsafe { &mut *flow.as_ptr() };
                let sent = deliver::<true>(&mut skb, &maps, h, flow);
                return conclude(&mut skb, h, decision.verdict(), sent);
            }
            Step::ADMIT.bits()
        }
        Err(v) => Step::finish(v).bits(),
    };
    let step = new_from_container(ctx.skb.skb, parsed);
    if step.is(Next::Forward) {
        let sent = Sent::from_bits(deliver_new(ctx.skb.skb));
        return conclude(&mut skb, h, step.verdict(), sent);
    }
    finish(&mut skb, h, step.verdict(), parsed == Step::ADMIT.bits())
}

/// Reads the headers into `h`, and returns the source's MAC address.
#[inline(always)]
fn parse(skb: &Skb<'_>, h: &mut Headers) -> Result<Mac, Verdict> {
    let frame = ethernet(skb)?;
    if !matches!(frame.ethertype, ETH_IPV4 | ETH_IPV6) || skb.raw().vlan_present != 0 {
        return Err(Verdict::EtherType);
    }
    headers(skb, frame.ethertype, Zone::Endpoint, h)?;
    Ok(frame.src)
}

/// Carries out what a verdict alone says. `read`: whether there are headers to tell of.
#[inline(always)]
fn finish(skb: &mut Skb<'_>, h: &Headers, v: Verdict, read: bool) -> i32 {
    if !v.is_drop() {
        count(v);
        return NEXT;
    }
    let ifindex = skb.raw().ifindex;
    dropped(v, if read { Some(h) } else { None }, ifindex, Zone::Endpoint);
    if !enforcing() {
        return NEXT;
    }
    if v == Verdict::TtlExceeded { answer(skb, h, TIME_EXCEEDED) } else { DROP }
}

/// Counts what was sent, or drops what could not be.
#[inline(always)]
fn conclude(skb: &mut Skb<'_>, h: &Headers, v: Verdict, sent: Sent) -> i32 {
    let Some(refused) = sent.refused() else {
        count(v);
        return sent.detail() as i32;
    };
    dropped(refused, Some(h), skb.raw().ifindex, Zone::Endpoint);
    // Also where the container allowed IPv4 to cut the packet, which the datapath cannot: its next ones will be small enough.
    if refused == Verdict::TooBig { answer(skb, h, sent.detail()) } else { DROP }
}

/// Answers a container's packet with the ICMP error about it.
#[inline(always)]
fn answer(skb: &mut Skb<'_>, h: &Headers, mtu: u32) -> i32 {
    let ifindex = skb.raw().ifindex;
    let Some(ep) = behind(ifindex) else {
        return DROP;
    };
    let Some(maps) = Maps::new() else {
        return DROP;
    };
    *maps.error_source() = if h.v4 { ep.gateway4 } else { ep.gateway6 };
    if !send_icmp_error(skb.0.skb.skb, mtu) {
        return DROP;
    }
    // SAFETY: as in `to_container`.
    unsafe {
        bpf_skb_change_type(skb.0.skb.skb, PACKET_HOST);
        bpf_redirect_peer(ifindex, 0) as i32
    }
}

/// Translation and delivery of a packet whose flow is in the scratch room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn deliver_new(skb: *mut __sk_buff) -> u64 {
    let Some(maps) = Maps::with(skb) else {
        return Sent::refuse(Verdict::Malformed, 0).bits();
    };
    let ctx = TcContext::new(skb);
    deliver::<false>(&mut Skb(&ctx), &maps, maps.headers(), maps.new_flow()).bits()
}

/// Translates a packet as its flow says, and sends it on. `SEGMENT`: it is of an established flow, so neither an echo nor an error.
#[inline(always)]
fn deliver<const SEGMENT: bool>(skb: &mut Skb<'_>, maps: &Maps, h: &Headers, flow: &mut Flow) -> Sent {
    let (target, action) = (flow.ifindex, flow.action);
    let outgoing = action == FlowAction::ReplyOut as u8 || action == FlowAction::Masquerade as u8;
    let mut sent = Sent::action(NEXT);
    if outgoing {
        sent = outward(skb, maps, h, flow);
        if sent.refused().is_some() {
            return sent;
        }
    }
    // Over a link nothing changes, but for a source port that would be mistaken for another conversation's.
    if outgoing || flow.sums != ChecksumDeltas::default() {
        let translated = if SEGMENT {
            translate_segment(skb, h, &flow.to, flow.sums)
        } else {
            translate(skb, h, &flow.to, flow.sums)
        };
        if let Err(v) = translated {
            return Sent::refuse(v, 0);
        }
    }
    if outgoing || action == FlowAction::Defer as u8 {
        return sent;
    }
    if action == FlowAction::ToLoopback as u8 {
        return to_loopback(skb, h.v4);
    }
    to_container(skb, target)
}

/// Into the container behind an interface.
#[inline(always)]
fn to_container(skb: &mut Skb<'_>, target: u32) -> Sent {
    // SAFETY: the context is the program's own; the redirection only records the target.
    let action = unsafe {
        // The frame was for the bridge or for the other container, seen from this interface; in there it is for its stack.
        bpf_skb_change_type(skb.0.skb.skb, PACKET_HOST);
        bpf_redirect_peer(target, 0)
    };
    Sent::action(action as i32)
}

/// To a socket of the host that is bound to a loopback address.
#[inline(always)]
fn to_loopback(skb: &mut Skb<'_>, v4: bool) -> Sent {
    /// Index of the loopback interface: the same in every network namespace.
    const LOOPBACK_IFINDEX: u32 = 1;
    // The bridge takes loopback addresses of IPv4 in, where `route_localnet` lets it; of IPv6 it never does.
    if v4 {
        return Sent::action(NEXT);
    }
    let none = Mac::new([0; 6]);
    if set_macs(skb, none, none).is_none() {
        return Sent::refuse(Verdict::RewriteFailed, 0);
    }
    // SAFETY: it only records the target.
    Sent::action(unsafe { bpf_redirect(LOOPBACK_IFINDEX, u64::from(BPF_F_INGRESS)) } as i32)
}
