//! Who listens on the host's ports at IPv6 addresses.

use std::collections::BTreeSet;
use std::io::Result;
use std::net::{IpAddr, Ipv6Addr};

use nix::libc;
use runtime_common::Protocol;

use super::sock_diag::Diag;

/// A port that somebody hears of what comes for: the protocol, the port, and the address, `::` for all of them.
pub type Listener = (Protocol, u16, Ipv6Addr);

/// `TCP_LISTEN` of the kernel's uapi.
const LISTEN: u32 = 1 << 10;
/// `TCP_CLOSE` of the kernel's uapi: of UDP, a socket that is bound and not connected.
const CLOSE: u32 = 1 << 7;

/// The sockets of IPv6 that listen for connections, or hear datagrams of anybody, in this process's network namespace. What is
/// bound to a TCP port and does not listen is none of them.
///
/// # Errors
/// Where the kernel does not tell.
pub fn listeners() -> Result<BTreeSet<Listener>> {
    let mut found = BTreeSet::new();
    for (protocol, states) in [(Protocol::Tcp, LISTEN), (Protocol::Udp, CLOSE)] {
        for socket in Diag::open(protocol.number())?.sockets(libc::AF_INET6 as u8, states)? {
            if let (IpAddr::V6(address), port) = (socket.end.0.ip(), socket.end.0.port()) {
                found.insert((protocol, port, address));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn those_that_listen_and_no_others() {
        let tcp = TcpListener::bind("[::1]:0").unwrap();
        let (udp, connected) = (UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        let at = tcp.local_addr().unwrap();
        connected.connect(at).unwrap();
        let stream = TcpStream::connect(at).unwrap();
        let found = listeners().unwrap();
        let has = |protocol, port| found.contains(&(protocol, port, Ipv6Addr::LOCALHOST));
        assert!(has(Protocol::Tcp, at.port()) && has(Protocol::Udp, udp.local_addr().unwrap().port()));
        assert!(!has(Protocol::Udp, connected.local_addr().unwrap().port()));
        assert!(!has(Protocol::Tcp, stream.local_addr().unwrap().port()));
    }
}
