//! Host ports of live publications: chosen, checked, and held against other programs of the host.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket, sockopt,
};
use runtime_common::Protocol;

use crate::model::Publication;
use crate::model::range::PublicationRange;

/// Sockets that hold the ports. They are bound and nothing more: packets reach the container before any socket.
#[derive(Default)]
pub struct HeldPorts {
    sockets: BTreeMap<(Protocol, u16), Vec<Held>>,
    /// How many there are.
    count: usize,
    /// What the sockets are for.
    wanted: Vec<PublicationRange>,
    /// Taken since: what is not wanted by the next [`HeldPorts::hold`] is let go.
    taken: Vec<Publication>,
    /// Sockets for both families that the next calls of [`HeldPorts::take`] are to find bound.
    ahead: BTreeMap<(Protocol, u16), OwnedFd>,
    /// Descriptors that are needed elsewhere.
    others: usize,
    /// Why not all of it is held.
    trouble: Option<String>,
}

struct Held {
    on: On,
    socket: OwnedFd,
}

/// Which addresses a socket holds its port on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// The wildcards of both families: one socket where there could be two.
    Both,
    /// As before, but only this one of them is wanted still.
    HalfOf(IpAddr),
    One(IpAddr),
}

impl On {
    fn covers(self, address: IpAddr) -> bool {
        match self {
            On::Both => address.is_unspecified(),
            On::HalfOf(a) | On::One(a) => a == address,
        }
    }
}

