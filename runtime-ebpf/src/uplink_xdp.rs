//! XDP on uplinks: the same decision as `uplink_ingress`, before the kernel has made a packet of the frame.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use runtime_common::Verdict;
use runtime_common::decide::uplink_known;
use runtime_common::maps::Zone;
use runtime_common::packet::{ETH_IPV4, ETH_IPV6, Headers, Mac, ethernet, headers};
use runtime_common::rewrite::{set_macs, translate};

use crate::report::{count, dropped, enforcing};
use crate::stages::new_frame_from_outside;
use crate::tables::Maps;
use crate::xdp::Frame;

#[xdp]
pub fn uplink_xdp(ctx: XdpContext) -> u32 {
    let mut frame = Frame(&ctx);
    // SAFETY: the context is valid while the program runs.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let (ethertype, own_mac) = match ethernet(&frame) {
        // A group address is nobody's own: broadcast and multicast are the stack's.
        Ok(e) if (e.ethertype == ETH_IPV4 || e.ethertype == ETH_IPV6) && !e.dst.is_group() => (e.ethertype, e.dst),
        _ => return XDP_PASS,
    };
    let Some(maps) = Maps::new() else {
        return XDP_DROP;
    };
    let h = maps.headers();
    if let Err(v) = headers(&frame, ethertype, Zone::Uplink, h) {
        return refuse(v, None, ifindex);
    }
    let decision = match uplink_known(&frame, &maps, h) {
        Some(decision) => decision,
        None => new_frame_from_outside().decision(&maps),
    };
    let v = decision.verdict();
    // The stack's own hook can answer, and leave to the host's firewall.
    if matches!(v, Verdict::TtlExceeded | Verdict::Deferred) {
        return XDP_PASS;
    }
    let Some(flow) = decision.flow() else {
        // What passes is counted where the stack's own hook sees it again.
        return if v.is_drop() { refuse(v, Some(h), ifindex) } else { XDP_PASS };
    };
    // SAFETY: an entry of a map, valid while the program runs.
    let flow = unsafe { flow.as_ref() };
    let (mac, target) = (Mac::read(&flow.mac), flow.ifindex);
    if translate(&mut frame, h, &flow.to, flow.sums).is_err() || set_macs(&mut frame, mac, own_mac).is_none() {
        dropped(Verdict::RewriteFailed, Some(h), ifindex, Zone::Uplink);
        return XDP_DROP;
    }
    count(v);
    // SAFETY: only records the target.
    unsafe { bpf_redirect(target, 0) as u32 }
}

#[inline(always)]
fn refuse(v: Verdict, h: Option<&Headers>, ifindex: u32) -> u32 {
    dropped(v, h, ifindex, Zone::Uplink);
    if enforcing() { XDP_DROP } else { XDP_PASS }
}
