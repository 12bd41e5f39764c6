//! tc egress of a container's host-side interface: the last gate, for what did not come by redirect.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{gate, is_strangers};
use runtime_common::maps::Zone;
use runtime_common::packet::{ETH_ARP, ETH_IPV4, ETH_IPV6, Headers, ethernet, headers};
use runtime_common::rewrite::translate_segment;

use crate::maps::ENDPOINTS;
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Skb};
use crate::tables::Maps;

#[classifier]
pub fn to_endpoint(ctx: TcContext) -> i32 {
    let mut skb: Skb<'_> = Skb(&ctx);
    let ifindex = skb.raw().ifindex;
    // SAFETY: entries are replaced as a whole and stay readable while the program runs.
    let Some(ep) = (unsafe { ENDPOINTS.get(ifindex) }) else {
        return refuse(Verdict::EndpointClosed, None, ifindex);
    };
    // Only what the host itself makes has not come in anywhere.
    let ingress = skb.raw().ingress_ifindex;
    let from_host = ingress == 0;
    let Some(maps) = Maps::new() else {
        return DROP;
    };
    // What the host has routed here was addressed to it when it came in.
    if is_strangers(&maps, ep, ingress, skb.raw().pkt_type != PACKET_HOST) {
        return refuse(Verdict::EndpointClosed, None, ifindex);
    }
    let ethertype = match ethernet(&skb) {
        Ok(e) => e.ethertype,
        Err(v) => return refuse(v, None, ifindex),
    };
    match ethertype {
        ETH_IPV4 | ETH_IPV6 if skb.raw().vlan_present == 0 => {}
        ETH_ARP if skb.raw().vlan_present == 0 => return pass(Verdict::Neighbour),
        _ if from_host => return pass(Verdict::FromHost),
        _ if !ep.is_isolated() => return pass(Verdict::Network),
        _ => return refuse(Verdict::EtherType, None, ifindex),
    }
    let h = maps.headers();
    if let Err(v) = headers(&skb, ethertype, Zone::Gate, h) {
        // What the stack itself makes of it is its own affair where nothing is isolated.
        return if ep.is_isolated() { refuse(v, None, ifindex) } else { pass(Verdict::Network) };
    }
    let decision = gate(&skb, &maps, ep, h, ingress);
    let v = decision.verdict();
    let Some(flow) = decision.flow() else {
        return if v.is_drop() { refuse(v, Some(h), ifindex) } else { pass(v) };
    };
    // SAFETY: an entry of a map, valid while the program runs.
    let flow = unsafe { flow.as_ref() };
    match translate_segment(&mut skb, h, &flow.to, flow.sums) {
        Ok(()) => pass(v),
        Err(v) => refuse(v, Some(h), ifindex),
    }
}

#[inline(always)]
fn pass(v: Verdict) -> i32 {
    count(v);
    NEXT
}

#[inline(always)]
fn refuse(v: Verdict, h: Option<&Headers>, ifindex: u32) -> i32 {
    dropped(v, h, ifindex, Zone::Gate);
    if enforcing() { DROP } else { NEXT }
}