impl HeldPorts {
    /// Binds many ports on the wildcards of both families, by all processors at once, for what is about to take them. Nobody
    /// needs to hear of what fails: it is tried again by itself.
    pub fn bind_ahead(&mut self, ports: impl Iterator<Item = (Protocol, u16)>) {
        let room = descriptors().saturating_sub(self.count + self.others);
        let ports: Vec<_> = ports.filter(|key| !self.sockets.contains_key(key)).take(room).collect();
        if ports.len() < MANY {
            return;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let families = if is_dual_by_default() { Families::AsMade } else { Families::Both };
        let bind = |key: &(Protocol, u16)| Some((*key, bind_socket(key.0, WILDCARDS[1], key.1, families).ok()??));
        std::thread::scope(|scope| {
            let parts: Vec<_> = ports
                .chunks(ports.len().div_ceil(threads))
                .map(|part| scope.spawn(move || part.iter().filter_map(bind).collect::<Vec<_>>()))
                .collect();
            self.ahead.extend(parts.into_iter().filter_map(|part| part.join().ok()).flatten());
        });
    }

    /// Lets go of what was bound ahead and not taken.
    pub fn drop_ahead(&mut self) {
        self.ahead.clear();
    }

    /// Takes a port on these addresses, until the next [`HeldPorts::hold`] says whether it is wanted. False where no
    /// descriptor is left to keep it with.
    ///
    /// # Errors
    /// One line that names who has it.
    pub fn take(&mut self, publications: &[Publication]) -> Result<bool, String> {
        let Some(first) = publications.first() else { return Ok(true) };
        let key = key(first);
        let held = self.sockets.get(&key).map_or(&[][..], Vec::as_slice);
        let missing = |p: &&Publication| !held.iter().any(|h| h.on.covers(p.host_addr));
        let missing: Vec<Publication> = publications.iter().filter(missing).cloned().collect();
        let addresses: Vec<IpAddr> = missing.iter().map(|p| p.host_addr).collect();
        let new = match self.ahead.remove(&key).filter(|_| are_wildcards(&addresses)) {
            Some(socket) => vec![Held { on: On::Both, socket }],
            None => reserve_all(key.0, &addresses, key.1)?,
        };
        if new.is_empty() {
            return Ok(true);
        }
        if self.count + new.len() + self.others > descriptors() {
            return Ok(false);
        }
        self.count += new.len();
        self.sockets.entry(key).or_default().extend(new);
        self.taken.extend(missing);
        Ok(true)
    }

    /// Holds exactly the ports of these publications; returns the sockets that are no longer needed (to be closed where
    /// there is time), and what cannot be held. `others`: descriptors that are needed elsewhere. `engine_has` tells of ports that
    /// the engine itself publishes.
    pub fn hold(
        &mut self,
        wanted: Vec<PublicationRange>,
        others: usize,
        engine_has: impl Fn(&Publication) -> bool,
    ) -> (Vec<OwnedFd>, Option<String>) {
        let mut released = Vec::new();
        self.others = others;
        if wanted == self.wanted && self.taken.is_empty() {
            return (released, self.trouble.clone());
        }
        let (gone, added) = differences(&self.wanted, &wanted);
        let is_wanted = |p: &Publication| wanted.iter().any(|r| r.contains(p));
        let not_wanted: Vec<Publication> = self.taken.drain(..).filter(|p| !is_wanted(p)).collect();
        let mut halves = Vec::new();
        for publication in gone.iter().flat_map(PublicationRange::iter).chain(not_wanted) {
            self.release(&publication, &mut released, &mut halves);
        }
        for key in halves {
            self.replace_half(key);
        }
        let mut failed: Vec<String> = Vec::new();
        for mut publication in pairs(&added) {
            // Its own even where it does not hold it, as while it is being restarted: it will want it back.
            publication.retain(|p| !engine_has(p));
            match self.take(&publication) {
                Ok(true) => {}
                Ok(false) => failed.push(format!("no descriptor is left for port {}", publication[0].host_port)),
                Err(reason) => failed.push(reason),
            }
        }
        self.taken.clear();
        self.wanted = wanted;
        self.trouble = failed.first().map(|reason| match failed.len() - 1 {
            0 => reason.clone(),
            n => format!("{reason} (and {n} more ports)"),
        });
        (released, self.trouble.clone())
    }

    /// Lets go of what was taken for a change that is not made.
    pub fn give_back(&mut self) {
        let (mut released, mut halves) = (Vec::new(), Vec::new());
        for publication in std::mem::take(&mut self.taken) {
            self.release(&publication, &mut released, &mut halves);
        }
    }

    fn release(&mut self, p: &Publication, released: &mut Vec<OwnedFd>, halves: &mut Vec<(Protocol, u16)>) {
        let Some(held) = self.sockets.get_mut(&key(p)) else { return };
        for Held { on, socket } in std::mem::take(held) {
            if !on.covers(p.host_addr) {
                held.push(Held { on, socket });
            } else if on == On::Both {
                let other = if p.host_addr.is_ipv4() { WILDCARDS[1] } else { WILDCARDS[0] };
                held.push(Held { on: On::HalfOf(other), socket });
                halves.push(key(p));
            } else {
                released.push(socket);
                self.count -= 1;
            }
        }
        if held.is_empty() {
            self.sockets.remove(&key(p));
        }
    }

    /// A socket for both families of which one is gone makes room for one of the other alone.
    fn replace_half(&mut self, key: (Protocol, u16)) {
        let Some(held) = self.sockets.get_mut(&key) else { return };
        for Held { on, socket } in std::mem::take(held) {
            let On::HalfOf(address) = on else {
                held.push(Held { on, socket });
                continue;
            };
            drop(socket);
            let rest = reserve_all(key.0, &[address], key.1).unwrap_or_default();
            self.count -= 1;
            self.count += rest.len();
            held.extend(rest);
        }
    }

    /// Whether a port is held on any address.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.sockets.contains_key(&(protocol, port))
    }

    /// Descriptors that it has.
    #[cfg(test)]
    fn descriptors(&self) -> usize {
        self.count
    }
}

/// From how many ports on more than one processor is worth it.
const MANY: usize = 256;

/// Descriptors that are left for everything else: the daemon itself must still be able to open files and to answer.
const OWN_DESCRIPTORS: usize = 256;

