//! Raw Ethernet frames: what no ordinary socket would send.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
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

    /// Sends a frame as it is.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        match self.socket.send(frame) {
            Ok(n) => assert_eq!(n, frame.len(), "a frame was cut"),
            Err(e) => panic!("cannot send a frame: {e}"),
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

/// Whether a frame holds these words anywhere.
pub fn holds(frame: &[u8], words: &[u8]) -> bool {
    frame.windows(words.len()).any(|w| w == words)
}
