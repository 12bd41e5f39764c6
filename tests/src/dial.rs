//! Clients of every kind, and what each end sees of the other.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

use crate::Netns;
use crate::sockets::{PATIENCE, Talk, ask, bind_udp, uninterrupted};

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A connection.
    Tcp,
    /// Datagrams of a connected socket.
    Connected,
    /// Datagrams of a socket that names its target each time.
    Unconnected,
}

impl How {
    /// All three.
    pub const ALL: [How; 3] = [How::Tcp, How::Connected, How::Unconnected];
}

/// What an exchange showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whom the server saw, without regard to how its socket writes IPv4.
    pub client: SocketAddr,
    /// The port of the client's own socket.
    pub ours: u16,
    /// Whom the client's socket names as its peer or as the sender of the answer.
    pub peer: SocketAddr,
}

/// Any address and port of the same family.
pub fn wildcard(like: &SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// Sends from an unconnected socket, and gives whom the echo server saw and where the answer came from.
pub fn exchange(socket: &UdpSocket, to: SocketAddr, words: &[u8]) -> io::Result<(SocketAddr, SocketAddr)> {
    socket.send_to(words, to)?;
    let mut buffer = [0; 2048];
    let (n, from) = uninterrupted(|| socket.recv_from(&mut buffer))?;
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    let seen = text.strip_prefix("peer ").and_then(|t| t.lines().next()).and_then(|a| a.parse().ok());
    Ok((seen.ok_or_else(|| io::Error::other(format!("no echo server: it says {text:?}")))?, from))
}

/// A UDP socket of a namespace that is connected to nobody and is told of errors all the same; it waits a second for an
/// answer.
pub fn unconnected(ns: &Netns, from: SocketAddr) -> io::Result<UdpSocket> {
    ns.within(|| {
        let socket = bind_udp(from)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        match from {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
        }?;
        Ok(socket)
    })
}

/// Asks an echo server, and asks each end whom it sees. `from`: an address and port of one's own choice.
pub fn dial(ns: &Netns, how: How, from: Option<SocketAddr>, to: SocketAddr) -> io::Result<Shown> {
    let bound = from.unwrap_or_else(|| wildcard(&to));
    let (client, ours, peer) = match how {
        How::Tcp => {
            let stream = match from {
                Some(from) => ns.tcp_from(from, to)?,
                None => ns.tcp(to)?,
            };
            let peer = stream.peer_addr()?;
            let mut talk = Talk::over(stream)?;
            talk.say(b"words")?;
            (talk.seen(), talk.ours().port(), peer)
        }
        How::Connected => {
            let socket = ns.udp_from(bound, to)?;
            let client = ask(&socket, b"words")?;
            socket.send(b"again")?;
            let (_, from) = uninterrupted(|| socket.recv_from(&mut [0; 2048]))?;
            let peer = socket.peer_addr()?;
            if from != peer {
                return Err(io::Error::other(format!("an answer comes from {from}, the peer is {peer}")));
            }
            (client, socket.local_addr()?.port(), peer)
        }
        How::Unconnected => {
            let socket = unconnected(ns, bound)?;
            let (client, peer) = exchange(&socket, to, b"words")?;
            (client, socket.local_addr()?.port(), peer)
        }
    };
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    Ok(Shown { client, ours, peer })
}
