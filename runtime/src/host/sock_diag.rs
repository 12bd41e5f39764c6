//! Closing connections of containers whose rule is gone: their peers hear of it, rather than wait for answers that never
//! come.
//!
//! The kernel does it (`SOCK_DESTROY` of sock_diag(7)): the program inside finds its connection aborted, and the other end
//! is sent a RST. Listening sockets are never touched.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use rtnetlink::sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// `SOCK_DIAG_BY_FAMILY` of the kernel's uapi: asks for sockets.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY` of the kernel's uapi.
const DESTROY: u16 = 21;
/// `TCP_CLOSE_WAIT` of the kernel's uapi: the other end has said that nothing more comes from it.
const CLOSE_WAIT: u8 = 8;
/// States of a connection that somebody may be waiting on: ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << CLOSE_WAIT;

/// A connection as one of its ends sees it: its own address and port, then the other's.
pub type End = (SocketAddr, SocketAddr);

/// The network namespace of a process. It stays this one, whoever is given the process's number next.
///
/// # Errors
/// [`ErrorKind::NotFound`] where the process is gone.
pub fn namespace_of(pid: u32) -> Result<File> {
    File::open(Path::new("/proc").join(pid.to_string()).join("ns/net"))
}

/// Closes TCP connections in a network namespace; returns how many there were to close. Takes long where there are many.
///
/// The value of an end tells whether the other end is closed as well. Then one that has already heard the other's FIN is
/// left alone: its program is to read the end of the stream, not an error.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the kernel cannot do it.
pub fn close_connections(namespace: File, ends: HashMap<End, bool>) -> Result<usize> {
    // A thread of its own enters the namespace, and ends in it.
    std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        close_where(Diag::open(libc::IPPROTO_TCP as u8)?, |found| match ends.get(&found.end) {
            Some(both) => !(*both && found.state == CLOSE_WAIT),
            None => false,
        })
    })
    .join()
    .unwrap_or_else(|_| Err(Error::other("the thread ended early")))
}

/// Closes TCP connections of this process's own network namespace that are `meant` by where they lead and by what they have in
/// `storage`, a BPF map of socket storage; returns how many there were to close.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the kernel cannot do it.
pub fn close_stored(storage: BorrowedFd<'_>, meant: impl Fn(SocketAddr, &[u8]) -> bool) -> Result<usize> {
    let diag = Diag { storage: Some(storage), ..Diag::open(libc::IPPROTO_TCP as u8)? };
    close_where(diag, |found| found.stored.as_ref().is_some_and(|value| meant(found.end.1, value)))
}

/// Closes connected UDP sockets of this process's own network namespace, by their cookies and where they are connected to, for
/// the kernel tells nobody what they have in socket storage; returns how many there were to close.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the kernel cannot do it.
pub fn close_datagrams(sockets: &HashSet<(u64, SocketAddr)>) -> Result<usize> {
    let diag = Diag::open(libc::IPPROTO_UDP as u8)?;
    close_where(diag, |found| sockets.contains(&(found.cookie(), found.end.1)))
}

fn close_where(mut diag: Diag<'_>, to_close: impl Fn(&Found) -> bool) -> Result<usize> {
    let mut closed = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Asked for once, however many are to be closed.
        for found in diag.sockets(family as u8, STATES)? {
            if to_close(&found) && diag.destroy(&found)? {
                closed += 1;
            }
        }
    }
    Ok(closed)
}

/// A socket that the kernel tells of.
pub(super) struct Found {
    family: u8,
    state: u8,
    /// Its own address and port, then those of the other end.
    pub(super) end: End,
    /// `struct inet_diag_sockid` as the kernel wrote it: with the cookie, it means this very socket and no later one, and
    /// never the listener of its port.
    id: [u8; ID_LEN],
    /// What it has in the storage that was asked for.
    stored: Option<Vec<u8>>,
}

impl Found {
    /// The kernel's cookie of the socket, which it tells as two words, the lower first.
    fn cookie(&self) -> u64 {
        let word = |at: usize| u32::from_ne_bytes([self.id[at], self.id[at + 1], self.id[at + 2], self.id[at + 3]]);
        u64::from(word(40)) | u64::from(word(44)) << 32
    }
}

/// Length of `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID_LEN: usize = 48;
/// Length of `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, id.
const REQUEST_LEN: usize = 8 + ID_LEN;

/// A conversation with sock_diag.
pub(super) struct Diag<'a> {
    socket: Socket,
    sequence: u32,
    protocol: u8,
    /// A map of socket storage whose values are to be told with the sockets.
    storage: Option<BorrowedFd<'a>>,
}

