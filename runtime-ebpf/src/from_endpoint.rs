//! tc ingress of a container's host-side interface: what the container sends.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{Decision, arp, endpoint};
use runtime_common::maps::{ENDPOINT_ISOLATED, Endpoint, Flow, FlowAction, Tuple, Zone};
use runtime_common::packet::{ETH_ARP, ETH_IPV4, ETH_IPV6, Headers, Mac, ethernet, headers};
use runtime_common::rewrite::{set_macs, translate};

use crate::maps::ENDPOINTS;
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Skb};
use crate::tables::Maps;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[classifier]
pub fn from_endpoint(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    let ifindex = skb.raw().ifindex;
    // SAFETY: entries are replaced as a whole and stay readable while the program runs.
    let Some(ep) = (unsafe { ENDPOINTS.get(&ifindex) }) else {
        return refuse(Verdict::EndpointClosed, None, ifindex);
    };
    let ethernet = match ethernet(&skb) {
        Ok(e) => e,
        Err(v) => return refuse(v, None, ifindex),
    };
    if ethernet.src != Mac::new(ep.mac) {
        return refuse(Verdict::SpoofedMac, None, ifindex);
    }
    match ethernet.ethertype {
        ETH_IPV4 | ETH_IPV6 if skb.raw().vlan_present == 0 => {}
        ETH_ARP if skb.raw().vlan_present == 0 => return finish(arp(&skb, ep), ifindex),
        _ if ep.flags & ENDPOINT_ISOLATED == 0 => return finish(Decision::Pass(Verdict::Network), ifindex),
        _ => return refuse(Verdict::EtherType, None, ifindex),
    }
    let Some(maps) = Maps::new() else {
        return DROP;
    };
    let h = maps.headers();
    if let Err(v) = headers(&skb, ethernet.ethertype, Zone::Endpoint, h) {
        return refuse(v, None, ifindex);
    }
    match endpoint(&skb, &maps, ep, ifindex, h) {
        Decision::Pass(v) => {
            count(v);
            NEXT
        }
        Decision::Drop(v) => refuse(v, Some(h), ifindex),
        Decision::Forward(v, flow) => {
            // SAFETY: an entry of a map, valid while the program runs.
            let result = unsafe { forward(&mut skb, h, ep, flow.as_ref()) };
            match result {
                Ok(action) => {
                    count(v);
                    action
                }
                Err(v) => {
                    dropped(v, Some(h), ifindex, Zone::Endpoint);
                    DROP
                }
            }
        }
    }
}

#[inline(always)]
fn finish(decision: Decision, ifindex: u32) -> i32 {
    match decision {
        Decision::Drop(v) => refuse(v, None, ifindex),
        other => {
            count(other.verdict());
            NEXT
        }
    }
}

#[inline(always)]
fn refuse(v: Verdict, h: Option<&Headers>, ifindex: u32) -> i32 {
    dropped(v, h, ifindex, Zone::Endpoint);
    if enforcing() { DROP } else { NEXT }
}

#[inline(always)]
fn forward(skb: &mut Skb<'_>, h: &Headers, ep: &Endpoint, flow: &Flow) -> Result<i32, Verdict> {
    let (to, target, action) = (&flow.to, flow.ifindex, flow.action);
    if action == FlowAction::ReplyOut as u8 {
        return to_outside(skb, h, ep, to);
    }
    if action != FlowAction::Link as u8 && action != FlowAction::LinkReply as u8 {
        translate(skb, h, to)?;
    }
    // The frame was for the bridge or for the other container, seen from this interface; in there it is for its stack.
    // SAFETY: the context is the program's own; the second call only records the target.
    unsafe {
        bpf_skb_change_type(skb.0.skb.skb, PACKET_HOST);
        Ok(bpf_redirect_peer(target, 0) as i32)
    }
}

/// Out by the host's routes, straight to the next hop.
#[inline(always)]
fn to_outside(skb: &mut Skb<'_>, h: &Headers, ep: &Endpoint, to: &Tuple) -> Result<i32, Verdict> {
    // SAFETY: plain integers, for which zero is a value; the kernel fills in the rest.
    let mut fib: FibParams = unsafe { core::mem::zeroed() };
    fib.ifindex = ep.bridge;
    fib.l4_protocol = h.key.protocol;
    if h.v4 {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = to.src.v4_as_word();
        fib.__bindgen_anon_4.ipv4_dst = to.dst.v4_as_word();
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = *to.src.as_words();
        fib.__bindgen_anon_4.ipv6_dst = *to.dst.as_words();
    }
    // A length of zero has the kernel check the packet itself, super-packets included.
    // SAFETY: the context is the program's own, the parameters are as large as said.
    let result = unsafe { bpf_fib_lookup(skb.0.skb.skb.cast(), &mut fib, size_of::<FibParams>() as i32, 0) } as u32;
    match result {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {}
        BPF_FIB_LKUP_RET_FRAG_NEEDED => return Err(Verdict::TooBig),
        _ => return Err(Verdict::NoRoute),
    }
    let out = fib.ifindex;
    if result == BPF_FIB_LKUP_RET_SUCCESS {
        set_macs(skb, Mac::new(fib.dmac), Mac::new(fib.smac)).ok_or(Verdict::RewriteFailed)?;
    }
    translate(skb, h, to)?;
    // SAFETY: both only record the target.
    Ok(unsafe {
        if result == BPF_FIB_LKUP_RET_SUCCESS {
            bpf_redirect(out, 0) as i32
        } else {
            bpf_redirect_neigh(out, core::ptr::null_mut(), 0, 0) as i32
        }
    })
}
