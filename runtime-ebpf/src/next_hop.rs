//! The way of a container's packets to the outside: the host's routes, and what they said not long ago.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_redir_neigh,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh};
use runtime_common::Verdict;
use runtime_common::maps::{Flow, NextHop};
use runtime_common::packet::{ETH_LEN, Headers, Mac, Message, Packet, TCP, UDP};
use runtime_common::rewrite::set_macs;

use crate::fib::{AF_INET6, FibParams, params};
use crate::maps::NEXT_HOPS;
use crate::skb::{Readable, Skb};
use crate::stages::behind;
use crate::tables::{Maps, now};

/// What came of delivering a packet, in one register: what the program is to return; or why not, and the MTU of the way out
/// where the packet is larger than that.
#[derive(Clone, Copy)]
pub struct Sent(u64);

impl Sent {
    /// Delivered: `action` is what the program is to return.
    #[inline(always)]
    pub fn action(action: i32) -> Self {
        Sent(u64::from(action as u32))
    }

    /// Not delivered.
    #[inline(always)]
    pub fn refuse(reason: Verdict, mtu: u32) -> Self {
        Sent((reason as u64) << 32 | u64::from(mtu))
    }

    /// Why it was not delivered, if it was not.
    #[inline(always)]
    pub fn refused(self) -> Option<Verdict> {
        match (self.0 >> 32) as u32 {
            0 => None,
            TOO_BIG => Some(Verdict::TooBig),
            NO_ROUTE => Some(Verdict::NoRoute),
            _ => Some(Verdict::RewriteFailed),
        }
    }

    /// What the program is to return, or the MTU.
    #[inline(always)]
    pub fn detail(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Of [`Sent::bits`].
    #[inline(always)]
    pub fn from_bits(bits: u64) -> Self {
        Sent(bits)
    }
}

const TOO_BIG: u32 = Verdict::TooBig as u32;
const NO_ROUTE: u32 = Verdict::NoRoute as u32;

/// Sets the MAC addresses of the next hop and redirects there, by the way that the host's routes said not long ago or by what
/// they say now.
#[inline(always)]
pub fn outward(skb: &mut Skb<'_>, maps: &Maps, h: &Headers, flow: &mut Flow) -> Sent {
    let size = largest(skb, h);
    // An error's flow was not touched: it may have been silent for long.
    let known = flow.way_tick == Flow::tick(flow.last_seen) && !matches!(h.message, Message::IcmpError);
    if known && size != 0 && size <= flow.way_mtu {
        if set_macs(skb, Mac::read(&flow.mac), Mac::read(&flow.way_mac)).is_none() {
            return Sent::refuse(Verdict::RewriteFailed, 0);
        }
        // SAFETY: it only records the target; an interface that is gone drops the packet.
        return Sent::action(unsafe { bpf_redirect(flow.way_ifindex, 0) } as i32);
    }
    Sent(look_up(skb, maps, size, flow))
}

/// Asks the host's routes, which is done once in a while for each pair of addresses. The packet that asks is given its MAC
/// addresses by the kernel's own neighbour code, which sees to it that they stay true; those after it are given what was found.
// With a stack frame of its own.
#[inline(never)]
fn look_up(skb: &mut Skb<'_>, maps: &Maps, size: u16, flow: &mut Flow) -> u64 {
    let h = maps.headers();
    // Not the flow's own time: an error does not touch it.
    let tick = Flow::tick(now());
    let (Some(hop), Some(ep)) = (NEXT_HOPS.get_ptr_mut(NextHop::slot(&flow.to)), behind(skb.raw().ifindex)) else {
        return Sent::refuse(Verdict::NoRoute, 0).0;
    };
    let bridge = ep.bridge;
    // SAFETY: this CPU's element, and programs of one hook do not interrupt one another on a CPU.
    let hop = unsafe { &mut *hop };
    // CPUs that race for the flow know the same way, but for the moment in which a route changes.
    flow.way_tick = 0;
    if size != 0 && size <= hop.mtu && hop.is_of(&flow.to, bridge, h.key.protocol, tick) {
        cache_in_flow(flow, hop);
        // Its Ethernet header has been read, so that it can be written.
        let _ = set_macs(skb, Mac::read(&hop.mac), Mac::read(&hop.own_mac));
        // SAFETY: it only records the target; an interface that is gone drops the packet.
        return Sent::action(unsafe { bpf_redirect(hop.ifindex, 0) } as i32).0;
    }
    let fib = params(maps.fib(), h.v4, &flow.to.src, &flow.to.dst);
    fib.ifindex = bridge;
    fib.l4_protocol = h.key.protocol;
    // Also a route's own MTU counts, and what was learned of the path.
    fib.__bindgen_anon_1.tot_len = size;
    // SAFETY: the context is the program's own, the parameters are as large as said.
    let result = unsafe { bpf_fib_lookup(skb.0.skb.skb.cast(), fib, size_of::<FibParams>() as i32, 0) } as u32;
    // SAFETY: plain integers, whichever member of the union they are.
    let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
    match result {
        BPF_FIB_LKUP_RET_SUCCESS => {
            if size != 0 {
                hop.src = flow.to.src;
                hop.dst = flow.to.dst;
                hop.bridge = bridge;
                hop.tick = tick;
                hop.ifindex = fib.ifindex;
                hop.mac = fib.dmac;
                hop.own_mac = fib.smac;
                hop.mtu = mtu;
                hop.protocol = h.key.protocol;
                cache_in_flow(flow, hop);
                let _ = set_macs(skb, Mac::read(&fib.dmac), Mac::read(&fib.smac));
            }
            to_neighbour(maps, fib)
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => to_neighbour(maps, fib),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Sent::refuse(Verdict::TooBig, u32::from(mtu)).0,
        _ => Sent::refuse(Verdict::NoRoute, 0).0,
    }
}

/// Has a flow remember its way.
#[inline(always)]
fn cache_in_flow(flow: &mut Flow, hop: &NextHop) {
    flow.mac = hop.mac;
    flow.way_mac = hop.own_mac;
    flow.way_ifindex = hop.ifindex;
    flow.way_mtu = hop.mtu;
    flow.way_tick = hop.tick;
}

/// To the next hop that the host's routes named.
#[inline(always)]
fn to_neighbour(maps: &Maps, fib: &FibParams) -> u64 {
    let next = maps.neighbour();
    // SAFETY: the member that the family says, filled in by the kernel.
    unsafe {
        next.nh_family = fib.family.into();
        next.__bindgen_anon_1.ipv6_nh = [0; 4];
        if fib.family == AF_INET6 {
            next.__bindgen_anon_1.ipv6_nh = fib.__bindgen_anon_4.ipv6_dst;
        } else {
            next.__bindgen_anon_1.ipv4_nh = fib.__bindgen_anon_4.ipv4_dst;
        }
        // It only records the target.
        let action = bpf_redirect_neigh(fib.ifindex, next, size_of::<bpf_redir_neigh>() as i32, 0);
        Sent::action(action as i32).0
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
