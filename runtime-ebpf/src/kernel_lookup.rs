//! What only the kernel knows of a packet's way out.

use aya_ebpf::bindings::{__sk_buff, BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use runtime_common::Addr;
use runtime_common::maps::{FlowKey, Tuple};
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
    // How large the packet is, is looked at when it is sent: here a packet too large for the way would be told of none.
    fib.__bindgen_anon_1.tot_len = 1;
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

/// Whether answers with this key may be for a socket of the host: a connection, or one of UDP, which sends from the port that it
/// hears at. One that listens for connections begins none from its port.
// With a stack frame of its own.
#[inline(never)]
pub fn host_socket(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    let mut v4 = ipv4_tuple(&key.tuple);
    let (tuple, size) = socket_tuple(&key.tuple, &mut v4);
    // SAFETY: the context is the program's own, the tuple as large as said and only read; what is found is released.
    unsafe {
        let found = match key.protocol {
            TCP => return host_connection(skb, key),
            UDP => bpf_sk_lookup_udp(skb.cast(), tuple.cast(), size, HERE, 0),
            _ => return false,
        };
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
        true
    }
}

/// Whether a socket of the host has the TCP connection of what arrives with this key: not one that only listens.
// With a stack frame of its own.
#[inline(never)]
pub fn host_connection(skb: *mut __sk_buff, key: &FlowKey) -> bool {
    /// The kernel's number of the state LISTEN.
    const LISTEN: u32 = 10;
    let mut v4 = ipv4_tuple(&key.tuple);
    let (tuple, size) = socket_tuple(&key.tuple, &mut v4);
    // SAFETY: as for `host_socket`.
    unsafe {
        let found = bpf_skc_lookup_tcp(skb.cast(), tuple.cast(), size, HERE, 0);
        if found.is_null() {
            return false;
        }
        let is_connection = (*found).state != LISTEN;
        bpf_sk_release(found.cast());
        is_connection
    }
}

const HERE: u64 = BPF_F_CURRENT_NETNS as i64 as u64;

/// The kernel's `struct bpf_sock_tuple` of IPv4.
#[inline(always)]
fn ipv4_tuple(t: &Tuple) -> [u32; 3] {
    let ports = u32::from(t.sport) | u32::from(t.dport) << 16;
    let ports = if cfg!(target_endian = "big") { ports.rotate_left(16) } else { ports };
    [t.src.v4_as_word(), t.dst.v4_as_word(), ports]
}

/// The one of the packet's family, and its size. For IPv6 it is just a [`Tuple`].
#[inline(always)]
fn socket_tuple(t: &Tuple, v4: &mut [u32; 3]) -> (*mut u8, u32) {
    if t.src.is_v4() { (v4.as_mut_ptr().cast(), 12) } else { ((&raw const *t).cast_mut().cast(), 36) }
}