/// How many descriptors ports may have. The daemon's limit is set when it starts, before anything is held: asked for once.
pub fn descriptors() -> usize {
    static ROOM: LazyLock<usize> = LazyLock::new(|| {
        let room = getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(soft, _)| soft as usize);
        room.saturating_sub(OWN_DESCRIPTORS)
    });
    *ROOM
}

const WILDCARDS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

fn key(p: &Publication) -> (Protocol, u16) {
    (p.container_port.protocol, p.host_port)
}

/// What of the one list is not in the other, and the other way round.
fn differences(old: &[PublicationRange], new: &[PublicationRange]) -> (Vec<PublicationRange>, Vec<PublicationRange>) {
    // Most of it is in both, word for word.
    let (in_old, in_new): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
    let old: Vec<_> = old.iter().filter(|r| !in_new.contains(r)).cloned().collect();
    let new: Vec<_> = new.iter().filter(|r| !in_old.contains(r)).cloned().collect();
    let minus = |from: &[PublicationRange], what: &[PublicationRange]| {
        what.iter().fold(from.to_vec(), |rest, w| rest.iter().flat_map(|r| r.without(w)).collect())
    };
    (minus(&old, &new), minus(&new, &old))
}

/// Publications, those of one port on both wildcards together.
fn pairs(ranges: &[PublicationRange]) -> Vec<Vec<Publication>> {
    let mut found: BTreeMap<_, Vec<Publication>> = BTreeMap::new();
    for publication in ranges.iter().flat_map(PublicationRange::iter) {
        found.entry(key(&publication)).or_default().push(publication);
    }
    found.into_values().collect()
}

/// Whether these are the wildcards of both families, and nothing else.
fn are_wildcards(addresses: &[IpAddr]) -> bool {
    addresses.len() == 2 && WILDCARDS.iter().all(|w| addresses.contains(w))
}

/// Binds a port on these addresses.
fn reserve_all(protocol: Protocol, addresses: &[IpAddr], port: u16) -> Result<Vec<Held>, String> {
    if are_wildcards(addresses)
        && let Ok(Some(socket)) = bind_socket(protocol, WILDCARDS[1], port, Families::Both)
    {
        return Ok(vec![Held { on: On::Both, socket }]);
    }
    let mut held = Vec::new();
    for address in addresses {
        if let Some(socket) = reserve(protocol, *address, port)? {
            held.push(Held { on: On::One(*address), socket });
        }
    }
    Ok(held)
}

/// Binds a port (0: a random one of the kernel's ephemeral range). `None` for what the host has no sockets for.
///
/// # Errors
/// One line that names who has it.
fn reserve(protocol: Protocol, address: IpAddr, port: u16) -> Result<Option<OwnedFd>, String> {
    match bind_socket(protocol, address, port, Families::Own) {
        Ok(socket) => Ok(socket),
        // Connections of a relay that are over may linger there. They hinder nobody, but the port cannot be held with them.
        Err(nix::Error::EADDRINUSE) if address.is_ipv6() && lingers_only(protocol, address, port) => Ok(None),
        Err(nix::Error::EADDRINUSE) => Err(format!(
            "port {port}/{protocol} on {address} is already in use by {}",
            holder(protocol, port).unwrap_or_else(|| "a process of the host".to_owned())
        )),
        // A host without IPv6.
        Err(nix::Error::EAFNOSUPPORT) => Ok(None),
        Err(nix::Error::EADDRNOTAVAIL) if address == WILDCARDS[1] => Ok(None),
        Err(nix::Error::EADDRNOTAVAIL) => Err(format!("the host has no address {address}")),
        Err(e) => Err(format!("port {port}/{protocol} on {address} cannot be had: {e}")),
    }
}

/// Whether nothing but connections that are over has a port.
fn lingers_only(protocol: Protocol, address: IpAddr, port: u16) -> bool {
    let Ok(Some(fd)) = new_socket(protocol, address, Families::Own) else { return false };
    protocol == Protocol::Tcp
        && setsockopt(&fd, sockopt::ReuseAddr, &true).is_ok()
        && bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port))).is_ok()
}

