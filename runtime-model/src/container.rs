//! What an engine says of its containers and networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use runtime_common::Protocol;
use serde::{Deserialize, Serialize};

/// A container port with its protocol; written `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Port {
    /// The protocol: first in order, as Docker sorts link variables.
    pub protocol: Protocol,
    /// The port, 1 to 65535.
    pub number: u16,
}

impl Port {
    /// A port of a protocol.
    pub const fn new(number: u16, protocol: Protocol) -> Self {
        Port { protocol, number }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl From<Port> for String {
    fn from(p: Port) -> String {
        p.to_string()
    }
}

/// The text is no `PORT[/PROTOCOL]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid port \"{0}\": expected PORT[/tcp|udp|sctp] with a port from 1 to 65535")]
pub struct InvalidPort(pub String);

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (number, protocol) = s.split_once('/').unwrap_or((s, "tcp"));
        let invalid = || InvalidPort(s.to_owned());
        let number = number.parse().ok().filter(|n| *n != 0).ok_or_else(invalid)?;
        Ok(Port { number, protocol: protocol.parse().map_err(|_| invalid())? })
    }
}

impl TryFrom<String> for Port {
    type Error = InvalidPort;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

/// A host address and port that lead to a container's port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    /// The host's address; unspecified (`0.0.0.0`, `::`) for every address of that family.
    pub host_addr: IpAddr,
    /// The host's port, 1 to 65535.
    pub host_port: u16,
    /// The container's port.
    pub container_port: Port,
}

/// A link as the recipient declares it: which source, under which alias.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// The source container's full id.
    pub source: String,
    /// The alias, without a leading slash.
    pub alias: String,
}

/// One container on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's full id.
    pub network: String,
    /// The engine's id of this endpoint: a new one at every start of the container. Empty while not connected.
    pub id: String,
    /// The MAC address inside the container, where the engine knows it.
    pub mac: Option<[u8; 6]>,
    /// The IPv4 address.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// The global IPv6 address.
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// The user's wish for the container's default route: the highest leads out (Docker's `gw-priority`).
    #[serde(default)]
    pub gateway_priority: i64,
}

/// A container as the engine knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The full id, 64 hex digits.
    pub id: String,
    /// The name, without the leading slash.
    pub name: String,
    /// The host name inside the container.
    pub hostname: String,
    /// Whether its process runs (a paused container runs).
    pub running: bool,
    /// When it was started last, as the engine writes it; empty if never.
    pub started_at: String,
    /// Process id of its first process, 0 while it does not run.
    pub pid: u32,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// `K=V` lines of its environment as configured (image and `-e`), without what links add.
    pub env: Vec<String>,
    /// Ports that it exposes: EXPOSE, `--expose` and the published ones.
    pub exposed: Vec<Port>,
    /// What the engine publishes for it now; empty while it does not run.
    pub publications: Vec<Publication>,
    /// Those of `publications` that the engine was asked for and does nothing about: on IPv6 addresses, where the container
    /// has none and there is no docker-proxy.
    pub unserved: std::collections::BTreeSet<Publication>,
    /// Links that it declares as a recipient, on whatever network.
    pub links: Vec<Link>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Path of its network namespace, where it has one of its own and runs.
    pub sandbox: Option<std::path::PathBuf>,
    /// Path on the host of its /etc/hosts, where the engine manages one.
    pub hosts_path: Option<std::path::PathBuf>,
}

/// A network of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The full id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The driver: only `bridge` networks have interfaces that the datapath can serve.
    pub driver: String,
    /// The bridge's interface name, for bridge networks.
    pub bridge: Option<String>,
    /// Whether this is the engine's default bridge network.
    pub is_default_bridge: bool,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Subnets, written `172.17.0.0/16`.
    pub subnets: Vec<String>,
    /// Whether it has no way to the outside.
    pub internal: bool,
    /// Whether the engine is to give what its containers send to the outside an address of the host's.
    pub masquerade: bool,
    /// Endpoints on it by container id, as the *network* knows them. A container that is being started is here before
    /// the engine answers questions about the container itself.
    pub endpoints: std::collections::BTreeMap<String, Endpoint>,
}

impl Network {
    /// Whether an address is within its subnets.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.subnets.iter().filter_map(|s| s.parse::<ipnet::IpNet>().ok()).any(|s| s.contains(address))
    }
}

/// Everything that an engine knows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All containers, stopped ones included, by full id.
    pub containers: std::collections::BTreeMap<String, Container>,
    /// All networks by full id.
    pub networks: std::collections::BTreeMap<String, Network>,
}
