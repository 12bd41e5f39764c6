//! Raw Ethernet frames: what no ordinary socket would send.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nix::libc::{ENOBUFS, iovec, mmsghdr, sendmmsg};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Netns;

/// Everybody on the LAN.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// The sender and the receiver of a frame; `A` is the kind of their addresses.
#[derive(Clone, Copy, Debug)]
pub struct Way<A = Ipv4Addr> {
    /// The sender's MAC address.
    pub from_mac: [u8; 6],
    /// The receiver's MAC address.
    pub to_mac: [u8; 6],
    /// The sender's IP address.
    pub from: A,
    /// The receiver's IP address.
    pub to: A,
}

impl<A: Into<IpAddr> + Copy> Way<A> {
    /// A UDP datagram this way.
    pub fn udp(&self, from_port: u16, to_port: u16, words: &[u8]) -> Vec<u8> {
        let builder = self.ip().udp(from_port, to_port);
        let mut frame = Vec::with_capacity(builder.size(words.len()));
        built(builder.write(&mut frame, words));
        frame
    }

    /// A TCP SYN this way.
    pub fn syn(&self, from_port: u16, to_port: u16) -> Vec<u8> {
        let builder = self.ip().tcp(from_port, to_port, 1, 64240).syn();
        let mut frame = Vec::with_capacity(builder.size(0));
        built(builder.write(&mut frame, &[]));
        frame
    }

    /// A TCP segment without data this way, with a sequence number and what it acknowledges.
    pub fn acknowledgement(&self, from_port: u16, to_port: u16, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let builder = self.ip().tcp(from_port, to_port, sequence, 0).ack(acknowledged);
        let mut frame = Vec::with_capacity(builder.size(0));
        built(builder.write(&mut frame, &[]));
        frame
    }

    /// A TCP reset this way, with a sequence number.
    pub fn reset(&self, from_port: u16, to_port: u16, sequence: u32) -> Vec<u8> {
        let builder = self.ip().tcp(from_port, to_port, sequence, 0).rst();
        let mut frame = Vec::with_capacity(builder.size(0));
        built(builder.write(&mut frame, &[]));
        frame
    }

    /// A TCP segment this way that acknowledges the answer to a SYN whose sequence number was 1.
    pub fn handshake_end(&self, from_port: u16, to_port: u16, ack: u32) -> Vec<u8> {
        let builder = self.ip().tcp(from_port, to_port, 2, 64240).ack(ack);
        let mut frame = Vec::with_capacity(builder.size(0));
        built(builder.write(&mut frame, &[]));
        frame
    }

    /// A "destination unreachable" this way, of IPv4: its code, the MTU where it tells of one, and the frame that it quotes.
    pub fn unreachable(&self, code: u8, mtu: u16, about: &[u8]) -> Vec<u8> {
        /// Bytes of the Ethernet header.
        const ETHERNET: usize = 14;
        let [high, low] = mtu.to_be_bytes();
        let builder = self.ip().icmpv4_raw(3, code, [0, 0, high, low]);
        let quoted = &about[ETHERNET..];
        let mut frame = Vec::with_capacity(builder.size(quoted.len()));
        built(builder.write(&mut frame, quoted));
        frame
    }

    /// An echo request this way, of IPv4.
    pub fn ping(&self, id: u16, words: &[u8]) -> Vec<u8> {
        let builder = self.ip().icmpv4_echo_request(id, 1);
        let mut frame = Vec::with_capacity(builder.size(words.len()));
        built(builder.write(&mut frame, words));
        frame
    }

    /// A frame of any EtherType this way; the addresses are not used.
    pub fn ethernet(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&self.to_mac[..], &self.from_mac, &ether_type.to_be_bytes(), payload].concat();
        // The least that Ethernet carries, without the checksum (IEEE 802.3, 4A.2.3.2.4).
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn ip(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let builder = PacketBuilder::ethernet2(self.from_mac, self.to_mac);
        match (self.from.into(), self.to.into()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
            (from, to) => panic!("no frame goes from {from} to {to}"),
        }
    }
}

#[track_caller]
fn built<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(e) = result {
        panic!("no such frame: {e}");
    }
}

