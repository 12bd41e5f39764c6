//! Packets by description: what a person reads and writes, and the bytes of it. Nothing of the code under test is used here.

use std::net::IpAddr;

/// TCP's flag FIN (RFC 9293).
pub const FIN: u8 = 0x01;
/// TCP's flag SYN (RFC 9293).
pub const SYN: u8 = 0x02;
/// TCP's flag RST (RFC 9293).
pub const RST: u8 = 0x04;
/// TCP's flag PSH (RFC 9293).
pub const PSH: u8 = 0x08;
/// TCP's flag ACK (RFC 9293).
pub const ACK: u8 = 0x10;

/// A MAC address.
pub type Mac = [u8; 6];

/// A frame from its Ethernet header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination MAC address; without, those that the place has where the packet is.
    pub macs: Option<(Mac, Mac)>,
    /// A VLAN tag inside the frame.
    pub vlan: Option<u16>,
    /// What the frame carries.
    pub body: Body,
    /// What is done to the finished bytes.
    pub edits: Vec<Edit>,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// IPv4 or IPv6.
    Ip(Ip),
    /// ARP over Ethernet and IPv4: operation, sender's MAC address and address, target's address.
    Arp(u16, Mac, IpAddr, IpAddr),
    /// Any EtherType, and what follows it.
    Other(u16, Vec<u8>),
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IPv4 identification; that of an IPv6 fragment header.
    pub id: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers by number, each of eight bytes and otherwise zero.
    pub extensions: Vec<u8>,
    /// First byte and number of bytes of a fragment of what follows the IP header, and whether more follow.
    pub fragment: Option<(usize, usize, bool)>,
    /// What follows the IP header.
    pub l4: L4,
    /// What follows the transport header.
    pub data: Vec<u8>,
}

/// A transport header.
#[allow(missing_docs, reason = "the variants tell of their fields")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    /// Ports, flags, sequence and acknowledgement number.
    Tcp { sport: u16, dport: u16, flags: u8, seq: u32, ack: u32 },
    /// Ports, and whether it has a checksum.
    Udp { sport: u16, dport: u16, checksum: bool },
    /// Ports.
    Sctp { sport: u16, dport: u16 },
    /// ICMP or ICMPv6 by the family of the addresses: type, code, and the four bytes after the checksum.
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    /// An IP protocol number; all that follows is data.
    Raw(u8),
}

/// A change to finished bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Other bytes from an offset on.
    Patch(usize, Vec<u8>),
    /// No bytes from an offset on.
    Cut(usize),
    /// Zeros up to a length.
    Pad(usize),
}

impl From<Ip> for Packet {
    fn from(ip: Ip) -> Self {
        Packet { macs: None, vlan: None, body: Body::Ip(ip), edits: vec![] }
    }
}

impl Ip {
    /// With the usual fields.
    pub fn new(src: IpAddr, dst: IpAddr, l4: L4) -> Self {
        Ip {
            src,
            dst,
            ttl: 64,
            id: 0x1234,
            options: vec![],
            extensions: vec![],
            fragment: None,
            l4,
            data: b"payload".to_vec(),
        }
    }

