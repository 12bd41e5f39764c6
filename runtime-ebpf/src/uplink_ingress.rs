//! tc ingress of each uplink: published ports.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::uplink_known;
use runtime_common::maps::Zone;
use runtime_common::packet::{
    ETH_IPV4, ETH_IPV6, ETH_LEN, ETH_SERVICE_VLAN, ETH_VLAN, Ethernet, Headers, Mac, Packet, ethernet, headers,
    is_multicast,
};
use runtime_common::rewrite::translate;

use crate::icmp_error::{TIME_EXCEEDED, send_icmp_error};
use crate::maps::UPLINKS;
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST, Skb};
use crate::stages::new_from_outside;
use crate::tables::Maps;

#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    let skb: Skb<'_> = Skb(&ctx);
    // A tag is for a VLAN interface above this one; but one that names no VLAN, only a priority, the stack takes off.
    if skb.raw().vlan_present != 0 && names_vlan(skb.raw().vlan_tci as u16) {
        return NEXT;
    }
    match ethernet(&skb) {
        Ok(frame) if matches!(frame.ethertype, ETH_VLAN | ETH_SERVICE_VLAN) => tagged(&skb),
        Ok(frame) if is_for_us(&skb, &frame) => ingress(skb, frame.ethertype),
        _ => NEXT,
    }
}

/// Whether the tag control information (IEEE 802.1Q) is of a VLAN, not of a priority alone.
#[inline(always)]
fn names_vlan(tci: u16) -> bool {
    tci & 0xfff != 0
}

/// A frame with a tag that the kernel has left in it, behind one that names no VLAN. The stack takes both off: where this one names
/// none either, what it would serve then could not be told here.
#[inline(always)]
fn tagged(skb: &Skb<'_>) -> i32 {
    match skb.window::<2>(ETH_LEN) {
        Some(tci) if names_vlan(u16::from_be(tci.u16(0))) => NEXT,
        _ => refuse(Verdict::Malformed, None, skb.raw().ifindex),
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
        // Also in a frame to everybody, a packet for an address of the host's is the host's.
        PACKET_HOST | PACKET_BROADCAST | PACKET_MULTICAST => true,
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
    let to_everybody = matches!(skb.raw().pkt_type, PACKET_BROADCAST | PACKET_MULTICAST);
    if let Err(v) = headers(&skb, ethertype, Zone::Uplink, h) {
        return if to_everybody { NEXT } else { refuse(v, None, ifindex) };
    }
    if to_everybody && is_multicast(&h.key.tuple.dst) {
        return NEXT;
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
        if v == Verdict::Deferred {
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
    if ETH == ETH_LEN && !to_everybody && maps.icmp_rate_limit() {
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
