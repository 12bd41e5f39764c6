//! What only the kernel knows of a packet's way out.

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams,
    bpf_sock_tuple,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use runtime_common::Addr;
use runtime_common::maps::FlowKey;
use runtime_common::packet::{Headers, TCP, UDP};

use crate::from_endpoint::{AF_INET, AF_INET6};
use crate::maps::UPLINKS;

/// `BPF_FIB_LOOKUP_SRC` of the kernel's uapi, since Linux 6.7: the route's preferred source, too.
const LOOKUP_SRC: u32 = 16;

/// The address that the host's routes give a packet from behind `bridge`, where they lead to an uplink.
// With a stack frame of its own: the helper's parameters are large.
#[inline(never)]
pub fn source(skb: *mut __sk_buff, h: &Headers, bridge: u32) -> Option<Addr> {
    let (mut ifindex, mut found) = way(skb, h, bridge, LOOKUP_SRC);
    if ifindex == 0 {
        // An older kernel refuses the flag.
        (ifindex, _) = way(skb, h, bridge, 0);
        found = Addr::ANY_V6;
    }
    // SAFETY: userspace replaces entries as a whole, and a freed one stays readable while the program runs (RCU).
    let uplink = unsafe { UPLINKS.get(ifindex) }?;
    if found == Addr::ANY_V6 || found == Addr::ANY_V4 {
        found = if h.v4 { uplink.ipv4 } else { uplink.ipv6 };
    }
    (found != Addr::ANY_V6).then_some(found)
}

/// The interface that a packet goes out by, 0 for none, and the source that the route prefers.
#[inline(always)]
fn way(skb: *mut __sk_buff, h: &Headers, bridge: u32, flags: u32) -> (u32, Addr) {
    // SAFETY: plain integers, for which zero is a value; the kernel fills in the rest.
    let mut fib: FibParams = unsafe { core::mem::zeroed() };
    fib.ifindex = bridge;
    fib.l4_protocol = h.key.protocol;
    let (src, dst) = (&h.key.tuple.src, &h.key.tuple.dst);
    if h.v4 {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = src.v4_as_word();
        fib.__bindgen_anon_4.ipv4_dst = dst.v4_as_word();
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = *src.as_words();
        fib.__bindgen_anon_4.ipv6_dst = *dst.as_words();
    }
    // SAFETY: the context is the program's own, the parameters are as large as said.
    let result = unsafe { bpf_fib_lookup(skb.cast(), &mut fib, size_of::<FibParams>() as i32, flags) } as u32;
    if result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH {
        return (0, Addr::ANY_V6);
    }
    if flags & LOOKUP_SRC == 0 {
        return (fib.ifindex, Addr::ANY_V6);
    }
    // SAFETY: the fields of the family that was asked about, all of which are initialized.
    let preferred = unsafe {
        if h.v4 { Addr::v4_word(fib.__bindgen_anon_3.ipv4_src) } else { Addr::words(fib.__bindgen_anon_3.ipv6_src) }
    };
    (fib.ifindex, preferred)
}

/// Whether a socket of the host takes what arrives with this key: a connection, or one that listens.
// With a stack frame of its own.
#[inline(never)]
pub fn host_socket(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    // SAFETY: plain integers, for which zero is a value.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let (src, dst) = (&key.tuple.src, &key.tuple.dst);
    let size = if src.is_v4() {
        let t = &mut tuple.__bindgen_anon_1;
        // SAFETY: a field of a union of integers.
        let t = unsafe { &mut t.ipv4 };
        (t.saddr, t.daddr) = (src.v4_as_word(), dst.v4_as_word());
        (t.sport, t.dport) = (key.tuple.sport, key.tuple.dport);
        12
    } else {
        // SAFETY: a field of a union of integers.
        let t = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (t.saddr, t.daddr) = (*src.as_words(), *dst.as_words());
        (t.sport, t.dport) = (key.tuple.sport, key.tuple.dport);
        36
    };
    let here = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the context is the program's own, the tuple as large as said; what is found is released.
    unsafe {
        let found = match key.protocol {
            TCP => bpf_skc_lookup_tcp(skb.cast(), &mut tuple, size, here, 0),
            UDP => bpf_sk_lookup_udp(skb.cast(), &mut tuple, size, here, 0),
            _ => return false,
        };
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
        true
    }
}
