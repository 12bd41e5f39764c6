//! Looking at a packet's bytes: with one bounds check for all that is read.

use crate::Addr;

/// A packet that starts with its Ethernet header.
#[expect(clippy::len_without_is_empty, reason = "no hook is given an empty packet")]
pub trait Packet {
    /// Length of the whole packet in bytes, also of what cannot be read directly.
    fn len(&self) -> usize;

    /// Where the `len` bytes from `offset` are, if they can be read directly.
    fn at(&self, offset: usize, len: usize) -> Option<*const u8>;

    /// The `N` bytes from `offset`, if they can be read directly.
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<N>> {
        self.at(offset, N).map(Window)
    }
}

/// `N` bytes of a packet, checked once and then read by words as they stand there (network byte order).
#[derive(Clone, Copy)]
pub struct Window<const N: usize>(*const u8);

impl<const N: usize> Window<N> {
    /// Of a place where N bytes are.
    #[inline(always)]
    pub(crate) const fn new(start: *const u8) -> Self {
        Window(start)
    }

    /// The byte at `i`.
    #[inline(always)]
    pub fn u8(self, i: usize) -> u8 {
        debug_assert!(i < N);
        // SAFETY: `Packet::at` vouches for N bytes.
        unsafe { *self.0.add(i) }
    }

    /// The two bytes at `i`.
    #[inline(always)]
    pub fn u16(self, i: usize) -> u16 {
        debug_assert!(i + 2 <= N);
        // SAFETY: as above; the kernel's architectures read misaligned words, and the compiler for BPF would otherwise
        // read byte by byte.
        unsafe {
            let p = self.0.add(i).cast::<u16>();
            if cfg!(target_arch = "bpf") { *p } else { p.read_unaligned() }
        }
    }

    /// The four bytes at `i`.
    #[inline(always)]
    pub fn u32(self, i: usize) -> u32 {
        debug_assert!(i + 4 <= N);
        // SAFETY: as for `u16`.
        unsafe {
            let p = self.0.add(i).cast::<u32>();
            if cfg!(target_arch = "bpf") { *p } else { p.read_unaligned() }
        }
    }

    /// The six bytes at `i`.
    #[inline(always)]
    pub fn mac(self, i: usize) -> Mac {
        Mac { high: self.u32(i), low: self.u16(i + 4) }
    }

    /// The sixteen bytes at `i`.
    #[inline(always)]
    pub fn addr(self, i: usize) -> Addr {
        Addr::words([self.u32(i), self.u32(i + 4), self.u32(i + 8), self.u32(i + 12)])
    }

    /// Whether the sixteen bytes at `i` are that address.
    #[inline(always)]
    pub fn is_addr(self, i: usize, addr: &Addr) -> bool {
        let words = addr.as_words();
        self.u32(i) == words[0]
            && self.u32(i + 4) == words[1]
            && self.u32(i + 8) == words[2]
            && self.u32(i + 12) == words[3]
    }
}

/// A MAC address in two words as they stand in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac {
    high: u32,
    low: u16,
}

impl Mac {
    /// Of six bytes.
    #[inline(always)]
    pub const fn new(b: [u8; 6]) -> Self {
        Mac { high: u32::from_ne_bytes([b[0], b[1], b[2], b[3]]), low: u16::from_ne_bytes([b[4], b[5]]) }
    }

    /// Of six bytes in a map, read by words: the compiler for BPF would read byte by byte. Not of six on the stack, which
    /// the verifier lets nobody read misaligned.
    #[inline(always)]
    pub fn read(b: &[u8; 6]) -> Self {
        Window::<6>(b.as_ptr()).mac(0)
    }

    /// No address: all zero.
    pub const NONE: Mac = Mac { high: 0, low: 0 };

    /// Into six bytes in a map, by words, as [`Mac::read`] reads them.
    #[inline(always)]
    pub fn write(self, b: &mut [u8; 6]) {
        // SAFETY: six bytes are there. Volatile: of zeros the compiler for BPF would make a loop over bytes.
        unsafe {
            // One borrow for both: a second one would end the first.
            let first = b.as_mut_ptr();
            let (high, low) = (first.cast::<u32>(), first.add(4).cast::<u16>());
            if cfg!(target_arch = "bpf") {
                high.write_volatile(self.high);
                low.write_volatile(self.low);
            } else {
                high.write_unaligned(self.high);
                low.write_unaligned(self.low);
            }
        }
    }

    /// Whether it is a group address: broadcast or multicast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.high.to_ne_bytes()[0] & 1 != 0
    }

    /// The link-local address that follows from it (RFC 4291, appendix A).
    #[inline(always)]
    pub const fn link_local(self) -> Addr {
        let ([a, b, c, d], [e, f]) = (self.high.to_ne_bytes(), self.low.to_ne_bytes());
        let word = u32::from_ne_bytes;
        Addr::words([word([0xfe, 0x80, 0, 0]), 0, word([a ^ 2, b, c, 0xff]), word([0xfe, d, e, f])])
    }

    /// Its words.
    #[inline(always)]
    pub const fn parts(self) -> (u32, u16) {
        (self.high, self.low)
    }
}
