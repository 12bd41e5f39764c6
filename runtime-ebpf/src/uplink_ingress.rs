//! tc ingress of each uplink: published ports.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{Decision, uplink_known};
use runtime_common::maps::Zone;
use runtime_common::packet::{ETH_IPV4, ETH_IPV6, ethernet, headers};
use runtime_common::rewrite::translate;
use runtime_common::router::Complaint;

use crate::complain::complain;
use crate::newcomers::{decision, new_from_outside};
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Skb};
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
        None => decision(new_from_outside(), &maps),
    };
    match decision {
        Decision::Pass(v) => {
            count(v);
            NEXT
        }
        Decision::Drop(Verdict::TtlExceeded) if enforcing() => {
            dropped(Verdict::TtlExceeded, Some(h), ifindex, Zone::Uplink);
            let from = h.key.tuple.dst;
            if maps.may_complain() && complain(&mut skb, h, &from, Complaint::TimeExceeded) {
                // To where it came from. SAFETY: only records the target.
                unsafe { bpf_redirect(ifindex, 0) as i32 }
            } else {
                DROP
            }
        }
        Decision::Drop(v) => refuse(v, Some(h), ifindex),
        Decision::Forward(v, flow) => {
            // SAFETY: an entry of a map, valid while the program runs.
            let flow = unsafe { flow.as_ref() };
            let target = flow.ifindex;
            if let Err(v) = translate(&mut skb, h, &flow.to, flow.sums) {
                dropped(v, Some(h), ifindex, Zone::Uplink);
                return DROP;
            }
            count(v);
            if let Verdict::Asked = v {
                return NEXT;
            }
            // SAFETY: only records the target; an interface that is gone drops the packet.
            unsafe { bpf_redirect_peer(target, 0) as i32 }
        }
    }
}

#[inline(always)]
fn refuse(v: Verdict, h: Option<&runtime_common::packet::Headers>, ifindex: u32) -> i32 {
    dropped(v, h, ifindex, Zone::Uplink);
    if enforcing() { DROP } else { NEXT }
}
