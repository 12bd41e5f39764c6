//! `-p` in all its forms, on Docker's default network, which is isolated.

use tests::parity::{Group, Stage, case, maybe, refused};

/// Published ports: who reaches them, by which address, and whom the server sees.
pub const PORTS: Group = Group {
    name: "published ports",
    dockerd: &["--ipv6", "--fixed-cidr-v6=2001:db8:d::/64", "--experimental", "--ip6tables"],
    setup: "
        docker network create --subnet 172.30.0.0/24 second
        run web -p 8000:7 -p 8000:7/udp -p 192.0.2.1:8001:7 -p 192.0.2.1:8001:7/udp -p 127.0.0.1:8002:7 -p 127.0.0.1:8002:7/udp \
            -p [2001:db8::1]:8003:7 -p [2001:db8::1]:8003:7/udp -p [::1]:8004:7 -p 127.0.0.1:8020:7 -p 8030-8031:7-8 ECHO
        run second --network second -p 127.0.0.2:8020:7 -p 127.0.0.2:8020:7/udp -p 8040:7 -p 8040:7/udp ECHO
        run sibling ECHO
        run unpublished ECHO
        serve client tcp:[::]:9000 udp:[::]:9000
        serve host tcp:[::]:9001 udp:[::]:9001
    ",
    stages: &[Stage { change: "", cases: &[
        case("a client, TCP", "client tcp 192.0.2.1:8000"),
        case("a client, UDP", "client udp 192.0.2.1:8000"),
        case("a client, datagrams", "client datagram 192.0.2.1:8000"),
        case("a client, TCP, IPv6", "client tcp [2001:db8::1]:8000"),
        case("a client, UDP, IPv6", "client udp [2001:db8::1]:8000"),
        case("a client, datagrams, IPv6", "client datagram [2001:db8::1]:8000"),
        case("a client, one address, TCP", "client tcp 192.0.2.1:8001"),
        case("a client, one address, UDP", "client udp 192.0.2.1:8001"),
        case("a client, one address, TCP, IPv6", "client tcp [2001:db8::1]:8003"),
        case("a client, one address, UDP, IPv6", "client udp [2001:db8::1]:8003"),
        refused("a client, another family's address", "client tcp [2001:db8::1]:8001"),
        refused("a client, a loopback publication", "client tcp 192.0.2.1:8002"),
        refused("a client, a loopback publication, IPv6", "client tcp [2001:db8::1]:8004"),
        refused("a client, a port that is not published", "client tcp 192.0.2.1:8999"),
        case("a client, the first of a range", "client tcp 192.0.2.1:8030"),
        refused("a client, the second of a range, where nobody listens", "client tcp 192.0.2.1:8031"),
        case("a client, the bridge's address", "client tcp 172.17.0.1:8000"),
        maybe("a client, a container's own address, published port", "client tcp {web}:7"),
        refused("a client, a container's own address, nothing published", "client tcp {unpublished}:7"),
        refused("a client, an echo request to a container", "client ping {web}"),
        case("the host, 127.0.0.1, TCP", "host tcp 127.0.0.1:8000"),
        case("the host, 127.0.0.1, UDP", "host udp 127.0.0.1:8000"),
        case("the host, 127.0.0.1, datagrams", "host datagram 127.0.0.1:8000"),
        case("the host, ::1, TCP", "host tcp [::1]:8000"),
        case("the host, ::1, UDP", "host udp [::1]:8000"),
        case("the host, its own address, TCP", "host tcp 192.0.2.1:8000"),
        case("the host, its own address, UDP", "host udp 192.0.2.1:8000"),
        case("the host, its own address, TCP, IPv6", "host tcp [2001:db8::1]:8000"),
        case("the host, the bridge's address", "host tcp 172.17.0.1:8000"),
        case("the host, a loopback publication, TCP", "host tcp 127.0.0.1:8002"),
        case("the host, a loopback publication, UDP", "host udp 127.0.0.1:8002"),
        case("the host, a loopback publication, IPv6", "host tcp [::1]:8004"),
        case("the host, 127.0.0.1 where 127.0.0.2 is another's", "host tcp 127.0.0.1:8020"),
        case("the host, 127.0.0.2 where 127.0.0.1 is another's", "host tcp 127.0.0.2:8020"),
        case("the host, 127.0.0.2 where 127.0.0.1 is another's, UDP", "host udp 127.0.0.2:8020"),
        refused("the host, 127.0.0.3 where two others are published", "host tcp 127.0.0.3:8020"),
        case("the host, a container's own address", "host tcp {unpublished}:7"),
        case("the host, a container's own address, UDP", "host udp {unpublished}:7"),
        case("the host, a container's own address, IPv6", "host tcp [{unpublished/6}]:7"),
        case("the host, an echo request to a container", "host ping {web}"),
        case("a sibling, the host's address, TCP", "sibling tcp 192.0.2.1:8000"),
        case("a sibling, the host's address, UDP", "sibling datagram 192.0.2.1:8000"),
        maybe("a sibling, the host's address, a connected socket", "sibling udp 192.0.2.1:8000"),
        case("a sibling, the bridge's address, TCP", "sibling tcp 172.17.0.1:8000"),
        case("a sibling, the host's address, IPv6", "sibling tcp [2001:db8::1]:8000"),
        case("a sibling, its sibling's own address", "sibling tcp {web}:7"),
        case("a sibling, its sibling's own address, IPv6", "sibling tcp [{web/6}]:7"),
        case("a sibling, an echo request", "sibling ping {web}"),
        case("the server itself, the host's address, TCP", "web tcp 192.0.2.1:8000"),
        case("the server itself, the host's address, UDP", "web datagram 192.0.2.1:8000"),
        case("the server itself, the host's address, IPv6", "web tcp [2001:db8::1]:8000"),
        case("the server itself, its own address", "web tcp {web}:7"),
        case("another network's container, the host's address, TCP", "second tcp 192.0.2.1:8000"),
        case("another network's container, the host's address, UDP", "second datagram 192.0.2.1:8000"),
        refused("another network's container, a container's own address", "second tcp {unpublished}:7"),
        case("to another network's published port, TCP", "sibling tcp 192.0.2.1:8040"),
        case("to another network's published port, UDP", "sibling datagram 192.0.2.1:8040"),
        case("a container, the outside, TCP", "web tcp 192.0.2.2:9000"),
        case("a container, the outside, UDP", "web udp 192.0.2.2:9000"),
        case("a container, the outside, datagrams", "web datagram 192.0.2.2:9000"),
        case("a container, the outside, IPv6", "web tcp [2001:db8::2]:9000"),
        case("a container, an echo request to the outside", "web ping 192.0.2.2"),
        case("a container, the host's server", "web tcp 192.0.2.1:9001"),
        case("a container, the host's server, UDP", "web datagram 192.0.2.1:9001"),
        case("a container, the host's server by the bridge's address", "web tcp 172.17.0.1:9001"),
        case("a container, the host's server, IPv6", "web tcp [2001:db8::1]:9001"),
        case("a container, an echo request to the host", "web ping 192.0.2.1"),
        case("a client, the host's server beside published ports", "client tcp 192.0.2.1:9001"),
    ] }],
    ..Group::NONE
};
