//! Swarm on one host: what standalone containers on overlay networks publish, and services by ports of the host.

use tests::EngineName;
use tests::parity::{Group, Stage, case};

/// Containers on an overlay network, which the bridge `docker_gwbridge` joins to the host, and tasks with ports of the host's.
pub const SWARM: Group = Group {
    name: "swarm",
    engine: Some(EngineName::Docker28),
    setup: "
        docker swarm init --advertise-addr 192.0.2.1 --listen-addr 192.0.2.1:2377
        docker tag echo 127.0.0.1:1/echo
        docker network create --driver overlay --attachable --subnet 10.77.0.0/24 over
        docker network create --subnet 172.30.1.0/24 ordinary
        run alone --network over -p 8001:7 -p 8001:7/udp ECHO
        run closed --network over ECHO
        run default ECHO
        run ordinary --network ordinary ECHO
        docker service create --name task --no-resolve-image --update-monitor 100ms --stop-signal SIGKILL --network over \
            --publish mode=host,published=8002,target=7 --publish mode=host,published=8002,target=7,protocol=udp 127.0.0.1:1/echo peer tcp:[::]:7 udp:[::]:7 tcp:[::]:9
        docker service create --name plain --no-resolve-image --update-monitor 100ms --stop-signal SIGKILL \
            --publish mode=host,published=8003,target=7 127.0.0.1:1/echo peer tcp:[::]:7 udp:[::]:7
        serve client tcp:[::]:9000 udp:[::]:9000
    ",
    stages: &[Stage { change: "", cases: &[
        case("overlay: a client, TCP", "client tcp 192.0.2.1:8001"),
        case("overlay: a client, UDP", "client udp 192.0.2.1:8001"),
        case("overlay: a client, IPv6", "client tcp [2001:db8::1]:8001"),
        case("overlay: the host, 127.0.0.1", "host tcp 127.0.0.1:8001"),
        case("overlay: the host, its own address", "host tcp 192.0.2.1:8001"),
        case("overlay: a container of the default network", "default tcp 192.0.2.1:8001"),
        case("overlay: a container of another network", "ordinary tcp 192.0.2.1:8001"),
        case("overlay: a container of the overlay network", "closed tcp 192.0.2.1:8001"),
        case("overlay: within", "closed tcp {alone@over}:7"),
        case("overlay: the outside", "alone tcp 192.0.2.2:9000"),
        case("overlay: the outside, UDP", "closed udp 192.0.2.2:9000"),
        case("task on an overlay: a client, TCP", "client tcp 192.0.2.1:8002"),
        case("task on an overlay: a client, UDP", "client udp 192.0.2.1:8002"),
        case("task on an overlay: the host, 127.0.0.1", "host tcp 127.0.0.1:8002"),
        case("task on an overlay: a container of the default network", "default tcp 192.0.2.1:8002"),
        case("task without a network: a client", "client tcp 192.0.2.1:8003"),
        case("task without a network: the host, 127.0.0.1", "host tcp 127.0.0.1:8003"),
        case("task without a network: a container of the overlay network", "closed tcp 192.0.2.1:8003"),
    ] },
    Stage { change: "docker service update --no-resolve-image --force --publish-add mode=host,published=8004,target=9 task", cases: &[
        case("published with an update: a client", "client tcp 192.0.2.1:8004"),
        case("published with an update: a client, the earlier port", "client tcp 192.0.2.1:8002"),
        case("published with an update: a container of the default network", "default tcp 192.0.2.1:8004"),
    ] }],
    ..Group::NONE
};
