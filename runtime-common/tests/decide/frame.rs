//! A packet in memory of its own, read and written as the kernel's are.

use runtime_common::Verdict;
use runtime_common::maps::{ChecksumDeltas, Tuple};
use runtime_common::packet::{Headers, Packet};
use runtime_common::rewrite::{PacketMut, translate};

pub struct Frame(pub Vec<u8>);

impl Packet for Frame {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, offset: usize, len: usize) -> Option<*const u8> {
        self.0.get(offset..offset + len).map(<[u8]>::as_ptr)
    }
}

impl PacketMut for Frame {
    fn at_mut(&mut self, offset: usize, len: usize) -> Option<*mut u8> {
        self.0.get_mut(offset..offset + len).map(<[u8]>::as_mut_ptr)
    }
}

/// Translates a packet as a flow from its tuple to another one does.
pub fn translate_to(p: &mut Frame, h: &Headers, to: &Tuple) -> Result<(), Verdict> {
    translate(p, h, to, ChecksumDeltas::between(&h.key.tuple, to))
}
