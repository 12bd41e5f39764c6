//! The places where programs stand, and how they are attached there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rtnl::Side;

/// Where a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// tc ingress of an uplink.
    UplinkIngress,
    /// tc ingress of an uplink without Ethernet: a tunnel.
    UplinkTunnel,
    /// tc ingress of a container's host-side interface.
    FromEndpoint,
    /// tc egress of a container's host-side interface.
    ToEndpoint,
    /// XDP of an uplink.
    UplinkXdp,
    /// cgroup connect, IPv4.
    HostConnect4,
    /// cgroup connect, IPv6.
    HostConnect6,
    /// cgroup sendmsg, IPv4.
    HostSendmsg4,
    /// cgroup sendmsg, IPv6.
    HostSendmsg6,
    /// cgroup recvmsg, IPv4.
    HostRecvmsg4,
    /// cgroup recvmsg, IPv6.
    HostRecvmsg6,
    /// cgroup getpeername, IPv4.
    HostGetpeername4,
    /// cgroup getpeername, IPv6.
    HostGetpeername6,
    /// Socket lookup of the network namespace.
    RelayLookup,
}

impl Hook {
    /// Those on interfaces.
    pub(super) const ON_INTERFACES: [Hook; 5] =
        [Hook::UplinkIngress, Hook::UplinkTunnel, Hook::FromEndpoint, Hook::ToEndpoint, Hook::UplinkXdp];

    /// Name of the program, and the beginning of its links' pins.
    pub const fn program(self) -> &'static str {
        match self {
            Hook::UplinkIngress => "uplink_ingress",
            Hook::UplinkTunnel => "uplink_tunnel",
            Hook::FromEndpoint => "from_endpoint",
            Hook::ToEndpoint => "to_endpoint",
            Hook::UplinkXdp => "uplink_xdp",
            Hook::HostConnect4 => "host_connect4",
            Hook::HostConnect6 => "host_connect6",
            Hook::HostSendmsg4 => "host_sendmsg4",
            Hook::HostSendmsg6 => "host_sendmsg6",
            Hook::HostRecvmsg4 => "host_recvmsg4",
            Hook::HostRecvmsg6 => "host_recvmsg6",
            Hook::HostGetpeername4 => "host_getpeername4",
            Hook::HostGetpeername6 => "host_getpeername6",
            Hook::RelayLookup => "relay_lookup",
        }
    }

    /// The side of an interface that it is on.
    pub(super) const fn side(self) -> Side {
        match self {
            Hook::ToEndpoint => Side::Egress,
            _ => Side::Ingress,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// What an interface is to the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name, for attaching and for messages.
    pub name: String,
    /// Whether outside traffic comes through it; else it is a container's host side.
    pub uplink: bool,
    /// Whether its packets have no Ethernet header: a tunnel.
    pub tunnel: bool,
    /// Whether it is a port of an uplink that is a bridge: most of its frames are for others.
    pub bridge_port: bool,
}

impl Role {
    /// The programs that belong on such an interface, the one first that it is not served without.
    pub(super) const fn hooks(&self) -> &'static [Hook] {
        match self {
            // The gate first: nothing gets in while the other is being attached.
            Role { uplink: false, .. } => &[Hook::ToEndpoint, Hook::FromEndpoint],
            Role { tunnel: true, .. } => &[Hook::UplinkTunnel],
            Role { bridge_port: true, .. } => &[Hook::UplinkIngress],
            _ => &[Hook::UplinkIngress, Hook::UplinkXdp],
        }
    }
}

/// How XDP is used on uplinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Not at all.
    Off,
    /// In the driver where it pays; never on veth, whose TCP streams it halves.
    #[default]
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the kernel's generic layer: for tests, and for drivers without support.
    Generic,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// XDP on uplinks.
    pub xdp: XdpMode,
    /// clsact filters even where the kernel has tcx.
    pub force_clsact: bool,
}

/// One attached program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookStatus {
    /// Interface name.
    pub interface: String,
    /// Interface index.
    pub ifindex: u32,
    /// Which program.
    pub hook: Hook,
    /// `tcx`, `clsact`, `xdp native`, `xdp generic`.
    pub kind: String,
}

impl From<HookStatus> for runtime_api::HookRow {
    fn from(status: HookStatus) -> Self {
        let HookStatus { interface, ifindex, hook, kind } = status;
        runtime_api::HookRow { interface, ifindex, hook: hook.program().to_owned(), kind }
    }
}
