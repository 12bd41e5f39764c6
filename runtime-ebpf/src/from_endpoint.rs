//! tc ingress of a container's host-side interface: what the container sends.

use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as FibParams,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{Decision, arp, endpoint};
use runtime_common::maps::{ENDPOINT_ISOLATED, Endpoint, Flow, FlowAction, Tuple, Zone};
use runtime_common::packet::{ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_LEN, Headers, Mac, Packet, TCP, UDP, ethernet, headers};
use runtime_common::rewrite::{set_macs, translate};
use runtime_common::router::Complaint;

use crate::complain::complain;
use crate::maps::ENDPOINTS;
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Readable, Skb};
use crate::tables::Maps;

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

#[classifier]
pub fn from_endpoint(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    let ifindex = skb.raw().ifindex;
    // SAFETY: entries are replaced as a whole and stay readable while the program runs.
    let Some(ep) = (unsafe { ENDPOINTS.get(ifindex) }) else {
        return refuse(Verdict::EndpointClosed, None, ifindex);
    };
    let ethernet = match ethernet(&skb) {
        Ok(e) => e,
        Err(v) => return refuse(v, None, ifindex),
    };
    if ethernet.src != Mac::read(&ep.mac) {
        return refuse(Verdict::SpoofedMac, None, ifindex);
    }
    match ethernet.ethertype {
        ETH_IPV4 | ETH_IPV6 if skb.raw().vlan_present == 0 => {}
        ETH_ARP if skb.raw().vlan_present == 0 => return finish(arp(&skb, ep), ifindex),
        _ if ep.flags & ENDPOINT_ISOLATED == 0 => return finish(Decision::Pass(Verdict::Network), ifindex),
        _ => return refuse(Verdict::EtherType, None, ifindex),
    }
    let Some(maps) = Maps::with(ctx.skb.skb) else {
        return DROP;
    };
    let h = maps.headers();
    if let Err(v) = headers(&skb, ethernet.ethertype, Zone::Endpoint, h) {
        return refuse(v, None, ifindex);
    }
    let complaint = match endpoint(&skb, &maps, ep, ifindex, h) {
        Decision::Pass(v) => {
            count(v);
            return NEXT;
        }
        Decision::Drop(Verdict::TtlExceeded) if enforcing() => Complaint::TimeExceeded,
        Decision::Drop(v) => return refuse(v, Some(h), ifindex),
        Decision::Forward(v, flow) => {
            // SAFETY: an entry of a map, valid while the program runs.
            match unsafe { forward(&mut skb, h, ep, flow.as_ref()) } {
                Ok(action) => {
                    count(v);
                    return action;
                }
                Err(Refusal::Complain(mtu)) => Complaint::TooBig(mtu),
                Err(Refusal::Drop(v)) => {
                    dropped(v, Some(h), ifindex, Zone::Endpoint);
                    return DROP;
                }
            }
        }
    };
    complain_back(&mut skb, h, ep, ifindex, complaint)
}

/// Why a packet is not sent on after all.
enum Refusal {
    /// With a reason, silently.
    Drop(Verdict),
    /// Too big for the way out, which takes so many bytes: the container is told. Also where it allowed IPv4 to cut the
    /// packet, which the datapath cannot: its next ones will be small enough.
    Complain(u16),
}

