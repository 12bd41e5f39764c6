//! `-p` and `--expose` in every form that Docker's command line takes.
//!
//! The short form is `[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`, with ranges on either side; the long form is
//! `target=..,published=..,protocol=..,mode=..`. Where Docker lets nonsense through for the daemon to trip over (port 0 in
//! a container, `80-82-90`), it is refused here.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use runtime_common::Protocol;

use super::Port;

/// One container port that a `-p` asks for; a range of equal length becomes several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// The host's address; `None` for every address of both families.
    pub host_addr: Option<IpAddr>,
    /// The host ports to choose from: one port, a range (`8000-9000:80`: any free one of it), or `None` for a random one.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// The container's port.
    pub container_port: Port,
}

impl PublishRequest {
    /// The host port, where exactly one was asked for.
    pub fn fixed_host_port(&self) -> Option<u16> {
        self.host_ports.as_ref().filter(|r| r.start() == r.end()).map(|r| *r.start())
    }
}

/// What `-p` would take to ask for the same: `127.0.0.1:8080:80/tcp`, `[::1]::80/udp`, `8000-9000:80/tcp`.
impl fmt::Display for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_addr {
            Some(IpAddr::V4(a)) => write!(f, "{a}:")?,
            Some(IpAddr::V6(a)) => write!(f, "[{a}]:")?,
            None => {}
        }
        match &self.host_ports {
            Some(r) if r.start() == r.end() => write!(f, "{}:", r.start())?,
            Some(r) => write!(f, "{}-{}:", r.start(), r.end())?,
            None if self.host_addr.is_some() => f.write_str(":")?,
            None => {}
        }
        self.container_port.fmt(f)
    }
}

/// A `--publish` or `--expose` that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {flag} {spec:?}: {problem}")]
pub struct PublishError {
    /// The flag whose value it is.
    pub flag: &'static str,
    /// The value as it was typed.
    pub spec: String,
    /// What is wrong with it.
    pub problem: PublishProblem,
}

/// Which of the two ports of a publication is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The host's.
    Host,
    /// The container's.
    Container,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Host => "host",
            Side::Container => "container",
        })
    }
}

/// What is wrong with a port specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishProblem {
    /// There is no container port.
    #[error("no port specified: {before}<empty>; write [ADDRESS:][HOST:]CONTAINER[/PROTOCOL], as in 8080:80")]
    NoContainerPort {
        /// What comes before the place where it is missing.
        before: String,
    },
    /// Not a port number.
    #[error("{side} port {} is not 1 to 65535", Quoted(text))]
    Port {
        /// Whose port.
        side: Side,
        /// The offending text.
        text: String,
    },
    /// A range that runs backwards.
    #[error("{side} port range {text} ends before it starts")]
    Backwards {
        /// Whose ports.
        side: Side,
        /// The offending range.
        text: String,
    },
    /// Ranges that do not pair up.
    #[error(
        "container ports {container} and host ports {host} differ in number; give ranges of equal length, or a single \
         container port to use any free host port of the range"
    )]
    RangeLengths {
        /// The container's range.
        container: String,
        /// The host's range.
        host: String,
    },
    /// A protocol without ports.
    #[error("protocol {0:?} is not tcp, udp or sctp")]
    Protocol(String),
    /// A host name, or nonsense, where an address belongs.
    #[error("{0:?} is not an IP address; host names are not taken, write 127.0.0.1:8080:80 or [::1]:8080:80")]
    Address(String),
    /// `--expose` with a host port.
    #[error("it takes container ports alone; use --publish to map them to the host, or write PORT[-PORT][/PROTOCOL]")]
    ExposeWithHost,
    /// A field of the long form that means nothing here.
    #[error("field {0:?} is not one of target=, published=, protocol=, mode=")]
    Field(String),
    /// A field of the long form that comes twice.
    #[error("field {0:?} is given twice")]
    Twice(String),
    /// A mode that does not exist.
    #[error("mode {0:?} is not host or ingress")]
    Mode(String),
}

/// Digits as they are, anything else in quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.bytes().all(|b| b.is_ascii_digit()) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

/// What one `-p` asks for: a request for each container port, in ascending order.
///
/// # Errors
/// Whatever Docker refuses, in one line that quotes the specification.
pub fn parse_publish(spec: &str) -> Result<Vec<PublishRequest>, PublishError> {
    let parsed = if spec.contains('=') { parse_long(spec) } else { parse_short(spec) };
    parsed.map_err(|problem| PublishError { flag: "--publish", spec: spec.to_owned(), problem })
}

/// The container ports of one `--expose`: `80`, `80/udp`, `7000-7010/tcp`.
///
/// # Errors
/// Whatever Docker refuses, in one line that quotes the specification.
pub fn parse_expose(spec: &str) -> Result<Vec<Port>, PublishError> {
    let parsed = if spec.contains(':') { Err(PublishProblem::ExposeWithHost) } else { container_ports(spec, "") };
    let (range, protocol) =
        parsed.map_err(|problem| PublishError { flag: "--expose", spec: spec.to_owned(), problem })?;
    Ok(range.map(|n| Port::new(n, protocol)).collect())
}