    /// Whether its family is IPv4.
    pub fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// Its IP protocol number.
    pub fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => 6,
            L4::Udp { .. } => 17,
            L4::Sctp { .. } => 132,
            L4::Icmp { .. } if self.is_v4() => 1,
            L4::Icmp { .. } => 58,
            L4::Raw(protocol) => protocol,
        }
    }

    /// Source and destination port, where it has any.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.l4 {
            L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } | L4::Sctp { sport, dport } => {
                Some((sport, dport))
            }
            _ => None,
        }
    }

    /// The transport header and data, whole and with the checksum.
    fn segment(&self) -> Vec<u8> {
        let mut b = vec![];
        match self.l4 {
            L4::Tcp { sport, dport, flags, seq, ack } => {
                b.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
                b.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
                b.extend([5 << 4, flags, 0x10, 0, 0, 0, 0, 0]);
            }
            L4::Udp { sport, dport, .. } => {
                b.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
                b.extend((8 + self.data.len() as u16).to_be_bytes());
                b.extend([0, 0]);
            }
            L4::Sctp { sport, dport } => {
                b.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
                // Verification tag, and a CRC over all but the addresses, which nothing here may touch.
                b.extend([1, 2, 3, 4, 0xc0, 0xff, 0xee, 0x11]);
            }
            L4::Icmp { kind, code, rest } => {
                b.extend([kind, code, 0, 0]);
                b.extend(rest);
            }
            L4::Raw(_) => {}
        }
        b.extend(&self.data);
        let at = match self.l4 {
            L4::Tcp { .. } => 16,
            L4::Udp { checksum: true, .. } => 6,
            L4::Icmp { .. } => 2,
            _ => return b,
        };
        let mut sum = checksum(&[&self.pseudo_header(b.len()), &b]);
        if sum == 0 && matches!(self.l4, L4::Udp { .. }) {
            sum = 0xffff;
        }
        b[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        b
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let protocol = self.protocol();
        match (self.src, self.dst) {
            // ICMP has none.
            _ if protocol == 1 => vec![],
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                [&s.octets()[..], &d.octets(), &[0, protocol], &(len as u16).to_be_bytes()].concat()
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                [&s.octets()[..], &d.octets(), &(len as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat()
            }
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        }
    }

    /// The bytes from the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let whole = self.segment();
        let (first, len, more) = self.fragment.unwrap_or((0, whole.len(), false));
        let part = whole.get(first..).map_or(&[][..], |rest| &rest[..len.min(rest.len())]);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let length = 20 + self.options.len() + part.len();
                let mut h = vec![0x45 + (self.options.len() / 4) as u8, 0];
                h.extend((length as u16).to_be_bytes());
                h.extend(self.id.to_be_bytes());
                h.extend(((first as u16 / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
                h.extend([self.ttl, self.protocol(), 0, 0]);
                h.extend([src.octets(), dst.octets()].concat());
                h.extend(&self.options);
                let sum = checksum(&[&h]);
                h[10..12].copy_from_slice(&sum.to_be_bytes());
                [&h, part].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut chain = self.extensions.clone();
                if self.fragment.is_some() && !chain.contains(&44) {
                    chain.push(44);
                }
                let following = chain.iter().skip(1).copied().chain([self.protocol()]);
                let mut extensions = vec![];
                for (kind, next) in chain.iter().zip(following) {
                    extensions.extend([next, 0]);
                    match kind {
                        44 => {
                            extensions.extend((first as u16 | u16::from(more)).to_be_bytes());
                            extensions.extend(u32::from(self.id).to_be_bytes());
                        }
                        // Hop-by-hop and destination options: PadN.
                        0 | 60 => extensions.extend([1, 4, 0, 0, 0, 0]),
                        _ => extensions.extend([0; 6]),
                    }
                }
                let mut h = vec![0x60, 0, 0, 0];
                h.extend(((extensions.len() + part.len()) as u16).to_be_bytes());
                h.extend([chain.first().copied().unwrap_or(self.protocol()), self.ttl]);
                h.extend([src.octets(), dst.octets()].concat());
                [&h, &extensions[..], part].concat()
            }
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        }
    }
}

impl Packet {
    /// The bytes of the frame; `usual` are source and destination MAC address where none are said.
    pub fn bytes(&self, usual: (Mac, Mac)) -> Vec<u8> {
        let (src, dst) = self.macs.unwrap_or(usual);
        let (ethertype, payload) = match &self.body {
            Body::Ip(ip) => (if ip.is_v4() { 0x0800 } else { 0x86dd }, ip.bytes()),
            Body::Arp(operation, mac, sender, target) => {
                let mut b = vec![0, 1, 8, 0, 6, 4];
                b.extend(operation.to_be_bytes());
                b.extend(mac);
                b.extend(octets(sender));
                b.extend([0; 6]);
                b.extend(octets(target));
                (0x0806, b)
            }
            Body::Other(ethertype, payload) => (*ethertype, payload.clone()),
        };
        let mut b = [dst, src].concat();
        if let Some(id) = self.vlan {
            b.extend([0x81, 0]);
            b.extend(id.to_be_bytes());
        }
        b.extend(ethertype.to_be_bytes());
        b.extend(payload);
        for edit in &self.edits {
            match edit {
                Edit::Patch(at, bytes) => {
                    for (old, new) in b.iter_mut().skip(*at).zip(bytes) {
                        *old = *new;
                    }
                }
                Edit::Cut(len) => b.truncate(*len),
                Edit::Pad(len) => b.resize(b.len().max(*len), 0),
            }
        }
        b
    }

    /// The IP packet that it was before any edit.
    pub fn ip(&self) -> Option<&Ip> {
        match &self.body {
            Body::Ip(ip) => Some(ip),
            _ => None,
        }
    }

    /// As [`Packet::ip`], to be changed.
    pub fn ip_mut(&mut self) -> Option<&mut Ip> {
        match &mut self.body {
            Body::Ip(ip) => Some(ip),
            _ => None,
        }
    }
}

fn octets(a: &IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The Internet checksum over all parts in a row (RFC 1071), the plain way. All parts but the last are of even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