/// Answers a container's packet with the error about it.
#[inline(always)]
fn complain_back(skb: &mut Skb<'_>, h: &Headers, ep: &Endpoint, ifindex: u32, complaint: Complaint) -> i32 {
    dropped(complaint.verdict(), Some(h), ifindex, Zone::Endpoint);
    let gateway = if h.v4 { &ep.gateway4 } else { &ep.gateway6 };
    if !complain(skb, h, gateway, complaint) {
        return DROP;
    }
    // SAFETY: as in `forward`.
    unsafe {
        bpf_skb_change_type(skb.0.skb.skb, PACKET_HOST);
        bpf_redirect_peer(ifindex, 0) as i32
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
fn forward(skb: &mut Skb<'_>, h: &Headers, ep: &Endpoint, flow: &Flow) -> Result<i32, Refusal> {
    let (to, target, action) = (&flow.to, flow.ifindex, flow.action);
    let out = action == FlowAction::ReplyOut as u8 || action == FlowAction::Masquerade as u8;
    let way = if out { Some(way_out(skb, h, ep.bridge, to)) } else { None };
    match way.map(Way::result) {
        None | Some(BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH) => {}
        Some(BPF_FIB_LKUP_RET_FRAG_NEEDED) => {
            return Err(Refusal::Complain(way.map_or(0, |w| w.detail() as u16)));
        }
        Some(_) => return Err(Refusal::Drop(Verdict::NoRoute)),
    }
    if action != FlowAction::Link as u8 && action != FlowAction::LinkReply as u8 {
        translate(skb, h, to).map_err(Refusal::Drop)?;
    }
    // SAFETY: the context is the program's own; the redirections only record the target.
    Ok(unsafe {
        match way {
            Some(way) if way.result() == BPF_FIB_LKUP_RET_SUCCESS => bpf_redirect(way.detail(), 0),
            // The kernel asks for the next hop's MAC address.
            Some(way) => bpf_redirect_neigh(way.detail(), core::ptr::null_mut(), 0, 0),
            None if action == FlowAction::Ask as u8 => return Ok(NEXT),
            None if action == FlowAction::ToLoopback as u8 => return to_loopback(skb, h.v4).map_err(Refusal::Drop),
            None => {
                // The frame was for the bridge or for the other container, seen from this interface; in there it is for
                // its stack.
                bpf_skb_change_type(skb.0.skb.skb, PACKET_HOST);
                bpf_redirect_peer(target, 0)
            }
        }
    } as i32)
}

/// To a socket of the host that is bound to a loopback address.
#[inline(always)]
fn to_loopback(skb: &mut Skb<'_>, v4: bool) -> Result<i32, Verdict> {
    /// Index of the loopback interface: the same in every network namespace.
    const LOOPBACK_IFINDEX: u32 = 1;
    // The bridge takes loopback addresses of IPv4 in, where `route_localnet` lets it; of IPv6 it never does.
    if v4 {
        return Ok(NEXT);
    }
    let none = Mac::new([0; 6]);
    set_macs(skb, none, none).ok_or(Verdict::RewriteFailed)?;
    // SAFETY: it only records the target.
    Ok(unsafe { bpf_redirect(LOOPBACK_IFINDEX, u64::from(BPF_F_INGRESS)) } as i32)
}

/// What the host's routes say: a result of `bpf_fib_lookup` above an interface, or above the MTU where the packet is larger
/// than that; in one register.
#[derive(Clone, Copy)]
struct Way(u64);

impl Way {
    #[inline(always)]
    fn result(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn detail(self) -> u32 {
        self.0 as u32
    }
}

/// Out by the host's routes. Where the next hop's MAC address is known, the packet is given it.
// With a stack frame of its own: the helper's parameters are large.
#[inline(never)]
fn way_out(skb: &mut Skb<'_>, h: &Headers, bridge: u32, to: &Tuple) -> Way {
    // SAFETY: plain integers, for which zero is a value; the kernel fills in the rest.
    let mut fib: FibParams = unsafe { core::mem::zeroed() };
    fib.ifindex = bridge;
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
    // Also a route's own MTU counts, and what was learned of the path.
    fib.__bindgen_anon_1.tot_len = largest(skb, h);
    // SAFETY: the context is the program's own, the parameters are as large as said.
    let result = unsafe { bpf_fib_lookup(skb.0.skb.skb.cast(), &mut fib, size_of::<FibParams>() as i32, 0) } as u32;
    if result == BPF_FIB_LKUP_RET_SUCCESS {
        // Its Ethernet header has been read, so that it can be written.
        let _ = set_macs(skb, Mac::new(fib.dmac), Mac::new(fib.smac));
    }
    let detail = if result == BPF_FIB_LKUP_RET_FRAG_NEEDED {
        // SAFETY: that result comes with the MTU.
        u32::from(unsafe { fib.__bindgen_anon_1.mtu_result })
    } else {
        fib.ifindex
    };
    Way(u64::from(result) << 32 | u64::from(detail))
}

/// Length of the largest packet that this one will be on the wire, in bytes from the IP header on; 0 has the kernel look for
/// itself.
#[inline(always)]
fn largest(skb: &Skb<'_>, h: &Headers) -> u16 {
    let segment = skb.raw().gso_size;
    if segment == 0 {
        return h.bytes as u16;
    }
    let header = match h.key.protocol {
        TCP => Readable(skb).window::<14>(h.l4()).map_or(60, |w| u32::from(w.u8(12) >> 4) * 4),
        UDP => 8,
        _ => return 0,
    };
    (h.l4 - ETH_LEN as u32 + header + segment) as u16
}
