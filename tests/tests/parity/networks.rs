//! A container on two networks: published where its own default route leaves.

use tests::parity::{Group, Stage, case};

/// An internal network, which comes first by name, and an ordinary one; a third that comes and goes.
pub const INTERNAL_AND_ORDINARY: Group = Group {
    name: "internal and ordinary",
    setup: "
        docker network create --internal --subnet 172.30.1.0/24 a-internal
        docker network create --subnet 172.30.2.0/24 n-ordinary
        docker network create --subnet 172.30.3.0/24 b-ordinary
        docker create --name web --stop-signal=SIGKILL --network a-internal -p 8000:7 -p 8000:7/udp -p 127.0.0.1:8001:7 ECHO
        docker network connect n-ordinary web
        docker start web
        run inside --network a-internal ECHO
        run sibling --network n-ordinary ECHO
        serve client tcp:[::]:9000 udp:[::]:9000
    ",
    stages: &[
        Stage { change: "", cases: &[
            case("a client, TCP", "client tcp 192.0.2.1:8000"),
            case("a client, UDP", "client udp 192.0.2.1:8000"),
            case("the host, 127.0.0.1", "host tcp 127.0.0.1:8001"),
            case("a sibling, the published port", "sibling tcp 192.0.2.1:8000"),
            case("a sibling, its own address", "sibling tcp {web@n-ordinary}:7"),
            case("within the internal network", "inside tcp {web@a-internal}:7"),
            case("the container, the outside", "web tcp 192.0.2.2:9000"),
        ] },
        Stage { change: "docker network connect b-ordinary web", cases: &[
            case("a client, TCP, connected to a third network", "client tcp 192.0.2.1:8000"),
            case("a client, UDP, connected to a third network", "client udp 192.0.2.1:8000"),
            case("the container, the outside, connected to a third network", "web tcp 192.0.2.2:9000"),
        ] },
        Stage { change: "docker network disconnect n-ordinary web", cases: &[
            case("a client, TCP, disconnected from the first", "client tcp 192.0.2.1:8000"),
            case("a client, UDP, disconnected from the first", "client udp 192.0.2.1:8000"),
            case("the container, the outside, disconnected from the first", "web tcp 192.0.2.2:9000"),
        ] },
    ],
    undo: "
        docker network connect n-ordinary web
        docker network disconnect b-ordinary web
        docker restart -t 0 web
    ",
    ..Group::NONE
};

/// One network has IPv4 alone, the other both families.
pub const BOTH_FAMILIES: Group = Group {
    name: "one family and both",
    dockerd: &["--experimental", "--ip6tables"],
    setup: "
        docker network create --subnet 172.30.1.0/24 a-single
        docker network create --subnet 172.30.2.0/24 --ipv6 --subnet fd32::/64 n-dual
        docker create --name web --stop-signal=SIGKILL --network a-single -p 8000:7 -p 8000:7/udp ECHO
        docker network connect n-dual web
        docker start web
        serve client tcp:[::]:9000 udp:[::]:9000
    ",
    stages: &[Stage {
        change: "",
        cases: &[
            case("a client, TCP", "client tcp 192.0.2.1:8000"),
            case("a client, UDP", "client udp 192.0.2.1:8000"),
            case("a client, TCP, IPv6", "client tcp [2001:db8::1]:8000"),
            case("a client, UDP, IPv6", "client udp [2001:db8::1]:8000"),
            case("the host, ::1", "host tcp [::1]:8000"),
            case("the host, 127.0.0.1", "host tcp 127.0.0.1:8000"),
            case("the container, the outside", "web tcp 192.0.2.2:9000"),
        ],
    }],
    ..Group::NONE
};
