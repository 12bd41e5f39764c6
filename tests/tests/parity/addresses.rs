//! The host's addresses: by routes alone, and as sockets of the host have them.

use tests::parity::{Group, Stage, case, maybe, refused};

/// What the local routing table calls the host's own, without an address of an interface (AnyIP, cloud load balancers).
pub const LOCAL_ROUTES: Group = Group {
    name: "local routes",
    dockerd: &["--ipv6", "--fixed-cidr-v6=2001:db8:d::/64", "--experimental", "--ip6tables"],
    setup: "
        host ip route add local 203.0.113.20/32 dev eth0
        host ip -6 route add local 2001:db8:a::20/128 dev lo
        host ip route add local 203.0.113.128/25 dev lo
        host ip -6 route add local 2001:db8:b::/64 dev lo
        host sysctl -qw net.ipv6.ip_nonlocal_bind=1
        run web -p 8000:7 -p 8000:7/udp -p 203.0.113.20:8001:7 -p 203.0.113.20:8001:7/udp -p [2001:db8:a::20]:8001:7 ECHO
        run sibling ECHO
        serve host tcp:[::]:9001 udp:[::]:9001
    ",
    stages: &[Stage { change: "", cases: &[
        case("a client, TCP", "client tcp 203.0.113.20:8000"),
        case("a client, UDP", "client udp 203.0.113.20:8000"),
        case("a client, TCP, IPv6", "client tcp [2001:db8:a::20]:8000"),
        case("a client, UDP, IPv6", "client udp [2001:db8:a::20]:8000"),
        case("a client, published on it, TCP", "client tcp 203.0.113.20:8001"),
        case("a client, published on it, UDP", "client udp 203.0.113.20:8001"),
        case("a client, published on it, IPv6", "client tcp [2001:db8:a::20]:8001"),
        case("a client, within a prefix, TCP", "client tcp 203.0.113.200:8000"),
        case("a client, within a prefix, UDP", "client udp 203.0.113.200:8000"),
        case("a client, within a prefix, IPv6", "client tcp [2001:db8:b::77]:8000"),
        refused("a client, published on another address", "client tcp 203.0.113.200:8001"),
        case("a client, the host's server", "client tcp 203.0.113.20:9001"),
        case("the host, TCP", "host tcp 203.0.113.20:8000"),
        case("the host, UDP", "host udp 203.0.113.20:8000"),
        case("the host, IPv6", "host tcp [2001:db8:a::20]:8000"),
        case("the host, within a prefix", "host tcp 203.0.113.200:8000"),
        case("a sibling, TCP", "sibling tcp 203.0.113.20:8000"),
        case("a sibling, UDP", "sibling datagram 203.0.113.20:8000"),
        case("a sibling, within a prefix", "sibling tcp 203.0.113.200:8000"),
        case("a sibling, the host's server", "sibling tcp 203.0.113.20:9001"),
        case("a sibling, the host's server within a prefix", "sibling tcp 203.0.113.200:9001"),
        case("a container itself", "web tcp 203.0.113.20:8000"),
    ] }],
    ..Group::NONE
};

/// Containers in the host's network, and sockets bound to an address of it.
pub const HOST_NETWORK: Group = Group {
    name: "sockets of the host",
    setup: "
        run web -p 8000:7 -p 8000:7/udp -p 127.0.0.1:8001:7 ECHO
        run hostly --network host busybox sleep 100000
        serve host tcp:[::]:9001 udp:[::]:9001
        serve client tcp:[::]:9000 udp:[::]:9000
    ",
    stages: &[Stage {
        change: "",
        cases: &[
            case("in the host's network, 127.0.0.1", "hostly tcp 127.0.0.1:8000"),
            case("in the host's network, 127.0.0.1, UDP", "hostly udp 127.0.0.1:8000"),
            case("in the host's network, a loopback publication", "hostly tcp 127.0.0.1:8001"),
            case("in the host's network, the host's address", "hostly tcp 192.0.2.1:8000"),
            case("bound to the host's address, 127.0.0.1", "hostly tcp 127.0.0.1:8000 from 192.0.2.1"),
            maybe("bound to the host's address, 127.0.0.1, UDP", "hostly udp 127.0.0.1:8000 from 192.0.2.1"),
            case("bound to the host's address, a loopback publication", "hostly tcp 127.0.0.1:8001 from 192.0.2.1"),
            case("bound to the bridge's address, 127.0.0.1", "hostly tcp 127.0.0.1:8000 from 172.17.0.1"),
            case("bound to 127.0.0.1, 127.0.0.1", "host tcp 127.0.0.1:8000 from 127.0.0.1"),
            refused("bound to 127.0.0.1, the host's address", "host tcp 192.0.2.1:8000 from 127.0.0.1"),
            case("bound to 127.0.0.9, 127.0.0.1", "host tcp 127.0.0.1:8000 from 127.0.0.9"),
            case("bound to the host's address, its own", "host tcp 192.0.2.1:8000 from 192.0.2.1"),
            case("bound to the host's address, a container's own", "host tcp {web}:7 from 192.0.2.1"),
            case("bound to the host's address, the outside", "host tcp 192.0.2.2:9000 from 192.0.2.1"),
            case("the host's own server by 127.0.0.1", "host tcp 127.0.0.1:9001"),
            refused("nobody's port", "host tcp 127.0.0.1:8999"),
        ],
    }],
    ..Group::NONE
};
