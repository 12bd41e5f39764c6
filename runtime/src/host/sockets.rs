//! Connections that containers have, as their own namespaces' socket tables tell: what a datapath that takes over a
//! running host must not cut.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use runtime_common::packet::{TCP, UDP};

use super::sock_diag::Diag;

/// The bit of `TCP_LISTEN` of the kernel's uapi among states.
const LISTENING: u32 = 1 << 10;

/// A connected socket in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The container's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

/// The connected TCP and UDP sockets of the network namespaces of processes, by the processes. One that is gone has none.
///
/// All processors ask: for each namespace the kernel looks through a table that all of them share.
pub fn established(pids: &[u32]) -> HashMap<u32, Vec<Socket>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = pids.chunks(pids.len().div_ceil(threads).max(1));
    std::thread::scope(|scope| {
        // A thread enters one namespace after the other, and ends there.
        let ask = |part: &[u32]| part.iter().filter_map(|pid| Some((*pid, of_process(*pid).ok()?))).collect::<Vec<_>>();
        let asked: Vec<_> = parts.map(|part| scope.spawn(move || ask(part))).collect();
        asked.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    })
}

/// Enters the namespace of the process.
fn of_process(pid: u32) -> Result<Vec<Socket>> {
    let net = Path::new("/proc").join(pid.to_string()).join("net");
    let counts =
        [fs::read_to_string(net.join("sockstat"))?, fs::read_to_string(net.join("sockstat6")).unwrap_or_default()];
    let mut entered = false;
    let mut found = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        if counts.iter().all(|text| has_none(text, name)) {
            continue;
        }
        if !std::mem::replace(&mut entered, true) {
            setns(File::open(Path::new("/proc").join(pid.to_string()).join("ns/net"))?, CloneFlags::CLONE_NEWNET)?;
        }
        match by_diag(protocol) {
            Ok(sockets) => found.extend(sockets),
            // A kernel without sock_diag for the protocol: its tables as text take ten times as long.
            Err(_) => found.extend(by_tables(&net, name, protocol)?),
        }
    }
    Ok(found)
}

/// Whether a namespace's `sockstat` or `sockstat6` tells of no sockets of a protocol: most containers have few.
fn has_none(sockstat: &str, protocol: &str) -> bool {
    let line = sockstat.lines().find_map(|l| l.strip_prefix(protocol)?.trim_start_matches('6').strip_prefix(": "));
    let mut words = line.unwrap_or_default().split(' ');
    let mut value =
        |name: &str| words.find(|w| *w == name).and_then(|_| words.next()).map_or(0, |n| n.parse().unwrap_or(1));
    // Those that wait for late segments are counted beside.
    value("inuse") == 0 && value("tw") == 0
}

/// Of the caller's namespace.
fn by_diag(protocol: u8) -> Result<Vec<Socket>> {
    let mut diag = Diag::open(protocol)?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let sockets = diag.sockets(family as u8, !LISTENING)?.into_iter().map(|s| s.end);
        let connected = sockets.filter(|(_, remote)| remote.port() != 0 && !remote.ip().is_loopback());
        found.extend(connected.map(|(local, remote)| Socket { local, remote, protocol }));
    }
    Ok(found)
}

fn by_tables(net: &Path, name: &str, protocol: u8) -> Result<Vec<Socket>> {
    let mut found = Vec::new();
    for file in [name.to_lowercase(), format!("{}6", name.to_lowercase())] {
        match fs::read_to_string(net.join(&file)) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|line| parse(line, protocol))),
            // A host without IPv6 has no such tables.
            Err(e) if file.ends_with('6') && e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// A line of `/proc/net/tcp` and its kin: `sl local remote state ...`, addresses as words in host byte order.
fn parse(line: &str, protocol: u8) -> Option<Socket> {
    /// Listening: nobody is at the other end.
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    if remote.port() == 0 || fields.next()? == LISTEN || remote.ip().is_loopback() {
        return None;
    }
    Some(Socket { local, remote, protocol })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0u8; 16];
    let words = address.len() / 8;
    for i in 0..words {
        let word = u32::from_str_radix(address.get(i * 8..i * 8 + 8)?, 16).ok()?;
        bytes.get_mut(i * 4..i * 4 + 4)?.copy_from_slice(&word.to_ne_bytes());
    }
    let ip: IpAddr = match words {
        1 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        4 => Ipv6Addr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn what_a_namespace_counts() {
        let v4 = "sockets: used 5\nTCP: inuse 0 orphan 0 tw 0 alloc 9 mem 1\nUDP: inuse 2 mem 1\nUDPLITE: inuse 7\n";
        assert!(has_none(v4, "TCP") && !has_none(v4, "UDP"));
        assert!(!has_none("TCP: inuse 0 orphan 0 tw 1 alloc 9 mem 1\n", "TCP"));
        let v6 = "TCP6: inuse 3\nUDP6: inuse 0\n";
        assert!(!has_none(v6, "TCP") && has_none(v6, "UDP") && has_none("", "TCP"));
    }

    /// The two ways to ask agree about this process's own namespace. Needs root.
    #[test]
    fn sockets_of_a_process() {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        if udp.connect("192.0.2.9:9").is_err() {
            return eprintln!("skipped: no route to anywhere");
        }
        let _listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let own = udp.local_addr().unwrap();
        let meant = |all: &[Socket]| all.iter().filter(|s| s.local == own).copied().collect::<Vec<_>>();
        let pid = std::process::id();
        let found = established(&[pid]).remove(&pid).unwrap();
        assert_eq!(meant(&found).len(), 1);
        assert!(found.iter().all(|s| s.remote.port() != 0 && !s.remote.ip().is_loopback()));
        let told = by_tables(Path::new("/proc/self/net"), "UDP", UDP).unwrap();
        assert_eq!(meant(&told), meant(&found));
    }

    #[test]
    fn lines_of_the_kernels_tables() {
        // A connection of 172.17.0.2:80 with 192.0.2.1:40000, as a little-endian kernel prints it.
        let line = "   1: 020011AC:0050 010200C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1234 1";
        let socket = parse(line, TCP).unwrap();
        assert_eq!(socket.local, "172.17.0.2:80".parse().unwrap());
        assert_eq!(socket.remote, "192.0.2.1:40000".parse().unwrap());
        let mapped =
            "   1: 0000000000000000FFFF0000020011AC:0050 0000000000000000FFFF0000010200C0:9C40 01 0:0 0:0 0 0 0 1 1";
        assert_eq!(parse(mapped, TCP).unwrap(), socket);
    }

    #[test]
    fn listeners_and_unconnected_sockets_are_no_conversations() {
        let listening =
            "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(parse(listening, TCP), None);
        let unconnected =
            "   0: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2";
        assert_eq!(parse(unconnected, UDP), None);
    }
}
