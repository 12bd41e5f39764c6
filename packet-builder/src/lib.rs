//! Packets for tests, built by hand, and a plain second opinion about their checksums: nothing of the crates under test is used here.
//!
//! ```
//! use packet_builder::{SYN, tcp};
//!
//! let frame = tcp("192.0.2.7", 40000, "192.0.2.1", 8080, SYN).ttl(3).build();
//! assert_eq!((frame[12], frame[22]), (0x08, 3));
//! ```
//!
//! [`segments`] and [`errors`] are whole conversations, with what is to be remembered or believed of each packet.
#![allow(clippy::unwrap_used, reason = "for tests alone")]

pub mod errors;
pub mod segments;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP flag: synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// TCP flag: reset the connection.
pub const RST: u8 = 0x04;
/// TCP flag: the acknowledgement number is valid.
pub const ACK: u8 = 0x10;

/// What follows the IP header.
#[derive(Clone, Debug)]
pub enum L4 {
    /// TCP; numbers, window and options are the packet's.
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// [`SYN`] and the others.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Whether it has one: 0 stands for none.
        checksum: bool,
    },
    /// SCTP, with a checksum that is none.
    Sctp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// ICMP or ICMPv6, by the family of the addresses: type, code, and the four bytes after the checksum.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// What follows the checksum.
        rest: [u8; 4],
    },
    /// Anything, with its IP protocol number; all of it is the payload.
    Raw {
        /// IP protocol number.
        protocol: u8,
    },
}

/// One packet from the Ethernet header on.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    /// Destination MAC address.
    pub mac_dst: [u8; 6],
    /// Source MAC address.
    pub mac_src: [u8; 6],
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Identification: of IPv4 always, of IPv6 in fragments.
    pub id: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// What follows the IP header.
    pub l4: L4,
    /// What follows that header.
    pub payload: Vec<u8>,
    /// First byte and number of bytes of a fragment of what follows the IP header.
    pub fragment: Option<(usize, usize)>,
    /// A VLAN tag in the frame.
    pub vlan: Option<u16>,
    /// TCP's sequence number.
    pub sequence: u32,
    /// TCP's acknowledgement number.
    pub acknowledges: u32,
    /// TCP's window, as it stands in the header.
    pub window: u16,
    /// TCP's options, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
}

/// An address.
///
/// # Panics
/// Where it is none.
pub fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn new(src: &str, dst: &str, l4: L4) -> PacketBuilder {
    PacketBuilder {
        mac_dst: [2, 0, 0, 0, 0, 1],
        mac_src: [2, 0, 0, 0, 0, 2],
        src: ip(src),
        dst: ip(dst),
        ttl: 64,
        id: 0x1234,
        options: vec![],
        l4,
        payload: b"payload".to_vec(),
        fragment: None,
        vlan: None,
        sequence: 1,
        acknowledges: 2,
        window: 0x1000,
        tcp_options: vec![],
    }
}

/// A TCP segment.
pub fn tcp(src: &str, sport: u16, dst: &str, dport: u16, flags: u8) -> PacketBuilder {
    new(src, dst, L4::Tcp { sport, dport, flags })
}

/// A UDP datagram.
pub fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> PacketBuilder {
    new(src, dst, L4::Udp { sport, dport, checksum: true })
}

/// A UDP datagram of IPv4 without a checksum.
pub fn udp_without_checksum(src: &str, sport: u16, dst: &str, dport: u16) -> PacketBuilder {
    new(src, dst, L4::Udp { sport, dport, checksum: false })
}

/// An SCTP packet.
pub fn sctp(src: &str, sport: u16, dst: &str, dport: u16) -> PacketBuilder {
    new(src, dst, L4::Sctp { sport, dport })
}

/// An ICMP or ICMPv6 message, by the family of the addresses.
pub fn icmp(src: &str, dst: &str, kind: u8, code: u8, rest: [u8; 4]) -> PacketBuilder {
    new(src, dst, L4::Icmp { kind, code, rest })
}

