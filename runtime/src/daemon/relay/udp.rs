//! Datagrams: each client has a socket of its own towards the container, as long as anything is said.
//!
//! Answers must come from the port that the client has spoken to, which the daemon does not bind: they are sent by a raw
//! socket, with a UDP header of their own.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::libc::{in6_addr, in6_pktinfo, sockaddr_in6};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind,
    connect, recvmsg, send as send_to_peer, sendmsg, setsockopt, socket, sockopt,
};
use runtime_common::Protocol;
use runtime_common::packet::UDP;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::conversation::{Serving, Shared};

/// After this much silence of both sides a client is forgotten.
const IDLE: Duration = Duration::from_secs(90);
/// The largest datagram.
const LARGEST: usize = 65_536;
/// Bytes of datagrams that may wait to be read: those of all clients.
const WAITING: usize = 4 << 20;
/// Bytes of a UDP header.
const HEADER: usize = 8;

/// Who speaks, and to which of the host's addresses and ports.
type Ends = (SocketAddrV6, SocketAddrV6);

/// A client that is being served.
struct Client {
    /// Connected to the container.
    socket: Arc<UdpSocket>,
    /// When it last said something.
    heard: Arc<Mutex<Instant>>,
    /// Cancelled with its relay.
    over: CancellationToken,
    /// Tells it from earlier ones with the same ends.
    number: u64,
}

/// All of them.
struct Clients {
    by_ends: HashMap<Ends, Client>,
    /// A task for each, which ends with its ends and its number.
    tasks: JoinSet<(Ends, u64)>,
    answers: Arc<OwnedFd>,
    shared: Arc<Shared>,
    next: u64,
}

/// Hears datagrams of IPv6 alone, each with where it was sent to.
pub(super) fn listen(at: SocketAddrV6) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&fd, sockopt::Ipv6OrigDstAddr, &true)?;
    // With less room it works as well.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &WAITING);
    bind(fd.as_raw_fd(), &SockaddrIn6::from(at))?;
    UdpSocket::from_std(std::net::UdpSocket::from(fd))
}

/// A socket that sends datagrams from any port.
pub(super) fn answering() -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp)?;
    // Unconnected, it would be given a copy of every datagram that reaches the host.
    connect(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0)))?;
    // From addresses that are the host's by a route alone, too; without, from its own.
    let _ = rustix::net::sockopt::set_ipv6_freebind(&fd, true);
    Ok(fd)
}

/// Serves until it is dropped, and all clients with it.
pub(super) async fn serve(listening: UdpSocket, answers: OwnedFd, shared: Arc<Shared>) {
    let mut clients =
        Clients { by_ends: HashMap::new(), tasks: JoinSet::new(), answers: Arc::new(answers), shared, next: 0 };
    let mut buffer = vec![0; LARGEST];
    loop {
        tokio::select! {
            ready = listening.readable() => {
                while ready.is_ok() {
                    let received = listening.try_io(Interest::READABLE, || receive(&listening, &mut buffer));
                    match received {
                        Ok((n, Some(ends))) => clients.pass_on(&buffer[..n], ends),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            Some(over) = clients.tasks.join_next() => if let Ok((ends, number)) = over
                && clients.by_ends.get(&ends).is_some_and(|c| c.number == number)
            {
                clients.by_ends.remove(&ends);
            },
        }
    }
}

impl Clients {
    /// Passes a client's datagram on, and prepares for the answers where it is the first.
    fn pass_on(&mut self, words: &[u8], ends: Ends) {
        let is_known = self.by_ends.get(&ends).is_some_and(|c| !c.over.is_cancelled());
        let client = if is_known { self.by_ends.get(&ends) } else { self.begin(ends) };
        let Some(client) = client else { return };
        *client.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        // Datagrams may be lost.
        let _ = send_to_peer(client.socket.as_raw_fd(), words, MsgFlags::MSG_DONTWAIT);
    }

    fn begin(&mut self, ends: Ends) -> Option<&Client> {
        let (client, here) = ends;
        let serving: Arc<Serving> = self.shared.find(Protocol::Udp, here)?;
        let room = self.shared.admit(&serving, Protocol::Udp, (*client.ip()).into(), (*here.ip()).into())?;
        let socket = Arc::new(towards(serving.to()).ok()?);
        let heard = Arc::new(Mutex::new(Instant::now()));
        self.next += 1;
        let number = self.next;
        let over = serving.over.clone();
        let answering = answer(self.answers.clone(), socket.clone(), ends, heard.clone(), room);
        let until = over.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = answering => {}
                () = until.cancelled() => {}
            }
            (ends, number)
        });
        self.by_ends.insert(ends, Client { socket, heard, over, number });
        self.by_ends.get(&ends)
    }
}

