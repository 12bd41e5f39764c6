//! What only Docker 28 has: gateway modes and who may reach containers by their own addresses, on networks that are not isolated.
//! Who may pass by a mark (`--bridge-accept-fwmark`) is no case of it: Docker has that from 29 on, and 28.5 does not start with it.

use tests::EngineName;
use tests::parity::{Group, Stage, case, refused};

/// Every gateway mode, interfaces that are trusted, and addresses that publications are bound to.
pub const MODES: Group = Group {
    name: "gateway modes",
    engine: Some(EngineName::Docker28),
    second_uplink: true,
    setup: "
        docker network create --subnet 172.30.1.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=routed \
            --ipv6 --subnet fd31::/64 -o com.docker.network.bridge.gateway_mode_ipv6=routed routed
        docker network create --subnet 172.30.2.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected unprotected
        docker network create --internal --subnet 172.30.3.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=isolated closed
        docker network create --subnet 172.30.4.0/24 -o com.docker.network.bridge.trusted_host_interfaces=eth1 trusted
        docker network create --subnet 172.30.5.0/24 -o com.docker.network.bridge.host_binding_ipv4=198.51.100.1 bound
        docker network create --subnet 172.30.6.0/24 ordinary
        run routed --network routed -p 8001:7 -p 8001:7/udp echo peer tcp:[::]:7 udp:[::]:7 tcp:[::]:9
        run unprotected --network unprotected -p 8002:7 echo peer tcp:[::]:7 udp:[::]:7 tcp:[::]:9
        run closed --network closed ECHO
        run inside --network closed ECHO
        run trusted --network trusted -p 8004:7 ECHO
        run bound --network bound -p 8005:7 ECHO
        run ordinary --network ordinary -p 8006:7 ECHO
        serve client tcp:[::]:9000 udp:[::]:9000
    ",
    stages: &[Stage { change: "", cases: &[
        case("routed: a client, the container's own address", "client tcp {routed}:7"),
        case("routed: a client, the container's own address, UDP", "client udp {routed}:7"),
        case("routed: a client, the container's own address, IPv6", "client tcp [{routed/6}]:7"),
        refused("routed: a client, a port that is not open", "client tcp {routed}:9"),
        refused("routed: a client, the host's address", "client tcp 192.0.2.1:8001"),
        refused("routed: the host, 127.0.0.1", "host tcp 127.0.0.1:8001"),
        case("routed: the host, the container's own address", "host tcp {routed}:9"),
        case("routed: the outside, under its own address", "routed tcp 192.0.2.2:9000"),
        case("routed: another network's container, its own address", "ordinary tcp {routed}:7"),
        case("unprotected: a client, the host's address", "client tcp 192.0.2.1:8002"),
        case("unprotected: a client, the container's own address", "client tcp {unprotected}:7"),
        case("unprotected: a client, a port that is not published", "client tcp {unprotected}:9"),
        case("unprotected: the outside", "unprotected tcp 192.0.2.2:9000"),
        case("isolated: within", "inside tcp {closed}:7"),
        refused("isolated: the host", "host tcp {closed}:7"),
        refused("isolated: the outside", "closed tcp 192.0.2.2:9000"),
        refused("trusted interfaces: by another, the container's own address", "client tcp {trusted}:7"),
        case("trusted interfaces: by one, the container's own address", "client2 tcp {trusted}:7"),
        case("trusted interfaces: by another, the host's address", "client tcp 192.0.2.1:8004"),
        refused("bound: the other address", "client tcp 192.0.2.1:8005"),
        case("bound: its address", "client2 tcp 198.51.100.1:8005"),
        case("bound: its address, by another way", "client tcp 198.51.100.1:8005"),
        refused("bound: the host, 127.0.0.1", "host tcp 127.0.0.1:8005"),
        refused("ordinary: a client, the container's own address", "client tcp {ordinary}:7"),
        case("ordinary: a client, the host's address", "client tcp 192.0.2.1:8006"),
    ] }],
    ..Group::NONE
};

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