/// An echo request or reply of either family.
pub fn echo(src: &str, dst: &str, request: bool, id: u16) -> PacketBuilder {
    let kind = match (ip(src).is_ipv4(), request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let id = id.to_be_bytes();
    icmp(src, dst, kind, 0, [id[0], id[1], 0, 1])
}

/// A "destination unreachable" of either family that quotes `about`, from its IP header on and at most 68 bytes.
pub fn unreachable(src: &str, dst: &str, about: &PacketBuilder) -> PacketBuilder {
    let quoted = &about.build()[14..];
    let kind = if ip(src).is_ipv4() { 3 } else { 1 };
    icmp(src, dst, kind, 1, [0; 4]).payload(&quoted[..quoted.len().min(68)])
}

/// A packet of any protocol, of which all is the payload.
pub fn raw(src: &str, dst: &str, protocol: u8) -> PacketBuilder {
    new(src, dst, L4::Raw { protocol })
}

impl PacketBuilder {
    /// The same packet between these MAC addresses.
    pub fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.mac_src, self.mac_dst) = (src, dst);
        self
    }

    /// The same packet with this time to live.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The same packet with this payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The same packet with these options of IPv4.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// The same packet with this identification.
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// A fragment of the same packet: `len` bytes from `first` on of what follows the IP header.
    pub fn fragment(mut self, first: usize, len: usize) -> Self {
        self.fragment = Some((first, len));
        self
    }

    /// The same packet with a VLAN tag.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// The same segment with this sequence number.
    pub fn sequence(mut self, number: u32) -> Self {
        self.sequence = number;
        self
    }

    /// The same segment with this window.
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// The same segment with these options.
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    /// The same segment with this acknowledgement number.
    pub fn acknowledges(mut self, number: u32) -> Self {
        self.acknowledges = number;
        self
    }

    /// The same packet with other addresses.
    pub fn between(mut self, src: &str, dst: &str) -> Self {
        (self.src, self.dst) = (ip(src), ip(dst));
        self
    }

    /// The same packet with other ports.
    pub fn ports(mut self, s: u16, d: u16) -> Self {
        match &mut self.l4 {
            L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } | L4::Sctp { sport, dport } => {
                (*sport, *dport) = (s, d)
            }
            _ => panic!("no ports here"),
        }
        self
    }

    fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => 6,
            L4::Udp { .. } => 17,
            L4::Sctp { .. } => 132,
            L4::Icmp { .. } if self.src.is_ipv4() => 1,
            L4::Icmp { .. } => 58,
            L4::Raw { protocol } => protocol,
        }
    }

    /// What follows the IP header, whole and with its checksum.
    fn segment(&self) -> Vec<u8> {
        let mut b = vec![];
        match self.l4 {
            L4::Tcp { sport, dport, flags } => {
                b.extend(sport.to_be_bytes());
                b.extend(dport.to_be_bytes());
                b.extend(self.sequence.to_be_bytes());
                b.extend(self.acknowledges.to_be_bytes());
                b.extend([(5 + self.tcp_options.len() as u8 / 4) << 4, flags]);
                b.extend(self.window.to_be_bytes());
                b.extend([0; 4]);
                b.extend(&self.tcp_options);
            }
            L4::Udp { sport, dport, .. } => {
                b.extend(sport.to_be_bytes());
                b.extend(dport.to_be_bytes());
                b.extend((8 + self.payload.len() as u16).to_be_bytes());
                b.extend([0, 0]);
            }
            L4::Sctp { sport, dport } => {
                b.extend(sport.to_be_bytes());
                b.extend(dport.to_be_bytes());
                // Verification tag and a CRC over everything after the addresses, which nothing here may touch.
                b.extend([1, 2, 3, 4, 0xc0, 0xff, 0xee, 0x11]);
            }
            L4::Icmp { kind, code, rest } => {
                b.extend([kind, code, 0, 0]);
                b.extend(rest);
            }
            L4::Raw { .. } => {}
        }
        b.extend(&self.payload);
        let Some(at) = checksum_offset(self.protocol()) else {
            return b;
        };
        if matches!(self.l4, L4::Udp { checksum: false, .. } | L4::Raw { .. }) {
            return b;
        }
        let mut sum = ones_complement(&self.pseudo_header(&b), &b);
        if sum == 0 && matches!(self.l4, L4::Udp { .. }) {
            sum = 0xffff;
        }
        b[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        b
    }

    fn pseudo_header(&self, segment: &[u8]) -> Vec<u8> {
        pseudo_header(self.src, self.dst, self.protocol(), segment.len())
    }

    /// The frame, from the Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let whole = self.segment();
        let (first, len) = self.fragment.unwrap_or((0, whole.len()));
        let (more, part) = (first + len < whole.len(), &whole[first..first + len]);
        let mut b = vec![];
        b.extend(self.mac_dst);
        b.extend(self.mac_src);
        if let Some(id) = self.vlan {
            b.extend([0x81, 0]);
            b.extend(id.to_be_bytes());
        }
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut h = vec![0x45 + (self.options.len() / 4) as u8, 0];
                h.extend((20 + self.options.len() as u16 + part.len() as u16).to_be_bytes());
                h.extend(self.id.to_be_bytes());
                h.extend(((first as u16 / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
                h.extend([self.ttl, self.protocol(), 0, 0]);
                h.extend(src.octets());
                h.extend(dst.octets());
                h.extend(&self.options);
                let sum = ones_complement(&[], &h);
                h[10..12].copy_from_slice(&sum.to_be_bytes());
                b.extend([0x08, 0x00]);
                b.extend(h);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (next, extension) = match self.fragment {
                    None => (self.protocol(), vec![]),
                    Some(_) => {
                        let mut e = vec![self.protocol(), 0];
                        e.extend((first as u16 | u16::from(more)).to_be_bytes());
                        e.extend(u32::from(self.id).to_be_bytes());
                        (44, e)
                    }
                };
                b.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                b.extend((extension.len() as u16 + part.len() as u16).to_be_bytes());
                b.extend([next, self.ttl]);
                b.extend(src.octets());
                b.extend(dst.octets());
                b.extend(extension);
            }
            _ => panic!("addresses of two families"),
        }
        b.extend(part);
        b
    }
}

