//! Connections that containers have, as their own namespaces' socket tables tell: what a datapath that takes over a
//! running host must not cut.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use runtime_common::packet::{TCP, UDP};

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

/// The connected TCP and UDP sockets of the network namespace of a process.
///
/// Read from `/proc/PID/net`, which shows that namespace's tables without entering it.
///
/// # Errors
/// Where the process is gone.
pub fn established(pid: u32) -> std::io::Result<Vec<Socket>> {
    let net = Path::new("/proc").join(pid.to_string()).join("net");
    let mut found = Vec::new();
    for (file, protocol) in [("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP)] {
        match fs::read_to_string(net.join(file)) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|line| parse(line, protocol))),
            // A host without IPv6 has no such tables.
            Err(e) if file.ends_with('6') && e.kind() == std::io::ErrorKind::NotFound => {}
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
    use super::*;

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
