//! What became of a case.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::Netns;
use crate::dial::{How, dial};
use crate::sockets::pings;

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answers.
    Reached {
        /// The address that it sees.
        seen: IpAddr,
        /// Whether it sees the client's own port.
        own_port: bool,
        /// The address and port that the answer comes from.
        answered: SocketAddr,
    },
    /// An echo reply comes.
    Pinged,
    /// A reset, or that nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// No answer in time.
    Silence,
    /// Something else, in the kernel's words.
    Other(String),
}

impl Outcome {
    /// Whether the server answers.
    pub fn is_reached(&self) -> bool {
        matches!(self, Outcome::Reached { .. } | Outcome::Pinged)
    }

    /// Whether both are answered, from the same address.
    pub(super) fn answers_as(&self, other: &Outcome) -> bool {
        match (self, other) {
            (Outcome::Reached { answered: a, .. }, Outcome::Reached { answered: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Reached { seen, own_port, answered } => {
                let port = if *own_port { "" } else { ", another port" };
                write!(f, "seen as {seen}{port}, answered from {answered}")
            }
            Outcome::Pinged => f.write_str("an echo reply"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::Unreachable => f.write_str("unreachable"),
            Outcome::Silence => f.write_str("silence"),
            Outcome::Other(words) => f.write_str(words),
        }
    }
}

/// Asks once.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub ns: Netns,
    /// `None` is an echo request.
    pub how: Option<How>,
    pub to: SocketAddr,
    pub from: Option<IpAddr>,
}

impl Question {
    pub(super) fn ask(&self) -> Outcome {
        let Some(how) = self.how else {
            return if pings(&self.ns, self.to.ip()) { Outcome::Pinged } else { Outcome::Silence };
        };
        let from = self.from.map(|ip| SocketAddr::new(ip, 0));
        match dial(&self.ns, how, from, self.to) {
            Ok(shown) => Outcome::Reached {
                seen: shown.client.ip(),
                own_port: shown.client.port() == shown.ours,
                answered: shown.peer,
            },
            Err(e) => failed(&e),
        }
    }
}

fn failed(e: &io::Error) -> Outcome {
    match e.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Outcome::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Outcome::Unreachable,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::Silence,
        _ => Outcome::Other(e.to_string()),
    }
}

/// For `ping`, which has no port.
pub(super) const NO_PORT: u16 = 0;
