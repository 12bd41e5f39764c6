//! Packets at tc hooks.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_csum_update, bpf_l4_csum_replace, bpf_skb_pull_data};
use aya_ebpf::programs::TcContext;
use runtime_common::checksum;
use runtime_common::maps::ChecksumDeltas;
use runtime_common::packet::{ETH_LEN, Packet};
use runtime_common::rewrite::{PacketMut, patch};

/// To the next program of the hook, and to the stack after the last.
pub const NEXT: i32 = TC_ACT_UNSPEC;
/// Nowhere.
pub const DROP: i32 = TC_ACT_SHOT;

/// `skb->pkt_type` of what is addressed to this interface.
pub const PACKET_HOST: u32 = 0;
/// Of what is addressed to everybody, and to a group of them.
pub const PACKET_BROADCAST: u32 = 1;
pub const PACKET_MULTICAST: u32 = 2;

/// A packet at a tc hook. `ETH` is the length of its Ethernet header: of an interface without Ethernet (a tunnel) it has none, but
/// all offsets are as if it had.
pub struct Skb<'a, const ETH: usize = ETH_LEN>(pub &'a TcContext);

impl<'a, const ETH: usize> Skb<'a, ETH> {
    /// What is to be taken from an offset for the helpers, which count from where the packet begins.
    const MISSING: usize = ETH_LEN - ETH;

    /// Where that offset is, counted from where the packet begins. Bounded, or the verifier would see one before the packet.
    #[inline(always)]
    fn from_start(offset: usize) -> usize {
        if Self::MISSING == 0 { offset } else { offset.wrapping_sub(Self::MISSING) & 0x3ff }
    }

    /// The kernel's fields.
    #[inline(always)]
    pub fn raw(&self) -> &__sk_buff {
        // SAFETY: valid for as long as the program runs.
        unsafe { &*self.0.skb.skb }
    }
}

impl<const ETH: usize> Packet for Skb<'_, ETH> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len() as usize + Self::MISSING
    }

    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*const u8> {
        let offset = Self::from_start(offset);
        let start = self.0.data() + offset;
        if start + len <= self.0.data_end() {
            return Some(start as *const u8);
        }
        // The sender's or the device's pages: for headers alone, as copying costs more than all the rest.
        if !pull(self.0.skb.skb, (offset + len) as u32) {
            return None;
        }
        let start = self.0.data() + offset;
        if start + len <= self.0.data_end() { Some(start as *const u8) } else { None }
    }
}

/// Makes the first `len` bytes directly readable.
#[inline(never)]
fn pull(skb: *mut __sk_buff, len: u32) -> bool {
    // SAFETY: the context is the one that the program was called with.
    unsafe { len <= (*skb).len && bpf_skb_pull_data(skb, len) == 0 }
}

/// A packet of which what is asked for has been made directly readable: the verifier need not follow what would be if it had
/// to be moved.
pub struct Readable<'a, const ETH: usize = ETH_LEN>(pub &'a Skb<'a, ETH>);

impl<const ETH: usize> Readable<'_, ETH> {
    /// Start and end of what is directly readable.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let md = self.0.0.skb.skb;
        // SAFETY: the context is valid while the program runs. Volatile, or the compiler would pass both on to functions
        // that have a stack frame of their own as plain numbers, which the verifier refuses.
        unsafe { (read_volatile(&raw const (*md).data) as usize, read_volatile(&raw const (*md).data_end) as usize) }
    }
}

impl<const ETH: usize> Packet for Readable<'_, ETH> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*const u8> {
        let (start, end) = self.bounds();
        let start = start + Skb::<ETH>::from_start(offset);
        if start + len <= end { Some(start as *const u8) } else { None }
    }
}

impl<const ETH: usize> PacketMut for Skb<'_, ETH> {
    // What is written has been read: it is where it can be.
    #[inline(always)]
    fn at_mut(&mut self, offset: usize, len: usize) -> Option<*mut u8> {
        Readable(self).at(offset, len).map(<*const u8>::cast_mut)
    }

    #[inline(always)]
    fn update_hardware_checksum(&mut self, difference: u32) {
        // SAFETY: the helper only changes the device's sum over the packet, and refuses where there is none.
        let _ = unsafe { bpf_csum_update(self.0.skb.skb, difference) };
    }

    // The helper knows what the packet itself does not say: whether the sender's checksum is complete, left to the
    // device, or verified by it. It takes longer than the lookup of a flow: once is enough.
    #[inline(always)]
    fn update_checksum(&mut self, offset: usize, sums: ChecksumDeltas, udp: bool) -> Option<()> {
        let (skb, pseudo) = (self.0.skb.skb, u64::from(BPF_F_PSEUDO_HDR));
        let correct = |skb, offset: usize, difference, flags| correct(skb, Self::from_start(offset), difference, flags);
        if sums.addresses == 0 {
            return if sums.ports == 0 { Some(()) } else { correct(skb, offset, sums.ports, mangled(udp)) };
        }
        if sums.ports == 0 {
            return correct(skb, offset, sums.addresses, pseudo | mangled(udp));
        }
        let before = Readable(self).window::<2>(offset)?.u16(0);
        if udp && before == 0 {
            return Some(());
        }
        correct(skb, offset, sums.addresses, pseudo | mangled(udp))?;
        if checksum::fold(sums.addresses) == 0xffff {
            // Nothing changed that would tell.
            return correct(skb, offset, sums.ports, mangled(udp));
        }
        // What is left to the device is a sum, without the ports, to which the difference was added; what is complete is a
        // sum's complement, from which it was taken. The two are never the same.
        let after = Readable(self).window::<2>(offset)?.u16(0);
        let complete = checksum::update(before, sums.addresses);
        if after == complete || udp && complete == 0 && after == 0xffff {
            return patch(self, offset, sums.ports, udp);
        }
        Some(())
    }
}

/// UDP over IPv4 without a checksum stays without one (RFC 768).
#[inline(always)]
fn mangled(udp: bool) -> u64 {
    if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}

#[inline(always)]
fn correct(skb: *mut __sk_buff, offset: usize, difference: u32, flags: u64) -> Option<()> {
    // SAFETY: the helper checks the offset.
    (unsafe { bpf_l4_csum_replace(skb, offset as u32, 0, u64::from(difference), flags) } == 0).then_some(())
}
