//! Packets at XDP hooks.

use core::ptr::read_volatile;

use aya_ebpf::programs::XdpContext;
use runtime_common::packet::Packet;
use runtime_common::rewrite::PacketMut;

/// A packet at an XDP hook: all of it is directly readable, and its checksums are its own.
pub struct Frame<'a>(pub &'a XdpContext);

impl Frame<'_> {
    /// Start and end of the frame.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let md = self.0.ctx;
        // SAFETY: the context is valid while the program runs. Volatile, or the compiler would pass both on to functions
        // that have a stack frame of their own as plain numbers, which the verifier refuses.
        unsafe { (read_volatile(&raw const (*md).data) as usize, read_volatile(&raw const (*md).data_end) as usize) }
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        let (start, end) = self.bounds();
        end - start
    }

    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*const u8> {
        let (start, end) = self.bounds();
        let start = start + offset;
        if start + len > end {
            return None;
        }
        Some(start as *const u8)
    }
}

impl PacketMut for Frame<'_> {
    #[inline(always)]
    fn at_mut(&mut self, offset: usize, len: usize) -> Option<*mut u8> {
        self.at(offset, len).map(<*const u8>::cast_mut)
    }
}