/// A socket that sends and sees whole frames of one device.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// On a device of a namespace.
    ///
    /// # Panics
    /// When there is no such device.
    #[track_caller]
    pub fn open(ns: &Netns, device: &str) -> Wire {
        match ns.within(|| Wire::inside(device)) {
            Ok(wire) => wire,
            Err(e) => panic!("a packet socket on {device} of {}: {e}", ns.path().display()),
        }
    }

    fn inside(device: &str) -> io::Result<Wire> {
        let index = nix::net::if_::if_nametoindex(device)?;
        let every = (nix::libc::ETH_P_ALL as u16).to_be();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(every))))?;
        // SAFETY: the storage is zeroed and large enough for a sockaddr_ll, and the length set is that of a sockaddr_ll.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                let link = storage.cast::<nix::libc::sockaddr_ll>();
                (*link).sll_family = nix::libc::AF_PACKET as u16;
                (*link).sll_protocol = every;
                (*link).sll_ifindex = index as i32;
                *length = size_of::<nix::libc::sockaddr_ll>() as nix::libc::socklen_t;
                Ok(())
            })
        }?;
        socket.bind(&address)?;
        Ok(Wire { socket })
    }

    /// Keeps what a flood answers with until it is read.
    #[track_caller]
    pub fn keep_much(&self) {
        const BYTES: usize = 64 << 20;
        if let Err(e) = nix::sys::socket::setsockopt(&self.socket, nix::sys::socket::sockopt::RcvBufForce, &BYTES) {
            panic!("a packet socket with much room: {e}");
        }
    }

    /// Sends a frame as it is.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        match self.socket.send(frame) {
            Ok(n) => assert_eq!(n, frame.len(), "a frame was cut"),
            Err(e) => panic!("cannot send a frame: {e}"),
        }
    }

    /// Sends a frame many times, each time as `change` has made it of the one before; several with each call of the kernel.
    #[track_caller]
    pub fn flood(&self, frame: &[u8], count: usize, mut change: impl FnMut(&mut [u8])) {
        const TOGETHER: usize = 64;
        let mut next = frame.to_vec();
        let mut frames: Vec<Vec<u8>> = vec![frame.to_vec(); TOGETHER];
        let mut left = count;
        while left > 0 {
            let now = left.min(TOGETHER);
            for place in &mut frames[..now] {
                change(&mut next);
                place.copy_from_slice(&next);
            }
            let mut parts: Vec<iovec> =
                frames[..now].iter_mut().map(|f| iovec { iov_base: f.as_mut_ptr().cast(), iov_len: f.len() }).collect();
            let mut messages: Vec<mmsghdr> = parts
                .iter_mut()
                .map(|part| {
                    // SAFETY: plain integers and pointers, for which zero is a value: no address, no control data.
                    let mut message: mmsghdr = unsafe { std::mem::zeroed() };
                    message.msg_hdr.msg_iov = part;
                    message.msg_hdr.msg_iovlen = 1;
                    message
                })
                .collect();
            let mut sent = 0;
            while sent < now {
                let rest = &mut messages[sent..];
                // SAFETY: the messages and what they point to outlive the call, and are as many as said.
                let n = unsafe { sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
                match usize::try_from(n) {
                    Ok(n) => sent += n,
                    // The device's queue is full for the moment.
                    Err(_) if io::Error::last_os_error().raw_os_error() == Some(ENOBUFS) => std::thread::yield_now(),
                    Err(_) => panic!("cannot send frames: {}", io::Error::last_os_error()),
                }
            }
            left -= now;
        }
    }

    /// Sends what `answer` makes of the frames that were seen, until none comes for so long.
    #[track_caller]
    pub fn answer(&self, silence: Duration, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        let mut buffer = vec![0; 65536];
        if let Err(e) = self.socket.set_read_timeout(Some(silence)) {
            panic!("a packet socket without a timeout: {e}");
        }
        while let Ok(n) =
            nix::sys::socket::recv(self.socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())
        {
            if let Some(frame) = answer(&buffer[..n]) {
                self.send(&frame);
            }
        }
    }

    /// The first frame that `wanted` takes, sent or received on the device from now on; `None` after `limit`.
    pub fn find(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 65536];
        loop {
            let left = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero())?;
            self.socket.set_read_timeout(Some(left)).ok()?;
            let Ok(n) =
                nix::sys::socket::recv(self.socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())
            else {
                continue;
            };
            if wanted(&buffer[..n]) {
                return Some(buffer[..n].to_vec());
            }
        }
    }
}

