//! What differs from Docker alone, and why: the whole list.
//!
//! One difference needs no entry, wherever docker-proxy carries a case with Docker alone: it hides the client's address and port,
//! and the datapath keeps them.

use tests::EngineName;
use tests::parity::{Difference, Why};

/// What the server sees of a process of the host: its address on the server's network.
const HOST_ITSELF: &[&str] =
    &["the host, its own address, TCP", "the host, its own address, UDP", "the host, its own address, TCP, IPv6"];

/// For a socket that is connected, docker-proxy's answer comes from a stranger.
const PROXYS_ANSWER: Why = Why::AskedFor("docker-proxy answers from another address than the one that was dialled");

const fn of(group: &'static str, why: Why, cases: &'static [&'static str]) -> Difference {
    Difference { group, except: None, why, cases }
}

/// Docker 28 refuses a container's own address from outside itself, and its proxy answers from where it was dialled.
const fn before_28(group: &'static str, why: Why, cases: &'static [&'static str]) -> Difference {
    Difference { except: Some(EngineName::Docker28), ..of(group, why, cases) }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    of("published ports", Why::ClientAddress, HOST_ITSELF),
    before_28("published ports", Why::Isolation, &["a client, a container's own address, published port"]),
    before_28("published ports", PROXYS_ANSWER, &["a sibling, the host's address, a connected socket"]),
    of(
        "published ports",
        Why::Isolation,
        &[
            "a sibling, its sibling's own address",
            "a sibling, its sibling's own address, IPv6",
            "a sibling, an echo request",
        ],
    ),
    of("local routes", Why::ClientAddress, &["the host, TCP", "the host, UDP"]),
    of("sockets of the host", Why::ClientAddress, &["in the host's network, the host's address"]),
    before_28("sockets of the host", PROXYS_ANSWER, &["bound to the host's address, 127.0.0.1, UDP"]),
    of("the host on a bridge", Why::ClientAddress, &["the host, its own address"]),
    of("direct routing", Why::ClientAddress, &["gw-priority: a sibling, the host's address"]),
    of("swarm", Why::ClientAddress, &["overlay: the host, its own address"]),
    of("direct routing", Why::Isolation, &["a client, the default network, a container's own address"]),
];
