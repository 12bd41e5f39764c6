//! One address type for both families.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address in 16 bytes of network byte order; IPv4 is mapped (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).
#[repr(C, align(4))]
#[derive(Clone, Copy, Default, Eq, PartialOrd, Ord)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// The IPv4 wildcard `0.0.0.0`.
    pub const ANY_V4: Addr = Addr::v4([0, 0, 0, 0]);
    /// The IPv6 wildcard `::`.
    pub const ANY_V6: Addr = Addr([0; 16]);

    /// The mapped form of an IPv4 address in network byte order.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]])
    }

    /// The mapped form of an IPv4 address as it stands in a packet, read as one word.
    #[inline(always)]
    pub const fn v4_word(word: u32) -> Self {
        Addr::words([0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), word])
    }

    /// An address from its four words as they stand in a packet.
    #[inline(always)]
    pub const fn words(words: [u32; 4]) -> Self {
        // SAFETY: 16 bytes either way, and every bit pattern is an address.
        Addr(unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) })
    }

    /// The four words, as they stand in a packet.
    #[inline(always)]
    pub const fn as_words(&self) -> &[u32; 4] {
        // SAFETY: the same 16 bytes, and `Addr` is aligned to four.
        unsafe { &*(&raw const self.0).cast::<[u32; 4]>() }
    }

    /// Exchanges two addresses, by words: a copy of both would take room on the stack.
    #[inline(always)]
    pub fn exchange(&mut self, other: &mut Addr) {
        let (a, b) = (self.0.as_mut_ptr().cast::<u32>(), other.0.as_mut_ptr().cast::<u32>());
        for i in 0..4 {
            // SAFETY: four words each, and `Addr` is aligned to four. Volatile, or the compiler would read all of them first.
            unsafe {
                let (x, y) = (a.add(i).read_volatile(), b.add(i).read_volatile());
                a.add(i).write_volatile(y);
                b.add(i).write_volatile(x);
            }
        }
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let w = self.as_words();
        w[0] | w[1] == 0 && w[2] == u32::from_ne_bytes([0, 0, 0xff, 0xff])
    }

    /// The wildcard of the address's family.
    #[inline(always)]
    pub const fn wildcard(&self) -> Addr {
        Addr::words([0, 0, if self.is_v4() { u32::from_ne_bytes([0, 0, 0xff, 0xff]) } else { 0 }, 0])
    }

    /// The multicast group in which an IPv6 address is asked for (RFC 4291 §2.7.1).
    #[inline(always)]
    pub const fn solicited_node(&self) -> Addr {
        let [_, b, c, d] = self.as_words()[3].to_ne_bytes();
        let word = u32::from_ne_bytes;
        Addr::words([word([0xff, 2, 0, 0]), 0, word([0, 0, 0, 1]), word([0xff, b, c, d])])
    }

    /// The last word: the IPv4 address as it stands in a packet when [`Addr::is_v4`].
    #[inline(always)]
    pub const fn v4_as_word(&self) -> u32 {
        self.as_words()[3]
    }

    /// The last four bytes: the IPv4 address when [`Addr::is_v4`].
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// The standard library's form; a mapped address comes back as IPv4.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() { IpAddr::V4(Ipv4Addr::from(self.v4_octets())) } else { IpAddr::V6(Ipv6Addr::from(self.0)) }
    }
}

// By words: the kernel's compiler would compare byte by byte.
impl PartialEq for Addr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.as_words(), other.as_words());
        a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
    }
}

impl core::hash::Hash for Addr {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(a: Ipv4Addr) -> Self {
        Addr::v4(a.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(a: Ipv6Addr) -> Self {
        Addr(a.octets())
    }
}

impl From<IpAddr> for Addr {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => a.into(),
            IpAddr::V6(a) => a.into(),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}