/// The first request for a host address, port and protocol that an earlier one of the same command already asks for.
///
/// No address asks for both wildcards. Random ports and ranges to choose from never collide.
pub fn first_duplicate(requests: &[PublishRequest]) -> Option<&PublishRequest> {
    let mut seen = HashSet::new();
    requests.iter().find(|request| {
        let Some(port) = request.fixed_host_port() else { return false };
        let addresses = match request.host_addr {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        };
        // All of them are noted, whether or not the first already collides.
        let new = addresses.into_iter().map(|a| seen.insert((a, port, request.container_port.protocol)));
        new.fold(false, |collides, new| collides | !new)
    })
}

fn parse_short(spec: &str) -> Result<Vec<PublishRequest>, PublishProblem> {
    // From the right: an IPv6 address has colons of its own, with or without brackets.
    let (rest, container) = spec.rsplit_once(':').map_or((None, spec), |(rest, c)| (Some(rest), c));
    let (address, host) = match rest {
        None => ("", ""),
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    let (ports, protocol) = container_ports(container, spec)?;
    let host_addr = parse_address(address)?;
    // Docker's word for "choose one" is either nothing, or 0 for a single port.
    let random = host.is_empty() || (host.bytes().all(|b| b == b'0') && ports.len() == 1);
    let host_ports = if random { None } else { Some(parse_range(host, Side::Host)?) };

    let request =
        |number, host_ports| PublishRequest { host_addr, host_ports, container_port: Port { protocol, number } };
    Ok(match host_ports {
        None => ports.map(|n| request(n, None)).collect(),
        Some(hosts) if hosts.len() == ports.len() => ports.zip(hosts).map(|(n, h)| request(n, Some(h..=h))).collect(),
        Some(hosts) if ports.len() == 1 => vec![request(*ports.start(), Some(hosts))],
        Some(_) => {
            let container = container.split('/').next().unwrap_or_default().to_owned();
            return Err(PublishProblem::RangeLengths { container, host: host.to_owned() });
        }
    })
}

/// The long form, with the meaning that Docker's `run` gives it: the short one, spelled out. Without a swarm there is no
/// difference between the modes.
fn parse_long(spec: &str) -> Result<Vec<PublishRequest>, PublishProblem> {
    let (mut target, mut published, mut protocol, mut mode) = (None, None, None, None);
    for field in spec.split(',') {
        let unknown = || PublishProblem::Field(field.to_owned());
        let (key, value) = field.split_once('=').ok_or_else(unknown)?;
        let place = match key {
            "target" => &mut target,
            "published" => &mut published,
            "protocol" => &mut protocol,
            "mode" => &mut mode,
            _ => return Err(unknown()),
        };
        if place.replace(value).is_some() {
            return Err(PublishProblem::Twice(key.to_owned()));
        }
    }
    if let Some(mode) = mode.filter(|m| !["host", "ingress"].contains(m)) {
        return Err(PublishProblem::Mode(mode.to_owned()));
    }
    let target = target.unwrap_or_default();
    if target.is_empty() {
        return Err(PublishProblem::NoContainerPort { before: "target=".to_owned() });
    }
    // The fields have no colons and slashes to smuggle in, save the address that Docker takes in `published` too.
    if target.contains([':', '/']) {
        return Err(PublishProblem::Port { side: Side::Container, text: target.to_owned() });
    }
    let (published, protocol) = (published.unwrap_or_default(), protocol.unwrap_or_default());
    parse_short(&format!("{published}:{target}/{protocol}"))
}

/// The container's side, `PORT[-PORT][/PROTOCOL]`; `spec` is the whole of which it is the end.
fn container_ports(text: &str, spec: &str) -> Result<(RangeInclusive<u16>, Protocol), PublishProblem> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    if ports.is_empty() {
        return Err(PublishProblem::NoContainerPort { before: spec.strip_suffix(text).unwrap_or(spec).to_owned() });
    }
    let protocol = match protocol {
        "" => Protocol::Tcp,
        p => p.parse().map_err(|_| PublishProblem::Protocol(p.to_owned()))?,
    };
    Ok((parse_range(ports, Side::Container)?, protocol))
}

fn parse_range(text: &str, side: Side) -> Result<RangeInclusive<u16>, PublishProblem> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (parse_port(start, side)?, parse_port(end, side)?);
    if end < start {
        return Err(PublishProblem::Backwards { side, text: text.to_owned() });
    }
    Ok(start..=end)
}

fn parse_port(text: &str, side: Side) -> Result<u16, PublishProblem> {
    // `u16::from_str` would take a plus sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|n| digits && *n != 0);
    port.ok_or_else(|| PublishProblem::Port { side, text: text.to_owned() })
}

fn parse_address(text: &str) -> Result<Option<IpAddr>, PublishProblem> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = bare.parse().map_err(|_| PublishProblem::Address(text.to_owned()))?;
    // `::ffff:192.0.2.1` is the IPv4 address to Docker as well.
    Ok(Some(address.to_canonical()))
}

#[cfg(test)]
mod tests;
