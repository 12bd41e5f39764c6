//! Datagrams: each client has a socket of its own towards the container, as long as anything is said.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::libc::in6_pktinfo;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6, bind, recvmsg,
    send as send_to_peer, sendmsg, setsockopt, socket, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Gate;

/// After this much silence of both sides a client is forgotten.
const IDLE: Duration = Duration::from_secs(90);
/// The largest datagram.
const LARGEST: usize = 65_536;

/// Who speaks, and to which of the host's addresses.
type Ends = (SocketAddrV6, Ipv6Addr);

/// A client that is being served.
struct Client {
    /// Connected to the container.
    socket: Arc<UdpSocket>,
    /// When it last said something.
    heard: Arc<Mutex<Instant>>,
}

/// Listens for IPv6 alone.
pub(super) fn listen(at: SocketAddrV6) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(at))?;
    UdpSocket::from_std(std::net::UdpSocket::from(fd))
}

/// Serves until it is dropped, and all clients with it.
pub(super) async fn serve(listening: UdpSocket, to: SocketAddrV4, gate: &Gate) {
    let listening = Arc::new(listening);
    let mut clients: HashMap<Ends, Client> = HashMap::new();
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            ready = listening.readable() => {
                // Only while there is something to read: there may be thousands of relays.
                let mut buffer = vec![0; LARGEST];
                while ready.is_ok() {
                    let received = listening.try_io(Interest::READABLE, || receive(&listening, &mut buffer));
                    match received {
                        Ok((n, Some(ends))) => pass_on(&buffer[..n], ends, to, gate, &listening, &mut clients, &mut answers),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        // An error about an earlier answer.
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            Some(over) = answers.join_next() => if let Ok(ends) = over {
                clients.remove(&ends);
            },
        }
    }
}

/// Passes a client's datagram on, and prepares for the answers where it is the first.
fn pass_on(
    words: &[u8],
    ends: Ends,
    to: SocketAddrV4,
    gate: &Gate,
    listening: &Arc<UdpSocket>,
    clients: &mut HashMap<Ends, Client>,
    answers: &mut JoinSet<Ends>,
) {
    let client = match clients.entry(ends) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => {
            let (client, here) = ends;
            let Some(room) = gate.admit((*client.ip()).into(), here.into()) else { return };
            let Ok(socket) = towards(to) else { return };
            let new = Client { socket: Arc::new(socket), heard: Arc::new(Mutex::new(Instant::now())) };
            answers.spawn(answer(listening.clone(), new.socket.clone(), ends, new.heard.clone(), room));
            free.insert(new)
        }
    };
    *client.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    // Datagrams may be lost.
    let _ = send_to_peer(client.socket.as_raw_fd(), words, MsgFlags::MSG_DONTWAIT);
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
    listening: Arc<UdpSocket>,
    container: Arc<UdpSocket>,
    ends: Ends,
    heard: Arc<Mutex<Instant>>,
    _room: OwnedSemaphorePermit,
) -> Ends {
    loop {
        if timeout(IDLE, container.readable()).await.is_err() {
            if heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= IDLE {
                return ends;
            }
            continue;
        }
        let mut buffer = vec![0; LARGEST];
        loop {
            match container.try_recv(&mut buffer) {
                Ok(n) => {
                    let _ = send(&listening, &buffer[..n], ends);
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
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
    let here = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let ends = message.address.map(SocketAddrV6::from).zip(here);
    Ok((message.bytes, ends))
}

/// Sends from the address that the client has spoken to: it takes answers from no other.
fn send(socket: &UdpSocket, words: &[u8], (client, here): Ends) -> io::Result<usize> {
    let from = in6_pktinfo {
        ipi6_addr: nix::libc::in6_addr { s6_addr: here.octets() },
        // Link-local addresses mean something on their interface only.
        ipi6_ifindex: client.scope_id(),
    };
    let control = [ControlMessage::Ipv6PacketInfo(&from)];
    let to = SockaddrIn6::from(client);
    Ok(sendmsg(socket.as_raw_fd(), &[IoSlice::new(words)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?)
}
