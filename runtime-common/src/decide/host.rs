//! Sockets of the host's own processes: the destination of a connect or sendmsg is rewritten once, and
//! shown again as it was.
//!
//! No packet is looked at here. A socket that dials a published port of this host is sent to the container instead, by
//! the host's own routes; the container sees the address that the host has on its network.

use crate::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, Address, HostPeerKey, HostSocket, PUBLICATION_CLOSED, PUBLICATION_FROM_LOOPBACK,
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
    /// The socket's own entry of `HOST_SOCKETS`.
    fn socket(&self) -> Option<&HostSocket>;
    /// Makes that the socket's entry.
    fn remember(&self, socket: &HostSocket);
    /// Has the socket's entry say nothing any more; it stays.
    fn forget(&self);
    /// An entry of `HOST_PEERS`.
    fn peer(&self, key: &HostPeerKey) -> Option<&HostSocket>;
    /// Puts an entry into `HOST_PEERS`, in place of what is there.
    fn remember_peer(&self, key: &HostPeerKey, socket: &HostSocket);
    /// Removes an entry from `HOST_PEERS`.
    fn forget_peer(&self, key: &HostPeerKey);
}

/// A socket that connects, or sends a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostConnect {
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination address.
    pub addr: Addr,
    /// The destination port (network byte order).
    pub port: u16,
    /// The address that the socket is bound to; a wildcard where the kernel is to choose.
    pub bound: Addr,
    /// It sends a datagram, and may send the next to somebody else.
    pub sends: bool,
    /// The socket is connected already and sends: Linux shows some such datagrams of IPv4 in IPv6 sockets as if dialled.
    pub connected: bool,
}

impl HostConnect {
    /// The key in `HOST_PEERS` of what goes there; `port` in network byte order.
    #[inline(always)]
    fn peer(&self, addr: &Addr, port: u16) -> HostPeerKey {
        HostPeerKey::new(self.cookie, *addr, port, self.protocol)
    }
}

/// What becomes of a [`HostConnect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectDecision {
    /// It goes where it says.
    Unchanged,
    /// To this address and port (network byte order) instead.
    Redirect(Addr, u16),
    /// It fails, for this reason.
    Refuse(Verdict),
}

const LOOPBACK_V4: Addr = Addr::v4([127, 0, 0, 1]);
const LOOPBACK_V6: Addr = Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Decides where a socket of the host is to go, and remembers its original destination.
#[inline(always)]
pub fn connect<T: HostTables>(t: &T, d: &HostConnect) -> ConnectDecision {
    if !matches!(d.protocol, TCP | UDP) {
        return ConnectDecision::Unchanged;
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
                if !d.connected {
                    forget(t, &d.peer(&d.addr, d.port));
                }
                return ConnectDecision::Unchanged;
            }
            _ => return ConnectDecision::Unchanged,
        }
    }
    let mut key = PublicationKey { addr: here, port: d.port, protocol: d.protocol, reserved: 0 };
    let mut found = t.publication(&key);
    if found.is_none() {
        key.addr = if v4 { Addr::ANY_V4 } else { Addr::ANY_V6 };
        found = t.publication(&key);
    }
    let Some(p) = found else {
        return ConnectDecision::Unchanged;
    };
    if p.flags & PUBLICATION_CLOSED != 0 {
        return ConnectDecision::Refuse(Verdict::Unpublished);
    }
    // The kernel sends nothing from a loopback address to where loopback addresses mean nothing.
    if is_loopback(&d.bound) && p.flags & PUBLICATION_FROM_LOOPBACK == 0 {
        return ConnectDecision::Unchanged;
    }
    let socket = HostSocket {
        generation: p.generation,
        original: here,
        addr: p.addr,
        rule: p.rule,
        port: d.port,
        peer_port: p.port,
    };
    remember(t, d, &socket);
    ConnectDecision::Redirect(p.addr, p.port)
}

/// Each datagram of an unconnected socket comes by: most find their entry as it should be.
#[inline(always)]
fn remember<T: HostTables>(t: &T, d: &HostConnect, socket: &HostSocket) {
    match t.socket() {
        // One that has sent there already and is connected now, userspace does not know of yet.
        Some(own) if own == socket && (d.sends || d.protocol != UDP) => {}
        // Its first peer is the socket's own entry; the others it shares a table with other sockets for.
        Some(own) if d.sends && own.is_used() && !own.is_of(&socket.addr, socket.peer_port) => {
            let key = d.peer(&socket.addr, socket.peer_port);
            if t.peer(&key) != Some(socket) {
                t.remember_peer(&key, socket);
            }
        }
        _ => {
            t.remember(socket);
            // Those of TCP the kernel tells userspace of; of these it does not.
            if d.protocol == UDP && !d.sends {
                t.remember_peer(&d.peer(&socket.addr, socket.peer_port), socket);
            }
        }
    }
}

/// The original destination of the socket, where it was redirected there.
#[inline(always)]
fn known<'a, T: HostTables>(t: &'a T, key: &HostPeerKey) -> Option<&'a HostSocket> {
    // Of sockets that were never redirected nothing else is looked up.
    let own = t.socket()?;
    if own.is_of(&key.addr, key.port) { Some(own) } else { other(t, key) }
}

/// Those that send to several.
#[inline(always)]
fn other<'a, T: HostTables>(t: &'a T, key: &HostPeerKey) -> Option<&'a HostSocket> {
    if key.protocol == UDP { t.peer(key) } else { None }
}

/// From now on the socket means the container itself.
#[inline(always)]
fn forget<T: HostTables>(t: &T, key: &HostPeerKey) {
    let Some(own) = t.socket() else {
        return;
    };
    if own.is_of(&key.addr, key.port) {
        // It stays, unused: without it nobody would look for the others.
        t.forget();
    }
    if other(t, key).is_some() {
        t.forget_peer(key);
    }
}

/// Whom a connected socket believes to be connected to: its original destination, whatever became of the publication since.
#[inline(always)]
pub fn peer_name<T: HostTables>(t: &T, key: &HostPeerKey) -> Option<(Addr, u16)> {
    known(t, key).map(|s| (s.original, s.port))
}

/// Whom a datagram comes from: the original destination, as long as it is the same container that answers.
#[inline(always)]
pub fn sender_name<T: HostTables>(t: &T, key: &HostPeerKey) -> Option<(Addr, u16)> {
    let s = known(t, key)?;
    if t.generation(s.rule) == s.generation {
        return Some((s.original, s.port));
    }
    // Another container may have the address by now.
    forget(t, key);
    None
}
