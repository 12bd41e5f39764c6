//! Sockets of the host's own processes: what they dial is rewritten once, and shown again as it was dialled.
//!
//! No packet is looked at here. A socket that dials a published port of this host is sent to the container instead, by
//! the host's own routes; the container sees the address that the host has on its network.

use crate::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, Address, HostSocket, HostSocketKey, PUBLICATION_CLOSED, PUBLICATION_FROM_LOOPBACK,
    Publication, PublicationKey,
};
use crate::packet::{TCP, UDP, is_loopback};
use crate::{Addr, Verdict};

/// The tables that these decisions are made from.
pub trait HostTables {
    /// An entry of `PUBLICATIONS`.
    fn publication(&self, key: &PublicationKey) -> Option<&Publication>;
    /// An entry of `ADDRESSES`.
    fn address(&self, addr: &Addr) -> Option<&Address>;
    /// The generation in `RULES[slot]`; 0 where there is no rule.
    fn generation(&self, slot: u32) -> u64;
    /// An entry of `HOST_SOCKETS`.
    fn socket(&self, key: &HostSocketKey) -> Option<&HostSocket>;
    /// Puts an entry into `HOST_SOCKETS`, in place of what is there.
    fn remember(&self, key: &HostSocketKey, socket: &HostSocket);
    /// Removes an entry from `HOST_SOCKETS`.
    fn forget(&self, key: &HostSocketKey);
}

/// A socket that connects, or sends a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// IP protocol number.
    pub protocol: u8,
    /// The address that is dialled.
    pub addr: Addr,
    /// The port that is dialled (network byte order).
    pub port: u16,
    /// The address that the socket is bound to; a wildcard where the kernel is to choose.
    pub bound: Addr,
    /// The socket is connected already and sends: Linux shows some such datagrams of IPv4 in IPv6 sockets as if dialled.
    pub connected: bool,
}

/// What becomes of a [`Dial`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// It goes where it says.
    Alone,
    /// To this address and port (network byte order) instead.
    To(Addr, u16),
    /// It fails, for this reason.
    Refused(Verdict),
}

const LOOPBACK_V4: Addr = Addr::v4([127, 0, 0, 1]);
const LOOPBACK_V6: Addr = Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Decides where a socket of the host is to go, and remembers what it dialled.
#[inline(always)]
pub fn dial<T: HostTables>(t: &T, d: &Dial) -> Dialled {
    if !matches!(d.protocol, TCP | UDP) {
        return Dialled::Alone;
    }
    let v4 = d.addr.is_v4();
    // Nowhere is here (RFC 1122 §3.2.1.3; Linux takes it as the loopback address).
    let here = if d.addr == Addr::ANY_V4 {
        LOOPBACK_V4
    } else if d.addr == Addr::ANY_V6 {
        LOOPBACK_V6
    } else {
        d.addr
    };
    if !is_loopback(&here) {
        match t.address(&here) {
            Some(a) if a.kind == ADDRESS_HOST => {}
            Some(a) if a.kind == ADDRESS_ENDPOINT => {
                // From now on this socket means the container itself, unless it was sent there before.
                let key = HostSocketKey::new(d.cookie, d.addr, d.port, d.protocol);
                if !d.connected && t.socket(&key).is_some() {
                    t.forget(&key);
                }
                return Dialled::Alone;
            }
            _ => return Dialled::Alone,
        }
    }
    let mut key = PublicationKey { addr: here, port: d.port, protocol: d.protocol, reserved: 0 };
    let mut found = t.publication(&key);
    if found.is_none() {
        key.addr = if v4 { Addr::ANY_V4 } else { Addr::ANY_V6 };
        found = t.publication(&key);
    }
    let Some(p) = found else {
        return Dialled::Alone;
    };
    if p.flags & PUBLICATION_CLOSED != 0 {
        return Dialled::Refused(Verdict::Unpublished);
    }
    // The kernel sends nothing from a loopback address to where loopback addresses mean nothing.
    if is_loopback(&d.bound) && p.flags & PUBLICATION_FROM_LOOPBACK == 0 {
        return Dialled::Alone;
    }
    let key = HostSocketKey::new(d.cookie, p.addr, p.port, d.protocol);
    let socket = HostSocket { generation: p.generation, dialled: here, rule: p.rule, port: d.port, reserved: 0 };
    // Each datagram of an unconnected socket comes by: most find their entry as it should be.
    if t.socket(&key) != Some(&socket) {
        t.remember(&key, &socket);
    }
    Dialled::To(p.addr, p.port)
}

/// Whom a connected socket believes to be connected to: what it dialled, whatever became of the publication since.
#[inline(always)]
pub fn peer_name<T: HostTables>(t: &T, key: &HostSocketKey) -> Option<(Addr, u16)> {
    t.socket(key).map(|s| (s.dialled, s.port))
}

/// Whom a datagram comes from: what was dialled, as long as it is the same container that answers.
#[inline(always)]
pub fn sender_name<T: HostTables>(t: &T, key: &HostSocketKey) -> Option<(Addr, u16)> {
    let s = t.socket(key)?;
    if t.generation(s.rule) == s.generation {
        return Some((s.dialled, s.port));
    }
    // Another container may have the address by now.
    t.forget(key);
    None
}
