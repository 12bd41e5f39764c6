//! tc ingress of each uplink: published ports.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::uplink_known;
use runtime_common::maps::Zone;
use runtime_common::packet::{ETH_IPV4, ETH_IPV6, ETH_LEN, Ethernet, Headers, Mac, ethernet, headers};
use runtime_common::rewrite::translate;

use crate::icmp_error::{TIME_EXCEEDED, send_icmp_error};
use crate::maps::UPLINKS;
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Skb};
use crate::stages::new_from_outside;
use crate::tables::Maps;

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    let skb: Skb<'_> = Skb(&ctx);
    // A tag is for a VLAN interface above this one.
    if skb.raw().vlan_present != 0 {
        return NEXT;
    }
    match ethernet(&skb) {
        Ok(frame) if is_for_us(&skb, &frame) => ingress(skb, frame.ethertype),
        _ => NEXT,
    }
}

/// The same on an interface without Ethernet: a tunnel.
#[classifier]
pub fn uplink_tunnel(ctx: TcContext) -> i32 {
    let skb: Skb<'_, 0> = Skb(&ctx);
    if skb.raw().pkt_type != PACKET_HOST {
        return NEXT;
    }
    let ethertype = u16::from_be(skb.raw().protocol as u16);
    ingress(skb, ethertype)
}

/// Whether a frame is addressed to this interface, or to the bridge that it is a port of.
#[inline(always)]
fn is_for_us(skb: &Skb<'_>, frame: &Ethernet) -> bool {
    /// `skb->pkt_type` of what is addressed to another machine, as far as the interface knows.
    const PACKET_OTHERHOST: u32 = 3;
    match skb.raw().pkt_type {
        PACKET_HOST => true,
        PACKET_OTHERHOST => {
            // SAFETY: entries are replaced as a whole and stay readable while the program runs.
            let uplink = unsafe { UPLINKS.get(skb.raw().ifindex) };
            uplink.is_some_and(|uplink| uplink.is_port != 0 && Mac::read(&uplink.bridge_mac) == frame.dst)
        }
        _ => false,
    }
}

#[inline(always)]
fn ingress<const ETH: usize>(mut skb: Skb<'_, ETH>, ethertype: u16) -> i32 {
    if !matches!(ethertype, ETH_IPV4 | ETH_IPV6) {
        return NEXT;
    }
    let ifindex = skb.raw().ifindex;
    let Some(maps) = Maps::new() else {
        return DROP;
    };
    let h = maps.headers();
    if let Err(v) = headers(&skb, ethertype, Zone::Uplink, h) {
        return refuse(v, None, ifindex);
    }
    let decision = match uplink_known(&skb, &maps, h) {
        Some(decision) => decision,
        None => new_from_outside(skb.0.skb.skb).decision(&maps),
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
    if ETH == ETH_LEN && maps.icmp_rate_limit() {
        *maps.error_source() = h.key.tuple.dst;
        if send_icmp_error(skb.0.skb.skb, TIME_EXCEEDED) {
            // To where it came from. SAFETY: only records the target.
            return unsafe { bpf_redirect(ifindex, 0) as i32 };
        }
    }
    DROP
}

#[inline(always)]
fn refuse(v: Verdict, h: Option<&Headers>, ifindex: u32) -> i32 {
    dropped(v, h, ifindex, Zone::Uplink);
    if enforcing() { DROP } else { NEXT }
}
