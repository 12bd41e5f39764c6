//! tc ingress of each uplink: published ports.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::uplink_known;
use runtime_common::maps::Zone;
use runtime_common::packet::{ETH_IPV4, ETH_IPV6, Headers, ethernet, headers};
use runtime_common::rewrite::translate;

use crate::icmp_error::{TIME_EXCEEDED, send_icmp_error};
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Skb};
use crate::stages::new_from_outside;
use crate::tables::Maps;

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    let ifindex = skb.raw().ifindex;
    // What is addressed to another machine, or tagged for a VLAN interface above this one, is not for here.
    if skb.raw().pkt_type != PACKET_HOST || skb.raw().vlan_present != 0 {
        return NEXT;
    }
    let ethertype = match ethernet(&skb) {
        Ok(e) if e.ethertype == ETH_IPV4 || e.ethertype == ETH_IPV6 => e.ethertype,
        _ => return NEXT,
    };
    let Some(maps) = Maps::new() else {
        return DROP;
    };
    let h = maps.headers();
    if let Err(v) = headers(&skb, ethertype, Zone::Uplink, h) {
        return refuse(v, None, ifindex);
    }
    let decision = match uplink_known(&skb, &maps, h) {
        Some(decision) => decision,
        None => new_from_outside(ctx.skb.skb).decision(&maps),
    };
    let v = decision.verdict();
    if let Some(flow) = decision.flow() {
        // SAFETY: an entry of a map, valid while the program runs.
        let flow = unsafe { flow.as_ref() };
        let target = flow.ifindex;
        if let Err(v) = translate(&mut skb, h, &flow.to, flow.sums) {
            dropped(v, Some(h), ifindex, Zone::Uplink);
            return DROP;
        }
        count(v);
        if v == Verdict::Asked {
            return NEXT;
        }
        // SAFETY: only records the target; an interface that is gone drops the packet.
        return unsafe { bpf_redirect_peer(target, 0) as i32 };
    }
    if !v.is_drop() {
        count(v);
        return NEXT;
    }
    if v != Verdict::TtlExceeded || !enforcing() {
        return refuse(v, Some(h), ifindex);
    }
    dropped(v, Some(h), ifindex, Zone::Uplink);
    let from = h.key.tuple.dst;
    if !maps.icmp_rate_limit() || !send_icmp_error(&mut skb, &from, TIME_EXCEEDED) {
        return DROP;
    }
    // To where it came from. SAFETY: only records the target.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

#[inline(always)]
fn refuse(v: Verdict, h: Option<&Headers>, ifindex: u32) -> i32 {
    dropped(v, h, ifindex, Zone::Uplink);
    if enforcing() { DROP } else { NEXT }
}
