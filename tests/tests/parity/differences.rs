//! What differs from Docker alone, and why: the whole list.
//!
//! One difference needs no entry, wherever docker-proxy carries a case with Docker alone: it hides the client's address and port,
//! and the datapath keeps them.

use tests::parity::{Difference, Why};

/// What the server sees of a process of the host: its address on the server's network.
const HOST_ITSELF: &[&str] =
    &["the host, its own address, TCP", "the host, its own address, UDP", "the host, its own address, TCP, IPv6"];

/// For a socket that is connected, docker-proxy's answer comes from a stranger.
const PROXYS_ANSWER: Why = Why::AskedFor("docker-proxy answers from another address than the one that was dialled");

/// What the source check drops where nothing is isolated.
const NOT_ISOLATED: Why = Why::ToMend("source and destination checks belong to isolated networks");
const TWO_NETWORKS: Why = Why::ToMend("publish where the container's own default route leaves");
const LOCAL_TABLE: Why = Why::ToMend("the host's addresses are what its local routing table says");
const BRIDGE: Why = Why::ToMend("the ports of a bridge get the uplink's program where the rules of IP see its frames");

const fn of(group: &'static str, why: Why, cases: &'static [&'static str]) -> Difference {
    Difference { group, engine: None, why, cases }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    of("published ports", Why::ClientAddress, HOST_ITSELF),
    of("published ports", PROXYS_ANSWER, &["a sibling, the host's address, a connected socket"]),
    of(
        "published ports",
        Why::Isolation,
        &[
            "a client, a container's own address, published port",
            "a sibling, its sibling's own address",
            "a sibling, its sibling's own address, IPv6",
            "a sibling, an echo request",
        ],
    ),
    of(
        "open network",
        NOT_ISOLATED,
        &[
            "a sibling, the link-local address",
            "a sibling, the link-local address, UDP",
            "a sibling, --link-local-ip",
            "a sibling, --link-local-ip, UDP",
            "a sibling, a second address",
            "a sibling, UDP, IPv6",
            "a sibling, a second address, IPv6",
            "a sibling, from a second address",
            "a sibling, an address of the loopback interface",
            "from an address of the loopback interface",
            "the host, a second address",
            "the host, an address of the loopback interface",
            "a container, the host's server from a second address",
            "a container, the outside from a second address",
            "a container, the outside from a second address, UDP",
            "a container, a published port from a second address",
            "a client, a container's own address, published port",
        ],
    ),
    of(
        "behind containers",
        NOT_ISOLATED,
        &[
            "pod to pod, TCP",
            "pod to pod, UDP",
            "pod to pod, IPv6",
            "node to pod",
            "pod to node",
            "the host to a pod, TCP",
            "the host to a pod, UDP",
            "the host to a pod, an echo request",
            "the host to a pod, IPv6",
            "a pod to a published port",
            "a pod to a published port, UDP",
            "a pod to the outside, under its own address",
            "through a container as gateway",
            "through a container as gateway, an echo request",
        ],
    ),
    of(
        "internal and ordinary",
        TWO_NETWORKS,
        &[
            "a client, TCP",
            "a client, UDP",
            "the host, 127.0.0.1",
            "a sibling, the published port",
            "a client, TCP, connected to a third network",
            "a client, UDP, connected to a third network",
            "a client, TCP, disconnected from the first",
            "a client, UDP, disconnected from the first",
        ],
    ),
    of("one family and both", TWO_NETWORKS, &["a client, TCP", "a client, UDP", "the host, 127.0.0.1"]),
    of(
        "local routes",
        LOCAL_TABLE,
        &[
            "a client, TCP",
            "a client, UDP",
            "a client, TCP, IPv6",
            "a client, UDP, IPv6",
            "a client, published on it, TCP",
            "a client, published on it, UDP",
            "a client, published on it, IPv6",
            "a client, within a prefix, TCP",
            "a client, within a prefix, UDP",
            "a client, within a prefix, IPv6",
        ],
    ),
    of("sockets of the host", Why::ClientAddress, &["in the host's network, the host's address"]),
    of("sockets of the host", PROXYS_ANSWER, &["bound to the host's address, 127.0.0.1, UDP"]),
    of("the host on a bridge", Why::ClientAddress, &["the host, its own address"]),
    of(
        "the host on a bridge",
        BRIDGE,
        &[
            "a client, TCP",
            "a client, UDP",
            "a client, TCP, IPv6",
            "a client, UDP, IPv6",
            "a virtual machine, TCP",
            "a virtual machine, UDP",
            "a virtual machine, TCP, IPv6",
        ],
    ),
];