impl Diag<'_> {
    pub(super) fn open(protocol: u8) -> Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        Ok(Diag { socket, sequence: 0, protocol, storage: None })
    }

    /// Sockets in one of these states, a bit each.
    pub(super) fn sockets(&mut self, family: u8, states: u32) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut question = request((family, self.protocol), states, &[0; ID_LEN]);
        if let Some(map) = self.storage {
            question.extend(storage_request(map));
        }
        self.ask(BY_FAMILY, NLM_F_DUMP, question, |bytes| found.extend(parse(bytes)))?;
        Ok(found)
    }

    /// False where it has gone by itself meanwhile.
    fn destroy(&mut self, found: &Found) -> Result<bool> {
        match self.ask(DESTROY, NLM_F_ACK, request((found.family, self.protocol), 0, &found.id), |_| ()) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(ErrorKind::Unsupported.into()),
            Err(e) => Err(e),
        }
    }

    /// Asks and hears everything that is answered.
    fn ask(&mut self, kind: u16, flags: u16, bytes: Vec<u8>, mut hear: impl FnMut(&[u8])) -> Result<()> {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(Message { kind, bytes });
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Message>::deserialize(rest).map_err(Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(m) => hear(&m.bytes),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// A message of sock_diag, uninterpreted.
struct Message {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = std::convert::Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, Self::Error> {
        Ok(Message { kind: header.message_type, bytes: payload.to_vec() })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}

/// `struct inet_diag_req_v2`.
fn request((family, protocol): (u8, u8), states: u32, id: &[u8; ID_LEN]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_LEN);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Asks for what sockets have in a map: `SK_DIAG_BPF_STORAGE_REQ_MAP_FD` in `INET_DIAG_REQ_SK_BPF_STORAGES`.
fn storage_request(map: BorrowedFd<'_>) -> Vec<u8> {
    const STORAGES: u16 = 2;
    const MAP_FD: u16 = 1;
    attribute(STORAGES | libc::NLA_F_NESTED as u16, &attribute(MAP_FD, &map.as_raw_fd().to_ne_bytes()))
}

/// An attribute of netlink; its value's length is one of those that need no padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (ATTRIBUTE_HEAD + value.len()) as u16;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

/// Length of `struct nlattr`: length, kind.
const ATTRIBUTE_HEAD: usize = 4;

/// The value of the first attribute of that kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (head, _) = attributes.split_first_chunk::<ATTRIBUTE_HEAD>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & libc::NLA_TYPE_MASK as u16;
        let value = attributes.get(ATTRIBUTE_HEAD..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// What is told of a socket's storage: `SK_DIAG_BPF_STORAGE_MAP_VALUE` in `SK_DIAG_BPF_STORAGE` in `INET_DIAG_SK_BPF_STORAGES`.
fn stored(attributes: &[u8]) -> Option<Vec<u8>> {
    const STORAGES: u16 = 20;
    const STORAGE: u16 = 1;
    const MAP_VALUE: u16 = 3;
    find(find(find(attributes, STORAGES)?, STORAGE)?, MAP_VALUE).map(<[u8]>::to_vec)
}

/// Length of `struct inet_diag_msg`, after which attributes follow.
const TOLD_LEN: usize = 4 + ID_LEN + 20;

/// `struct inet_diag_msg`: family, state, timer, retransmissions, id, and more that does not matter here.
fn parse(bytes: &[u8]) -> Option<Found> {
    let (family, state) = (*bytes.first()?, *bytes.get(1)?);
    let id: [u8; ID_LEN] = bytes.get(4..4 + ID_LEN)?.try_into().ok()?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let address = |at: usize| -> Option<IpAddr> {
        if i32::from(family) == libc::AF_INET {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(&id[at..at + 4]).ok()?).into());
        }
        // A socket for both families has IPv4 peers with mapped addresses.
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(&id[at..at + 16]).ok()?).to_canonical())
    };
    let end = (SocketAddr::new(address(4)?, port(0)), SocketAddr::new(address(20)?, port(2)));
    Some(Found { family, state, end, id, stored: bytes.get(TOLD_LEN..).and_then(stored) })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Laid out by hand from the kernel's `linux/inet_diag.h`.
    #[test]
    fn a_connection_as_the_kernel_tells_of_it() {
        let mut bytes = vec![libc::AF_INET6 as u8, 8, 0, 0, 0x00, 0x50, 0x9c, 0x40];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 172, 17, 0, 2]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        bytes.extend([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0; 20]);
        let found = parse(&bytes).unwrap();
        assert_eq!(found.end, ("172.17.0.2:80".parse().unwrap(), "192.0.2.1:40000".parse().unwrap()));
        assert_eq!((found.state, &found.id[40..]), (CLOSE_WAIT, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert!(parse(&bytes[..40]).is_none());
    }

    /// In this process' own namespace, over loopback; needs the right to close sockets, and says so where it has not.
    #[test]
    fn only_the_named_connection_is_closed_and_the_listener_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
        let (mut cut, cut_server) = connect();
        let (stays, mut stays_server) = connect();
        let end = (cut_server.local_addr().unwrap(), cut_server.peer_addr().unwrap());
        match close_connections(namespace_of(std::process::id()).unwrap(), HashMap::from([(end, false)])) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM)) => return eprintln!("skipped: not root"),
            result => assert_eq!(result.unwrap(), 1),
        }
        assert_eq!(cut.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(stays);
        assert_eq!(stays_server.read(&mut [0]).unwrap(), 0);
        connect();
    }

    #[test]
    fn who_has_heard_the_others_fin_is_left_to_read_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let end = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        drop(client);
        // The FIN is there once the stream's end can be seen.
        assert_eq!(server.peek(&mut [0]).unwrap(), 0);
        match close_connections(namespace_of(std::process::id()).unwrap(), HashMap::from([(end, true)])) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM)) => return eprintln!("skipped: not root"),
            result => assert_eq!(result.unwrap(), 0),
        }
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
}