/// Whose packets a socket of IPv6 is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Families {
    /// IPv6 alone.
    Own,
    /// IPv4 as well.
    Both,
    /// What the host's sockets are for when they are made.
    AsMade,
}

/// Whether the host's sockets of IPv6 are for IPv4 as well when they are made: a system call less for each.
fn is_dual_by_default() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "0")
}

fn bind_socket(protocol: Protocol, address: IpAddr, port: u16, families: Families) -> nix::Result<Option<OwnedFd>> {
    let Some(fd) = new_socket(protocol, address, families)? else { return Ok(None) };
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port)))?;
    Ok(Some(fd))
}

fn new_socket(protocol: Protocol, address: IpAddr, families: Families) -> nix::Result<Option<OwnedFd>> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return Ok(None),
    };
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if !address.is_ipv4() && families != Families::AsMade {
        setsockopt(&fd, sockopt::Ipv6V6Only, &(families == Families::Own))?;
    }
    if protocol == Protocol::Udp {
        // Nobody reads from it.
        let _ = setsockopt(&fd, sockopt::RcvBuf, &0);
    }
    Ok(Some(fd))
}

/// A port that is free on every given address, from the kernel's ephemeral range.
pub fn random(protocol: Protocol, addresses: &[IpAddr]) -> Result<u16, String> {
    let first = addresses.first().copied().unwrap_or(WILDCARDS[0]);
    for _ in 0..64 {
        let held = reserve(protocol, first, 0)?;
        let bound = held.as_ref().and_then(|fd| getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok());
        let port = bound.and_then(|b| b.as_sockaddr_in().map(|a| a.port()).or(b.as_sockaddr_in6().map(|a| a.port())));
        let Some(port) = port else {
            return Err(format!("a random port for {protocol} cannot be chosen: name one"));
        };
        if addresses.iter().skip(1).all(|a| reserve(protocol, *a, port).is_ok()) {
            return Ok(port);
        }
    }
    Err(format!("no {protocol} port is free on all of {addresses:?}"))
}

