//! Published ports, and who may use them: what `PUBLICATIONS`, `FILTERS` and `LIMITS` hold.

use crate::Addr;

/// Key of `PUBLICATIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicationKey {
    /// The host's address; `0.0.0.0` or `::` for every host address of that family.
    pub addr: Addr,
    /// The host's port (network byte order).
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub reserved: u8,
}

/// The publication is closed: what arrives is dropped, whatever other rules the host has.
pub const PUBLICATION_CLOSED: u16 = 1;

/// `FILTERS` says which sources may use the publication; what it does not name may.
pub const PUBLICATION_FILTERED: u16 = 2;
/// With [`PUBLICATION_FILTERED`]: what `FILTERS` does not name may not.
pub const PUBLICATION_LISTED_ONLY: u16 = 4;
/// `LIMITS` says how many conversations may begin in a second.
pub const PUBLICATION_LIMITED: u16 = 8;
/// The host's sockets that are bound to a loopback address reach it (`route_localnet` of the bridge, or IPv6).
pub const PUBLICATION_FROM_LOOPBACK: u16 = 16;
/// New conversations go through the host's stack once, and its firewall decides.
pub const PUBLICATION_DEFER: u16 = 32;
/// With [`PUBLICATION_DEFER`]: rules of the host itself rewrite what goes to the port.
pub const PUBLICATION_HOST_TRANSLATES: u16 = 64;

/// Value of every key of `RELAYED`.
pub const RELAYED_BY_DAEMON: u32 = 1;
/// Index in `RELAY_SOCKETS` of the socket that listens for connections.
pub const RELAY_TCP: u32 = 0;
/// Index in `RELAY_SOCKETS` of the socket that hears datagrams.
pub const RELAY_UDP: u32 = 1;
/// How many sockets `RELAY_SOCKETS` has room for.
pub const RELAY_SLOTS: usize = 2;

/// Data of a key of `FILTERS`, a longest-prefix-match trie: the first 64 bits of every prefix are the list.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterKey {
    /// The list of sources, which all publications share that name the same ones.
    pub list: u64,
    /// A source address, or the beginning of one.
    pub addr: Addr,
}

/// Value of `FILTERS`: the source may use the publication.
pub const FILTER_ALLOW: u32 = 1;
/// Value of `FILTERS`: the source may not use the publication.
pub const FILTER_DENY: u32 = 2;

/// Value of `LIMITS`, by generation: a bucket of conversations that may begin.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What is in the bucket: billionths of a conversation.
    pub tokens: u64,
    /// When something was last put in: nanoseconds of the kernel's coarse monotonic clock.
    pub last: u64,
    /// Conversations that may begin in a second.
    pub per_second: u32,
    /// Always zero.
    pub reserved: u32,
}

impl Limit {
    const ONE: u64 = 1_000_000_000;

    /// A full bucket: as much as a second brings.
    pub const fn full(per_second: u32) -> Self {
        Limit { tokens: per_second as u64 * Self::ONE, last: 0, per_second, reserved: 0 }
    }

    /// Takes one conversation out of the bucket; false where there is none. CPUs that race can at worst take a few more.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        let full = self.per_second as u64 * Self::ONE;
        let elapsed = now.wrapping_sub(self.last);
        let elapsed = if elapsed > Self::ONE { Self::ONE } else { elapsed };
        let tokens = self.tokens + elapsed * self.per_second as u64;
        let tokens = if tokens > full { full } else { tokens };
        self.last = now;
        if tokens < Self::ONE {
            self.tokens = tokens;
            return false;
        }
        self.tokens = tokens - Self::ONE;
        true
    }
}

/// Value of `PUBLICATIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Its generation, also found in `RULES[rule]`.
    pub generation: u64,
    /// Its list of sources in `FILTERS`; 0 where it has none.
    pub list: u64,
    /// The container's address.
    pub addr: Addr,
    /// Slot in `RULES`.
    pub rule: u32,
    /// The container's host-side interface.
    pub ifindex: u32,
    /// Its network's bridge.
    pub bridge: u32,
    /// The container's port (network byte order).
    pub port: u16,
    /// Bits `PUBLICATION_*`.
    pub flags: u16,
    /// The container's MAC address.
    pub mac: [u8; 6],
    /// Always zero.
    pub reserved: u16,
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        const MS: u64 = 1_000_000;
        let mut limit = Limit::full(10);
        let taken = (0..100).filter(|_| limit.take(0)).count();
        assert_eq!(taken, 10);
        // Two tenths of a second bring two.
        let taken = (0..100).filter(|_| limit.take(200 * MS)).count();
        assert_eq!(taken, 2);
        // An hour brings no more than a second does.
        let taken = (0..100).filter(|_| limit.take(3_600_000 * MS)).count();
        assert_eq!(taken, 10);
    }
}
