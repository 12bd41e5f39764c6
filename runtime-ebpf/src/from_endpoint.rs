//! tc ingress of a container's host-side interface: what the container sends.

use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use runtime_common::Verdict;
use runtime_common::decide::{Decision, arp, endpoint, endpoint_known};
use runtime_common::maps::{ENDPOINT_ISOLATED, Endpoint, Flow, FlowAction, Sums, Way, Zone};
use runtime_common::packet::{
    ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_LEN, Headers, Mac, Message, Packet, TCP, UDP, ethernet, headers,
};
use runtime_common::rewrite::{set_macs, translate};
use runtime_common::router::Complaint;

use crate::complain::complain;
use crate::fib::{AF_INET, AF_INET6, FibParams, FibRoom};
use crate::maps::{ENDPOINTS, WAYS};
use crate::report::{count, dropped, enforcing};
use crate::skb::{DROP, NEXT, PACKET_HOST, Readable, Skb};
use crate::tables::{Maps, now};

#[classifier]
pub fn from_endpoint(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    let ifindex = skb.raw().ifindex;
    let ethernet = match ethernet(&skb) {
        Ok(e) => e,
        Err(v) => return refuse(v, None, ifindex),
    };
    let Some(maps) = Maps::with(ctx.skb.skb) else {
        return DROP;
    };
    let h = maps.headers();
    let is_ip = matches!(ethernet.ethertype, ETH_IPV4 | ETH_IPV6) && skb.raw().vlan_present == 0;
    let read = if is_ip { headers(&skb, ethernet.ethertype, Zone::Endpoint, h) } else { Err(Verdict::EtherType) };
    let known = if read.is_ok() { endpoint_known(&maps, ifindex, ethernet.src, h) } else { None };
    let decision = match known {
        Some(decision) => decision,
        None => {
            let Some(ep) = behind(ifindex) else {
                return refuse(Verdict::EndpointClosed, None, ifindex);
            };
            if ethernet.src != Mac::read(&ep.mac) {
                return refuse(Verdict::SpoofedMac, None, ifindex);
            }
            match ethernet.ethertype {
                _ if is_ip => {}
                ETH_ARP if skb.raw().vlan_present == 0 => return finish(arp(&skb, ep), ifindex),
                _ if ep.flags & ENDPOINT_ISOLATED == 0 => return finish(Decision::Pass(Verdict::Network), ifindex),
                _ => return refuse(Verdict::EtherType, None, ifindex),
            }
            if let Err(v) = read {
                return refuse(v, None, ifindex);
            }
            endpoint(&skb, &maps, ep, ifindex, h)
        }
    };
    let complaint = match decision {
        Decision::Pass(v) => {
            count(v);
            return NEXT;
        }
        Decision::Drop(Verdict::TtlExceeded) if enforcing() => Complaint::TimeExceeded,
        Decision::Drop(v) => return refuse(v, Some(h), ifindex),
        Decision::Forward(v, flow) => {
            // SAFETY: an entry of a map, valid while the program runs.
            match forward(&mut skb, h, unsafe { &mut *flow.as_ptr() }) {
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
    complain_back(&mut skb, h, ifindex, complaint)
}

/// The container behind an interface.
#[inline(always)]
fn behind(ifindex: u32) -> Option<&'static Endpoint> {
    // SAFETY: entries are replaced as a whole and stay readable while the program runs.
    unsafe { ENDPOINTS.get(ifindex) }
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
fn complain_back(skb: &mut Skb<'_>, h: &Headers, ifindex: u32, complaint: Complaint) -> i32 {
    dropped(complaint.verdict(), Some(h), ifindex, Zone::Endpoint);
    let Some(ep) = behind(ifindex) else {
        return DROP;
    };
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
fn forward(skb: &mut Skb<'_>, h: &Headers, flow: &mut Flow) -> Result<i32, Refusal> {
    let (target, action) = (flow.ifindex, flow.action);
    if action == FlowAction::ReplyOut as u8 || action == FlowAction::Masquerade as u8 {
        return outward(skb, h, flow);
    }
    // Over a link nothing changes, but for a source port that would be mistaken for another conversation's.
    if flow.sums != Sums::default() {
        translate(skb, h, &flow.to, flow.sums).map_err(Refusal::Drop)?;
    }
    if action == FlowAction::Ask as u8 {
        return Ok(NEXT);
    }
    if action == FlowAction::ToLoopback as u8 {
        return to_loopback(skb, h.v4).map_err(Refusal::Drop);
    }
    // SAFETY: the context is the program's own; the redirection only records the target.
    Ok(unsafe {
        // The frame was for the bridge or for the other container, seen from this interface; in there it is for its stack.
        bpf_skb_change_type(skb.0.skb.skb, PACKET_HOST);
        bpf_redirect_peer(target, 0)
    } as i32)
}

/// To the outside, by the way that the host's routes said not long ago, or by what they say now.
#[inline(always)]
fn outward(skb: &mut Skb<'_>, h: &Headers, flow: &mut Flow) -> Result<i32, Refusal> {
    let size = largest(skb, h);
    // An error's flow was not touched: it may have been silent for long.
    let known = flow.way_tick == Flow::tick(flow.last_seen) && !matches!(h.message, Message::IcmpError);
    if known && size != 0 && size <= flow.way_mtu {
        set_macs(skb, Mac::read(&flow.mac), Mac::read(&flow.way_mac)).ok_or(Refusal::Drop(Verdict::RewriteFailed))?;
        translate(skb, h, &flow.to, flow.sums).map_err(Refusal::Drop)?;
        // SAFETY: it only records the target; an interface that is gone drops the packet.
        return Ok(unsafe { bpf_redirect(flow.way_ifindex, 0) } as i32);
    }
    let way = way_out(skb, h, size, flow);
    match way.result() {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
            translate(skb, h, &flow.to, flow.sums).map_err(Refusal::Drop)?;
            Ok(way.detail() as i32)
        }
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(Refusal::Complain(way.detail() as u16)),
        _ => Err(Refusal::Drop(Verdict::NoRoute)),
    }
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

/// What came of asking for the way: a result of `bpf_fib_lookup` above what the program is to return, or above the MTU where
/// the packet is larger than that; in one register.
#[derive(Clone, Copy)]
struct Told(u64);

impl Told {
    #[inline(always)]
    fn new(result: u32, detail: u32) -> Self {
        Told(u64::from(result) << 32 | u64::from(detail))
    }

    #[inline(always)]
    fn result(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn detail(self) -> u32 {
        self.0 as u32
    }
}

/// Out by the host's routes, which are asked once in a while for each pair of addresses. The packet that asks is given its
/// MAC addresses by the kernel's own neighbour code, which sees to it that they stay true; those after it are given what was
/// found.
// With a stack frame of its own: the helpers' parameters are large.
#[inline(never)]
fn way_out(skb: &mut Skb<'_>, h: &Headers, size: u16, flow: &mut Flow) -> Told {
    // Not the flow's own time: an error does not touch it.
    let tick = Flow::tick(now());
    let to = &flow.to;
    let (Some(way), Some(ep)) = (WAYS.get_ptr_mut(Way::slot(to)), behind(skb.raw().ifindex)) else {
        return Told::new(BPF_FIB_LKUP_RET_BLACKHOLE, 0);
    };
    let bridge = ep.bridge;
    // SAFETY: this CPU's element, and programs of one hook do not interrupt one another on a CPU.
    let way = unsafe { &mut *way };
    // CPUs that race for the flow know the same way, but for the moment in which a route changes.
    flow.way_tick = 0;
    if size != 0 && size <= way.mtu && way.is_of(to, bridge, h.key.protocol, tick) {
        learn(flow, way);
        // Its Ethernet header has been read, so that it can be written.
        let _ = set_macs(skb, Mac::read(&way.mac), Mac::read(&way.own_mac));
        // SAFETY: it only records the target; an interface that is gone drops the packet.
        return Told::new(BPF_FIB_LKUP_RET_SUCCESS, unsafe { bpf_redirect(way.ifindex, 0) } as u32);
    }
    let mut room = FibRoom::zeroed();
    let fib = room.params();
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
    fib.__bindgen_anon_1.tot_len = size;
    // SAFETY: the context is the program's own, the parameters are as large as said.
    let result = unsafe { bpf_fib_lookup(skb.0.skb.skb.cast(), fib, size_of::<FibParams>() as i32, 0) } as u32;
    // SAFETY: plain integers, whichever member of the union they are.
    let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
    let detail = match result {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
            if result == BPF_FIB_LKUP_RET_SUCCESS && size != 0 {
                way.src = to.src;
                way.dst = to.dst;
                way.bridge = bridge;
                way.tick = tick;
                way.ifindex = fib.ifindex;
                way.mac = fib.dmac;
                way.own_mac = fib.smac;
                way.mtu = mtu;
                way.protocol = h.key.protocol;
                learn(flow, way);
                let _ = set_macs(skb, Mac::new(fib.dmac), Mac::new(fib.smac));
            }
            to_neighbour(fib)
        }
        _ => u32::from(mtu),
    };
    Told::new(result, detail)
}

/// Has a flow remember its way.
#[inline(always)]
fn learn(flow: &mut Flow, way: &Way) {
    flow.mac = way.mac;
    flow.way_mac = way.own_mac;
    flow.way_ifindex = way.ifindex;
    flow.way_mtu = way.mtu;
    flow.way_tick = way.tick;
}

/// To the next hop that the host's routes named.
#[inline(always)]
fn to_neighbour(fib: &FibParams) -> u32 {
    // Every byte of it: the verifier wants to see that.
    let address = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: [0; 4] };
    let mut next = bpf_redir_neigh { nh_family: fib.family.into(), __bindgen_anon_1: address };
    // SAFETY: the member that the family says, filled in by the kernel.
    unsafe {
        if fib.family == AF_INET6 {
            next.__bindgen_anon_1.ipv6_nh = fib.__bindgen_anon_4.ipv6_dst;
        } else {
            next.__bindgen_anon_1.ipv4_nh = fib.__bindgen_anon_4.ipv4_dst;
        }
        // It only records the target.
        bpf_redirect_neigh(fib.ifindex, &mut next, size_of::<bpf_redir_neigh>() as i32, 0) as u32
    }
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