/// The process that has a socket on this port, for people: `nginx (process 123)`.
fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let inodes: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|six| std::fs::read_to_string(format!("/proc/net/{}{six}", protocol.name())).ok())
        .flat_map(|text| {
            let of_port = |line: &&str| {
                let local = line.split_ascii_whitespace().nth(1).and_then(|a| a.split_once(':'));
                local.is_some_and(|(_, p)| u16::from_str_radix(p, 16) == Ok(port))
            };
            let inode = |line: &str| line.split_ascii_whitespace().nth(9).map(|i| format!("socket:[{i}]"));
            text.lines().skip(1).filter(of_port).filter_map(inode).collect::<Vec<_>>()
        })
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        let Some(pid) = path.file_name().and_then(|f| f.to_str()).filter(|f| f.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(path.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let target = std::fs::read_link(descriptor.path()).unwrap_or_default();
            if inodes.iter().any(|i| target.as_os_str() == i.as_str()) {
                let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
                return Some(format!("{} (process {pid})", name.trim()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn range(address: &str, port: u16, ports: u16) -> Vec<PublicationRange> {
        let publication = |n| Publication {
            host_addr: address.parse().unwrap(),
            host_port: port + n,
            container_port: format!("{}/udp", 80 + n).parse().unwrap(),
        };
        PublicationRange::of((0..ports).map(publication).collect())
    }

    fn is_free(address: &str, port: u16) -> bool {
        UdpSocket::bind((address.parse::<IpAddr>().unwrap(), port)).is_ok()
    }

    /// A port of the host that nobody has, with a free one after it.
    fn free_pair() -> u16 {
        let free = |_: &i32| {
            let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
            (port < 65535 && is_free("0.0.0.0", port + 1)).then_some(port)
        };
        (0..100).find_map(|i| free(&i)).unwrap()
    }

    #[test]
    fn exactly_what_is_wanted_is_held() {
        let port = free_pair();
        let mut held = HeldPorts::default();
        let both = [range("0.0.0.0", port, 2), range("::", port, 2)].concat();
        assert_eq!(held.hold(both.clone(), 0, |_| false).1, None);
        assert!(!is_free("0.0.0.0", port) && !is_free("127.0.0.1", port + 1) && !is_free("::1", port));
        // Of one port both families go, of the other one.
        let less = [range("0.0.0.0", port, 2)[0].without(&range("0.0.0.0", port, 1)[0])].concat();
        held.hold(less, 0, |_| false);
        assert!(is_free("0.0.0.0", port) && is_free("::1", port) && is_free("::1", port + 1));
        assert!(!is_free("127.0.0.1", port + 1));
        held.hold(both, 0, |_| false);
        assert!(!is_free("::1", port + 1) && !is_free("127.0.0.1", port));
        held.hold(Vec::new(), 0, |_| false);
        assert!(is_free("0.0.0.0", port) && is_free("::1", port + 1));
    }

    #[test]
    fn what_is_taken_and_not_wanted_is_let_go() {
        let port = free_pair();
        let mut held = HeldPorts::default();
        let publications: Vec<Publication> = range("127.0.0.1", port, 1)[0].iter().collect();
        held.take(&publications).unwrap();
        assert!(!is_free("127.0.0.1", port));
        held.give_back();
        assert!(is_free("127.0.0.1", port));
        held.take(&publications).unwrap();
        held.hold(Vec::new(), 0, |_| false);
        assert!(is_free("127.0.0.1", port));
    }

    #[test]
    fn of_many_ports_that_are_bound_ahead_those_that_nobody_takes_are_let_go() {
        let ports = MANY as u16 + 10;
        let free = |first: &u16| (0..ports).all(|n| is_free("::", first + n));
        let first = (10_000..30_000).step_by(usize::from(ports)).find(free).unwrap();
        let stranger = UdpSocket::bind(("127.0.0.1", first + 7)).unwrap();
        let mut held = HeldPorts::default();
        held.bind_ahead((first..first + ports).map(|port| (Protocol::Udp, port)));
        assert!(!is_free("127.0.0.1", first) && !is_free("::1", first + ports - 1));
        let on_both = |n: u16| [range("0.0.0.0", first + n, 1), range("::", first + n, 1)].concat();
        let both = |n: u16| on_both(n).iter().flat_map(PublicationRange::iter).collect::<Vec<_>>();
        held.take(&both(0)).unwrap();
        // On one address alone, what was bound ahead for all is no hindrance.
        held.take(&both(1)[..1]).unwrap();
        assert!(is_free("::1", first + 1) && !is_free("127.0.0.1", first + 1));
        let reason = held.take(&both(7)).unwrap_err();
        assert!(reason.contains(&format!("{}/udp", first + 7)), "{reason}");
        held.drop_ahead();
        assert!(is_free("::", first + 2) && !is_free("127.0.0.1", first) && !is_free("::1", first));
        drop(stranger);
        assert_eq!(held.descriptors(), 2);
    }

    #[test]
    fn a_port_of_somebody_else_is_named_with_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host_addr = "127.0.0.1".parse().unwrap();
        let taken = Publication { host_addr, host_port: port, container_port: "80/tcp".parse().unwrap() };
        let reason = HeldPorts::default().take(std::slice::from_ref(&taken)).unwrap_err();
        assert!(reason.contains(&format!("{port}/tcp on 127.0.0.1")), "{reason}");
        assert!(reason.contains(&format!("process {}", std::process::id())), "{reason}");
        let ranges = vec![PublicationRange::from(taken)];
        assert_eq!(HeldPorts::default().hold(ranges.clone(), 0, |_| true).1, None);
        assert_eq!(HeldPorts::default().hold(ranges, 0, |_| false).1, Some(reason));
    }
}
