//! What only the kernel knows of a packet's way out.

use aya_ebpf::bindings::{__sk_buff, BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use runtime_common::Addr;
use runtime_common::maps::FlowKey;
use runtime_common::packet::{Headers, TCP, UDP};

use crate::fib::{FibParams, FibRoom, params};
use crate::maps::UPLINKS;

/// `BPF_FIB_LOOKUP_SRC` of the kernel's uapi, since Linux 6.7: the route's preferred source, too.
const LOOKUP_SRC: u32 = 16;

/// The address that the host's routes give a packet from behind `bridge`, where they lead to an uplink, into `found`.
// With a stack frame of its own: the helper's parameters are large.
#[inline(never)]
pub fn source(skb: *mut __sk_buff, room: &mut FibRoom, h: &Headers, bridge: u32, found: &mut Addr) -> bool {
    let fib = params(room, h.v4, &h.key.tuple.src, &h.key.tuple.dst);
    fib.ifindex = bridge;
    fib.l4_protocol = h.key.protocol;
    let size = size_of::<FibParams>() as i32;
    // SAFETY: the context is the program's own, the parameters are as large as said.
    let mut result = unsafe { bpf_fib_lookup(skb.cast(), fib, size, LOOKUP_SRC) };
    let told = result >= 0;
    if !told {
        // An older kernel refuses the flag, and has changed nothing.
        // SAFETY: as above.
        result = unsafe { bpf_fib_lookup(skb.cast(), fib, size, 0) };
    }
    if result != i64::from(BPF_FIB_LKUP_RET_SUCCESS) && result != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        return false;
    }
    let ifindex = fib.ifindex;
    // SAFETY: userspace replaces entries as a whole, and a freed one stays readable while the program runs (RCU).
    let Some(uplink) = (unsafe { UPLINKS.get(ifindex) }) else {
        return false;
    };
    // SAFETY: the fields of the family that was asked about, all of which are initialized.
    *found = unsafe {
        match (h.v4, told) {
            (true, true) => Addr::v4_word(fib.__bindgen_anon_3.ipv4_src),
            (false, true) => Addr::words(fib.__bindgen_anon_3.ipv6_src),
            (true, false) => uplink.ipv4,
            (false, false) => uplink.ipv6,
        }
    };
    *found != Addr::ANY_V6 && *found != Addr::ANY_V4
}

/// Whether a socket of the host takes what arrives with this key: a connection, or one that listens.
// With a stack frame of its own.
#[inline(never)]
pub fn host_socket(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    let t = &key.tuple;
    let mut v4 = [t.src.v4_as_word(), t.dst.v4_as_word(), u32::from(t.sport) | u32::from(t.dport) << 16];
    if cfg!(target_endian = "big") {
        v4[2] = u32::from(t.sport) << 16 | u32::from(t.dport);
    }
    // For IPv6 the kernel's tuple is just this one.
    let (tuple, size) =
        if t.src.is_v4() { (v4.as_mut_ptr().cast::<u8>(), 12) } else { ((&raw const *t).cast_mut().cast(), 36) };
    let here = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the context is the program's own, the tuple as large as said and only read; what is found is released.
    unsafe {
        let found = match key.protocol {
            TCP => bpf_skc_lookup_tcp(skb.cast(), tuple.cast(), size, here, 0),
            UDP => bpf_sk_lookup_udp(skb.cast(), tuple.cast(), size, here, 0),
            _ => return false,
        };
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
        true
    }
}
