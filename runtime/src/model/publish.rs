//! `-p` in every form that Docker's command line takes.

use std::net::IpAddr;
use std::ops::RangeInclusive;

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
