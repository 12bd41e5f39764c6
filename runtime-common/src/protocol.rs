//! IP protocol numbers, and the transport protocols that ports belong to.

use core::fmt;
use core::str::FromStr;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of IGMP.
pub const IGMP: u8 = 2;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IP protocol number of PIM, which multicast routers speak.
pub const PIM: u8 = 103;
/// IP protocol number of SCTP.
pub const SCTP: u8 = 132;

/// A transport protocol that a port can be published or exposed on; the value is its IP protocol number.
///
/// The order is Docker's own for link variables: TCP, then SCTP, then UDP.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = TCP,
    /// RFC 9260.
    Sctp = SCTP,
    /// RFC 768.
    Udp = UDP,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol of an IP protocol number, where ports can be published on it.
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            SCTP => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// The lower-case name, as Docker writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Sctp => "sctp",
            Protocol::Udp => "udp",
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Protocol::Tcp => 0,
            Protocol::Sctp => 1,
            Protocol::Udp => 2,
        }
    }
}

impl PartialOrd for Protocol {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Protocol {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no protocol that ports can be published on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// Docker takes any case.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Protocol::Tcp, Protocol::Sctp, Protocol::Udp]
            .into_iter()
            .find(|p| s.eq_ignore_ascii_case(p.name()))
            .ok_or(UnknownProtocol)
    }
}
