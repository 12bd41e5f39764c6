//! What only Docker 28 has: direct routing, and a wish for the default route.

use tests::EngineName;
use tests::parity::{Group, Stage, case, refused};

/// Direct routing allowed; a container on two networks with a wish for its default route.
pub const DIRECT: Group = Group {
    name: "direct routing",
    engine: Some(EngineName::Docker28),
    dockerd: &["--allow-direct-routing"],
    setup: "
        docker network create --subnet 172.30.1.0/24 a-first
        docker network create --subnet 172.30.2.0/24 z-last
        docker create --name web --stop-signal=SIGKILL --network a-first -p 8000:7 -p 8000:7/udp -p 127.0.0.1:8001:7 ECHO
        docker network connect --gw-priority 10 z-last web
        docker start web
        run sibling --network a-first ECHO
        run plain -p 8002:7 ECHO
        serve client tcp:[::]:9000 udp:[::]:9000
    ",
    stages: &[Stage { change: "", cases: &[
        case("gw-priority: a client, TCP", "client tcp 192.0.2.1:8000"),
        case("gw-priority: a client, UDP", "client udp 192.0.2.1:8000"),
        case("gw-priority: the host, 127.0.0.1", "host tcp 127.0.0.1:8001"),
        case("gw-priority: a sibling, the host's address", "sibling tcp 192.0.2.1:8000"),
        case("gw-priority: the outside", "web tcp 192.0.2.2:9000"),
        case("a client, the container's own address", "client tcp {web@z-last}:7"),
        refused("a client, a container's own address, nothing published", "client tcp {sibling}:7"),
        case("a client, the default network, a container's own address", "client tcp {plain}:7"),
        case("a client, the default network, the host's address", "client tcp 192.0.2.1:8002"),
    ] },
    Stage { change: "docker network disconnect z-last web", cases: &[
        case("gw-priority, disconnected: a client, TCP", "client tcp 192.0.2.1:8000"),
        case("gw-priority, disconnected: a client, UDP", "client udp 192.0.2.1:8000"),
        case("gw-priority, disconnected: the host, 127.0.0.1", "host tcp 127.0.0.1:8001"),
    ] }],
    undo: "docker network connect --gw-priority 10 z-last web",
    ..Group::NONE
};