/// An ARP request or answer for an IPv4 address.
pub fn arp(frame_mac: [u8; 6], sender_mac: [u8; 6], sender: &str, target: &str, answer: bool) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (ip(sender), ip(target)) else { panic!("ARP is for IPv4") };
    let mut b = vec![0xff; 6];
    b.extend(frame_mac);
    b.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1 + u8::from(answer)]);
    b.extend(sender_mac);
    b.extend(sender.octets());
    b.extend([0; 6]);
    b.extend(target.octets());
    b
}

/// The Internet checksum over both (RFC 1071), the plain way.
pub fn ones_complement(a: &[u8], b: &[u8]) -> u16 {
    assert!(a.len().is_multiple_of(2));
    let bytes: Vec<u8> = a.iter().chain(b).copied().collect();
    let mut sum: u64 = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut b = vec![];
    match (src, dst, protocol) {
        // ICMP has none.
        (_, _, 1) => {}
        (IpAddr::V4(src), IpAddr::V4(dst), _) => {
            b.extend(src.octets());
            b.extend(dst.octets());
            b.extend([0, protocol]);
            b.extend((len as u16).to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst), _) => {
            b.extend(src.octets());
            b.extend(dst.octets());
            b.extend((len as u32).to_be_bytes());
            b.extend([0, 0, 0, protocol]);
        }
        _ => panic!("addresses of two families"),
    }
    b
}

fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

/// ChecksumDeltas up an unfragmented packet again. An error says which checksum is wrong.
pub fn verify(packet: &[u8]) -> Result<(), String> {
    let ip = &packet[14..];
    let (src, dst, protocol, segment): (IpAddr, IpAddr, u8, &[u8]) = match &packet[12..14] {
        [0x08, 0x00] => {
            let header = usize::from(ip[0] & 0xf) * 4;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            if ones_complement(&[], &ip[..header]) != 0 {
                return Err("IPv4 header checksum".into());
            }
            let v4 = |at: usize| IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap()));
            (v4(12), v4(16), ip[9], &ip[header..total])
        }
        [0x86, 0xdd] => {
            let payload = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            let v6 = |at: usize| IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap()));
            (v6(8), v6(24), ip[6], &ip[40..40 + payload])
        }
        other => return Err(format!("EtherType {other:02x?}")),
    };
    let Some(at) = checksum_offset(protocol) else {
        return Ok(());
    };
    if protocol == 17 && src.is_ipv4() && segment[at..at + 2] == [0, 0] {
        return Ok(());
    }
    match ones_complement(&pseudo_header(src, dst, protocol, segment.len()), segment) {
        0 => Ok(()),
        sum => Err(format!("checksum of protocol {protocol}: off by {sum:#06x}")),
    }
}
