//! Turning a packet into the ICMP error about it.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use runtime_common::Addr;
use runtime_common::icmp_error::{
    ErrorHeaders, IcmpError, MAX_QUOTED, checksum_offset, error_headers_len, quoted_len, should_reply, sum_words,
};
use runtime_common::packet::{ETH_LEN, Headers, Packet, ethernet};
use runtime_common::rewrite::set_macs;

use crate::skb::{Readable, Skb};
use crate::tables::Maps;

const BPF_ADJ_ROOM_MAC: u32 = 1;
const BPF_F_RECOMPUTE_CSUM: u64 = 1;

/// Instead of an MTU: the packet's time to live ran out.
pub const TIME_EXCEEDED: u32 = 0;

/// Makes of the packet whose headers are in the scratch room the error about it, from [`Maps::error_source`] to its sender, the
/// MAC addresses swapped: that it is larger than `mtu`, or [`TIME_EXCEEDED`]. False where none is due or the kernel refuses; the
/// packet is to be dropped then.
#[inline(always)]
pub fn send_icmp_error(skb: *mut __sk_buff, mtu: u32) -> bool {
    icmp_error(skb, mtu) != 0
}

/// The error, as a function that the kernel verifies by itself: it is from the address in the scratch room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icmp_error(skb: *mut __sk_buff, mtu: u32) -> u32 {
    let Some(maps) = Maps::new() else {
        return 0;
    };
    let h = maps.headers();
    let error = if mtu == TIME_EXCEEDED { IcmpError::TimeExceeded } else { IcmpError::TooBig(mtu as u16) };
    let ctx = TcContext::new(skb);
    let mut skb: Skb<'_> = Skb(&ctx);
    let done = should_reply(h)
        && cut(&mut skb, h).is_some_and(|sum| wrap(&mut skb, h, maps.error_source(), error, sum).is_some());
    done.into()
}

/// Cuts the packet to what is quoted, and returns the sum over it.
#[inline(always)]
fn cut(skb: &mut Skb<'_>, h: &Headers) -> Option<u32> {
    let deferred = deferred(skb, h);
    let quoted = quoted_len(h);
    // SAFETY: the context is the program's own.
    if unsafe { bpf_skb_change_tail(skb.0.skb.skb, ETH_LEN as u32 + quoted, 0) } != 0 {
        return None;
    }
    match deferred {
        None => sum_words(&Readable(skb), quoted),
        // When the device fills in the checksum, the sum over all that it covers becomes the complement of what stands in its
        // place now: that of the pseudo-header.
        Some(field) => {
            let before = h.l4 - ETH_LEN as u32;
            Some(sum_words(&Readable(skb), before & (MAX_QUOTED - 1))? + u32::from(!field))
        }
    }
}

/// What stands in the place of the transport checksum where it is left to the device (CHECKSUM_PARTIAL): the helper leaves
/// it alone then, and only then.
#[inline(always)]
fn deferred(skb: &mut Skb<'_>, h: &Headers) -> Option<u16> {
    let offset = checksum_offset(h)?;
    let before = skb.window::<2>(offset)?.u16(0);
    // SAFETY: the helper checks the offset.
    let replace = |skb: &Skb<'_>, from, to| unsafe { bpf_l4_csum_replace(skb.0.skb.skb, offset as u32, from, to, 2) };
    if replace(skb, 0, 1) != 0 {
        return None;
    }
    if skb.window::<2>(offset)?.u16(0) == before {
        return Some(before);
    }
    replace(skb, 1, 0);
    None
}

#[inline(always)]
fn wrap(skb: &mut Skb<'_>, h: &Headers, from: &Addr, error: IcmpError, sum: u32) -> Option<()> {
    let len = error_headers_len(h.v4);
    let mut envelope = ErrorHeaders([0; 12]);
    envelope.write(h, from, error, quoted_len(h), sum);
    // SAFETY: the context is the program's own.
    if unsafe { bpf_skb_adjust_room(skb.0.skb.skb, len as i32, BPF_ADJ_ROOM_MAC, 0) } != 0 {
        return None;
    }
    let bytes = (&raw const envelope.0).cast_mut().cast();
    // SAFETY: the helper checks the offset; 48 bytes are there, of which 28 or all are read.
    let result = unsafe {
        if h.v4 {
            bpf_skb_store_bytes(skb.0.skb.skb, ETH_LEN as u32, bytes, 28, BPF_F_RECOMPUTE_CSUM)
        } else {
            bpf_skb_store_bytes(skb.0.skb.skb, ETH_LEN as u32, bytes, 48, BPF_F_RECOMPUTE_CSUM)
        }
    };
    if result != 0 {
        return None;
    }
    let macs = ethernet(&Readable(skb)).ok()?;
    set_macs(skb, macs.src, macs.dst)
}