/// A socket that is connected to the container.
fn towards(to: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}

/// Passes the container's answers on, until nobody has said anything for a while.
async fn answer(
    answers: Arc<OwnedFd>,
    container: Arc<UdpSocket>,
    ends: Ends,
    heard: Arc<Mutex<Instant>>,
    _room: OwnedSemaphorePermit,
) {
    loop {
        if timeout(IDLE, container.readable()).await.is_err() {
            if heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= IDLE {
                return;
            }
            continue;
        }
        let mut buffer = vec![0; LARGEST];
        loop {
            match container.try_recv(&mut buffer) {
                Ok(n) => {
                    // An error may be about an earlier answer to somebody else.
                    let _ = send(&answers, &buffer[..n], ends).or_else(|_| send(&answers, &buffer[..n], ends));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // Nobody listens there: the client hears nothing, as of docker-proxy.
                Err(_) => {}
            }
        }
    }
}

/// A datagram with its ends; without, where the kernel does not tell them.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<Ends>)> {
    let mut control = nix::cmsg_space!(sockaddr_in6);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
    let here = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::Ipv6OrigDstAddr(a) => {
            Some(SocketAddrV6::new(Ipv6Addr::from(a.sin6_addr.s6_addr), u16::from_be(a.sin6_port), 0, 0))
        }
        _ => None,
    });
    let ends = message.address.map(SocketAddrV6::from).zip(here);
    Ok((message.bytes, ends))
}

/// Sends from the address and port that the client has spoken to: it takes answers from no other.
fn send(answers: &OwnedFd, words: &[u8], (client, here): Ends) -> io::Result<usize> {
    let from = in6_pktinfo {
        ipi6_addr: in6_addr { s6_addr: here.ip().octets() },
        // Link-local addresses mean something on their interface only.
        ipi6_ifindex: client.scope_id(),
    };
    let header = header(words, (&client, &here)).ok_or(ErrorKind::InvalidInput)?;
    let control = [ControlMessage::Ipv6PacketInfo(&from)];
    // Of a raw socket's addresses, the port would be the protocol.
    let to = SockaddrIn6::from(SocketAddrV6::new(*client.ip(), 0, 0, client.scope_id()));
    let iov = [IoSlice::new(&header), IoSlice::new(words)];
    Ok(sendmsg(answers.as_raw_fd(), &iov, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?)
}

/// The UDP header (RFC 768) of a datagram from `here` to `client`, with its checksum over the pseudo-header of RFC 8200 §8.1.
fn header(words: &[u8], (client, here): (&SocketAddrV6, &SocketAddrV6)) -> Option<[u8; HEADER]> {
    let length = u16::try_from(HEADER + words.len()).ok()?;
    let mut header = [0; HEADER];
    header[0..2].copy_from_slice(&here.port().to_be_bytes());
    header[2..4].copy_from_slice(&client.port().to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    let pairs = |bytes: &[u8]| -> u64 {
        bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
    };
    let mut sum = pairs(&here.ip().octets()) + pairs(&client.ip().octets()) + u64::from(length) + u64::from(UDP);
    sum += pairs(&header) + pairs(words);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Zero would say that there is none.
    let checksum = if sum == 0xffff { 0xffff } else { !(sum as u16) };
    header[6..8].copy_from_slice(&checksum.to_be_bytes());
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three bytes from [::1]:53 to [::1]:1024, summed up by hand.
    #[test]
    fn the_checksum_is_over_the_pseudo_header_and_an_odd_end() {
        let (client, here) = ("[::1]:1024".parse().unwrap(), "[::1]:53".parse().unwrap());
        let header = header(b"abc", (&client, &here)).unwrap();
        // 2 (addresses) + 11 + 17 + 53 + 1024 + 11 + 0x6162 + 0x6300 = 0xc8c0.
        assert_eq!(header, [0, 53, 4, 0, 0, 11, 0x37, 0x3f]);
        assert!(super::header(&[0; 65_528], (&client, &here)).is_none());
    }
}
