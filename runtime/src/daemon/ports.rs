//! Host ports of live publications: chosen, checked, and held against other programs of the host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket, sockopt,
};
use runtime_common::Protocol;

use crate::model::Publication;

/// Sockets that hold the ports. They are bound and nothing more: packets reach the container before any socket.
#[derive(Default)]
pub struct HeldPorts {
    sockets: BTreeMap<(Protocol, IpAddr, u16), OwnedFd>,
}

impl HeldPorts {
    /// Holds exactly these publications' ports; those that cannot be had are returned. `others`: descriptors that are needed
    /// elsewhere.
    pub fn hold<'p>(
        &mut self,
        publications: impl Iterator<Item = &'p Publication>,
        others: usize,
    ) -> Vec<(Publication, String)> {
        let wanted: BTreeMap<_, _> = publications.map(|p| (key(p), p)).collect();
        self.sockets.retain(|k, _| wanted.contains_key(k));
        let mut failed = Vec::new();
        let room = descriptors().saturating_sub(others);
        for (key, publication) in wanted {
            if self.sockets.contains_key(&key) {
                continue;
            }
            if self.sockets.len() >= room {
                failed.push((publication.clone(), format!("no descriptor is left for port {}", publication.host_port)));
                continue;
            }
            match reserve(key.0, key.1, key.2) {
                Ok(Some((fd, _))) => {
                    self.sockets.insert(key, fd);
                }
                Ok(None) => {}
                Err(reason) => failed.push((publication.clone(), reason)),
            }
        }
        failed
    }

    /// Descriptors that it has.
    pub fn descriptors(&self) -> usize {
        self.sockets.len()
    }

    /// Whether this port is held here already.
    pub fn holds(&self, publication: &Publication) -> bool {
        self.sockets.contains_key(&key(publication))
    }
}

/// Descriptors that are left for everything else: the daemon itself must still be able to open files and to answer.
const OWN_DESCRIPTORS: usize = 256;

/// How many descriptors ports may have.
pub fn descriptors() -> usize {
    let room = getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(soft, _)| soft as usize);
    room.saturating_sub(OWN_DESCRIPTORS)
}

fn key(p: &Publication) -> (Protocol, IpAddr, u16) {
    (p.container_port.protocol, p.host_addr, p.host_port)
}

/// Whether a port can be had.
///
/// # Errors
/// One line that names who has it.
pub fn is_free(protocol: Protocol, address: IpAddr, port: u16) -> Result<(), String> {
    // Connections of a relay that are over may linger there, and hinder no other.
    take(protocol, address, port, address.is_ipv6()).map(drop)
}

/// Binds a port (0: a random one of the kernel's ephemeral range). `None` for what the host has no sockets for.
///
/// # Errors
/// One line that names who has it.
pub fn reserve(protocol: Protocol, address: IpAddr, port: u16) -> Result<Option<(OwnedFd, u16)>, String> {
    take(protocol, address, port, false)
}

fn take(protocol: Protocol, address: IpAddr, port: u16, reuse: bool) -> Result<Option<(OwnedFd, u16)>, String> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return Ok(None),
    };
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let explain = |e: nix::Error| match e {
        nix::Error::EADDRINUSE => format!(
            "port {port}/{protocol} on {address} is already in use by {}",
            holder(protocol, port).unwrap_or_else(|| "a process of the host".to_owned())
        ),
        nix::Error::EADDRNOTAVAIL => format!("the host has no address {address}"),
        e => format!("port {port}/{protocol} on {address} cannot be had: {e}"),
    };
    let fd = match socket(family, kind, SockFlag::SOCK_CLOEXEC, None) {
        Ok(fd) => fd,
        // A host without IPv6.
        Err(nix::Error::EAFNOSUPPORT) => return Ok(None),
        Err(e) => return Err(explain(e)),
    };
    if reuse {
        let _ = setsockopt(&fd, sockopt::ReuseAddr, &true);
    }
    if !address.is_ipv4() {
        let _ = setsockopt(&fd, sockopt::Ipv6V6Only, &true);
    }
    // Nobody reads from it.
    let _ = setsockopt(&fd, sockopt::RcvBuf, &0);
    match bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port))) {
        Ok(()) => {}
        Err(nix::Error::EADDRNOTAVAIL) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => return Ok(None),
        Err(e) => return Err(explain(e)),
    }
    let bound: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(explain)?;
    let bound = bound.as_sockaddr_in().map(|a| a.port()).or(bound.as_sockaddr_in6().map(|a| a.port()));
    Ok(Some((fd, bound.unwrap_or(port))))
}

/// A port that is free on every given address, from the kernel's ephemeral range.
pub fn random(protocol: Protocol, addresses: &[IpAddr]) -> Result<u16, String> {
    let first = addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    for _ in 0..64 {
        let Some((held, port)) = reserve(protocol, first, 0)? else {
            return Err(format!("a random port for {protocol} cannot be chosen: name one"));
        };
        if addresses.iter().skip(1).all(|a| reserve(protocol, *a, port).is_ok()) {
            drop(held);
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
