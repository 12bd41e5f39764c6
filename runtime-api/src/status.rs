//! What `runtime status` shows.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use runtime_model::Publication;
use serde::{Deserialize, Serialize};

use crate::rows::LinkRow;

/// Everything for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The engine's name and version.
    pub engine: String,
    /// Whether the engine answers; while not, its last known state is served.
    pub engine_connected: bool,
    /// The kernel's release.
    pub kernel: String,
    /// How tc programs are attached: `tcx` or `clsact`.
    pub attachment: String,
    /// Which networks are isolated.
    pub isolate: String,
    /// Whether drops are carried out.
    pub enforcing: bool,
    /// What is attached.
    pub hooks: Vec<HookRow>,
    /// Containers that are served.
    pub endpoints: Vec<EndpointRow>,
    /// Published ports.
    pub publications: Vec<PublicationRow>,
    /// Links.
    pub links: Vec<LinkRow>,
    /// Who gives what containers send to the outside an address of the host's, by network.
    pub masquerade: BTreeMap<String, MasqueradedBy>,
    /// What the host's firewall decides about conversations with published ports.
    pub netfilter: Netfilter,
    /// Conversations.
    pub flows: FlowCount,
    /// Whether those that are over are being collected.
    #[serde(default)]
    pub collecting: bool,
    /// Packets by verdict.
    pub counters: Vec<CounterRow>,
    /// The last drops that the kernel told of, oldest first.
    pub drops: Vec<DropEvent>,
    /// What is wrong or cannot be served, a line each.
    pub problems: Vec<String>,
}

/// A program in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRow {
    /// Interface name, or the control group.
    pub interface: String,
    /// Interface index; 0 for a control group.
    pub ifindex: u32,
    /// Which program, such as `uplink_ingress`.
    pub hook: String,
    /// How it is attached: `tcx`, `clsact`, `xdp native`, `xdp generic`, `cgroup`.
    pub kind: String,
}

/// A container as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The container's name.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// Host-side interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether the network is isolated.
    pub isolated: bool,
}

/// A publication as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationRow {
    /// The container's name.
    pub container: String,
    /// Where it is published and what.
    #[serde(flatten)]
    pub publication: Publication,
    /// Who may use it, such as `allow-from=192.0.2.0/24`; empty for everybody.
    pub filter: String,
    /// `engine` or `live`.
    pub origin: String,
    /// `served`, `relayed` (to a container without an address of that family), `by the engine` (its own proxy serves it),
    /// `closed` (taken away, or its filter cannot be read), or `not served`.
    pub state: String,
}

/// Who gives what a network's containers send to the outside an address of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MasqueradedBy {
    /// The datapath.
    Runtime,
    /// The host's own rules: the engine's, or an administrator's.
    HostRules,
    /// Nobody: its containers' own addresses are seen outside, if they are routed at all.
    Nobody,
}

impl fmt::Display for MasqueradedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MasqueradedBy::Runtime => "runtime",
            MasqueradedBy::HostRules => "the host's rules",
            MasqueradedBy::Nobody => "nobody",
        })
    }
}

/// What the host's firewall has to say of conversations with published ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Netfilter {
    /// Nothing: packets are redirected past it.
    Bypass,
    /// Whether they may begin: the first packets go through the host's stack.
    Honor,
}

/// How many conversations there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// Those whose client has gone on after an answer.
    pub answered: usize,
    /// All others.
    pub pending: usize,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// Name of the verdict.
    pub verdict: String,
    /// `forward`, `pass` or `drop`.
    pub kind: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub text: String,
}

/// One drop. The kernel tells of one per reason, CPU and 10 ms at most; the counters count all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEvent {
    /// Name of the verdict.
    pub verdict: String,
    /// Index of the interface it was seen on.
    pub ifindex: u32,
    /// Source address.
    pub src: IpAddr,
    /// Source port in host byte order.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port in host byte order.
    pub dport: u16,
    /// `tcp`, `udp`, `sctp`, `icmp`, or the protocol's number.
    pub protocol: String,
}

impl fmt::Display for DropEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (SocketAddr::new(self.src, self.sport), SocketAddr::new(self.dst, self.dport));
        write!(f, "{}: {} {from} -> {to}", self.verdict, self.protocol)
    }
}
