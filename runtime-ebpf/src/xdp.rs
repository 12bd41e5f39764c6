//! Packets at XDP hooks.

use aya_ebpf::programs::XdpContext;
use runtime_common::packet::Packet;
use runtime_common::rewrite::PacketMut;

/// A packet at an XDP hook: all of it is directly readable, and its checksums are its own.
pub struct Frame<'a>(pub &'a XdpContext);

impl Packet for Frame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*const u8> {
        let start = self.0.data() + offset;
        if start + len > self.0.data_end() {
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