/// Gives a frame of IPv4 without options another sender, checksums included: TCP and UDP have ports as well.
pub fn change_sender(frame: &mut [u8], from: Ipv4Addr, port: u16) {
    /// Where the protocol and the sender's address and port are.
    const PROTOCOL: usize = 23;
    const ADDRESS: usize = 26;
    const PORT: usize = 34;
    const UDP_SUM: usize = 40;
    let sums = match frame[PROTOCOL] {
        6 => &[IP_SUM, TCP_SUM][..],
        17 => &[IP_SUM, UDP_SUM],
        _ => &[IP_SUM],
    };
    let [a, b, c, d] = from.octets();
    change_word(frame, ADDRESS, [a, b], sums);
    change_word(frame, ADDRESS + 2, [c, d], sums);
    if let [_, sum] = sums {
        change_word(frame, PORT, port.to_be_bytes(), &[*sum]);
    }
}

/// Gives a TCP frame of IPv4 without options another sequence number, checksum included.
pub fn change_sequence(frame: &mut [u8], sequence: u32) {
    /// Where the number is.
    const SEQUENCE: usize = 38;
    let [a, b, c, d] = sequence.to_be_bytes();
    change_word(frame, SEQUENCE, [a, b], &[TCP_SUM]);
    change_word(frame, SEQUENCE + 2, [c, d], &[TCP_SUM]);
}

/// Makes a frame of IPv4 without options the first fragment of a datagram of which more are to follow.
pub fn make_first_fragment(frame: &mut [u8]) {
    change_word(frame, 20, [0x20, 0], &[IP_SUM]);
}

const IP_SUM: usize = 24;
const TCP_SUM: usize = 50;

/// Changes a word, and the checksums over it with it (RFC 1624, equation 3).
fn change_word(frame: &mut [u8], at: usize, new: [u8; 2], sums: &[usize]) {
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let old = word(frame, at);
    for sum in sums {
        let changed = u32::from(!word(frame, *sum)) + u32::from(!old) + u32::from(u16::from_be_bytes(new));
        let folded = (changed & 0xffff) + (changed >> 16);
        let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame[*sum..sum + 2].copy_from_slice(&folded.to_be_bytes());
    }
    frame[at..at + 2].copy_from_slice(&new);
}

/// Whether a frame holds these words anywhere.
pub fn holds(frame: &[u8], words: &[u8]) -> bool {
    frame.windows(words.len()).any(|w| w == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_sender_is_written_as_if_the_frame_were_its_own() {
        let way =
            Way { from_mac: [1; 6], to_mac: [2; 6], from: Ipv4Addr::new(192, 0, 2, 1), to: Ipv4Addr::new(10, 0, 0, 1) };
        let mut frame = way.syn(1, 80);
        for (from, port) in [([10, 1, 2, 3], 65_535), ([255; 4], 0), ([0, 0, 0, 1], 40_000)] {
            change_sender(&mut frame, from.into(), port);
            assert_eq!(frame, Way { from: Ipv4Addr::from(from), ..way }.syn(port, 80));
        }
        let other = Way { from: Ipv4Addr::new(10, 1, 2, 3), ..way };
        let mut frame = way.udp(1, 80, b"words");
        change_sender(&mut frame, other.from, 4000);
        assert_eq!(frame, other.udp(4000, 80, b"words"));
        let mut frame = way.ping(7, b"words");
        change_sender(&mut frame, other.from, 4000);
        assert_eq!(frame, other.ping(7, b"words"));
    }

    #[test]
    fn another_sequence_number_is_written_as_if_it_were_the_frames_own() {
        let way =
            Way { from_mac: [1; 6], to_mac: [2; 6], from: Ipv4Addr::new(192, 0, 2, 1), to: Ipv4Addr::new(10, 0, 0, 1) };
        let mut frame = way.reset(1, 80, 7);
        for sequence in [0, 1, 0xffff_ffff, 0x8000_0000, 0x1234_5678] {
            change_sequence(&mut frame, sequence);
            assert_eq!(frame, way.reset(1, 80, sequence));
        }
    }
}
