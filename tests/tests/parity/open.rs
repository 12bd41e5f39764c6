//! Networks that are not isolated: containers talk as Docker lets them.

use tests::parity::{Group, Stage, case, maybe, refused};

/// Siblings, and addresses beside those that Docker gave.
pub const OPEN: Group = Group {
    name: "open network",
    dockerd: &["--experimental", "--ip6tables"],
    setup: "
        docker network create --subnet 172.30.0.0/24 --ipv6 --subnet fd30::/64 open
        docker network create --subnet 172.30.1.0/24 --ipv6 --subnet fd31::/64 other
        run web --network open --link-local-ip 169.254.8.8 -p 8000:7 -p 8000:7/udp ECHO
        run sibling --network open --link-local-ip 169.254.8.9 ECHO
        run stranger --network other ECHO
        in web ip address add 172.30.0.200/24 dev eth0
        in web ip address add fd30::200/64 dev eth0 nodad
        in sibling ip address add 172.30.0.201/24 dev eth0
        in web ip address add 10.99.0.1/32 dev lo
        in sibling ip route add 10.99.0.1/32 via {web}
        host ip route add 10.99.0.1/32 via {web}
        serve client tcp:[::]:9000 udp:[::]:9000
        serve host tcp:[::]:9001 udp:[::]:9001
    ",
    stages: &[Stage {
        change: "",
        cases: &[
            case("a sibling, TCP", "sibling tcp {web}:7"),
            case("a sibling, UDP", "sibling udp {web}:7"),
            case("a sibling, TCP, IPv6", "sibling tcp [{web/6}]:7"),
            case("a sibling, UDP, IPv6", "sibling datagram [{web/6}]:7"),
            case("a sibling, an echo request", "sibling ping {web}"),
            case("a sibling, an echo request, IPv6", "sibling ping {web/6}"),
            case("a sibling, the link-local address", "sibling tcp [{web/fe80}%eth0]:7"),
            case("a sibling, the link-local address, UDP", "sibling udp [{web/fe80}%eth0]:7"),
            case("a sibling, --link-local-ip", "sibling tcp 169.254.8.8:7 from 169.254.8.9"),
            case("a sibling, --link-local-ip, UDP", "sibling udp 169.254.8.8:7 from 169.254.8.9"),
            case("a sibling, a second address", "sibling tcp 172.30.0.200:7"),
            case("a sibling, a second address, IPv6", "sibling tcp [fd30::200]:7"),
            case("a sibling, from a second address", "sibling tcp {web}:7 from 172.30.0.201"),
            case("a sibling, an address of the loopback interface", "sibling tcp 10.99.0.1:7"),
            case("from an address of the loopback interface", "web tcp {sibling}:7 from 10.99.0.1"),
            case("the host, TCP", "host tcp {web}:7"),
            case("the host, IPv6", "host tcp [{web/6}]:7"),
            case("the host, a second address", "host tcp 172.30.0.200:7"),
            case("the host, an address of the loopback interface", "host tcp 10.99.0.1:7"),
            case(
                "a container, the host's server from a second address",
                "sibling tcp 192.0.2.1:9001 from 172.30.0.201",
            ),
            case("a container, the outside from a second address", "sibling tcp 192.0.2.2:9000 from 172.30.0.201"),
            case("a container, the outside from a second address, UDP", "sibling udp 192.0.2.2:9000 from 172.30.0.201"),
            case("a container, a published port from a second address", "sibling tcp 192.0.2.1:8000 from 172.30.0.201"),
            case("a container, the outside", "sibling tcp 192.0.2.2:9000"),
            case("a container, the outside, UDP", "sibling udp 192.0.2.2:9000"),
            case("a client, the published port", "client tcp 192.0.2.1:8000"),
            case("a client, the published port, UDP", "client udp 192.0.2.1:8000"),
            maybe("a client, a container's own address, published port", "client tcp {web}:7"),
            refused("a client, a container's own address, nothing published", "client tcp {sibling}:7"),
            refused("a client, an echo request to a container", "client ping {web}"),
            refused("another network's container", "stranger tcp {web}:7"),
            refused("another network's container, IPv6", "stranger tcp [{web/6}]:7"),
            case("another network's container, the published port", "stranger tcp 192.0.2.1:8000"),
        ],
    }],
    ..Group::NONE
};

/// Pods behind containers (kind, minikube), a container as another's gateway.
pub const BEHIND: Group = Group {
    name: "behind containers",
    dockerd: &["--experimental", "--ip6tables"],
    setup: "
        docker network create --subnet 172.30.0.0/24 --ipv6 --subnet fd30::/64 nodes
        run node1 --network nodes ECHO
        run node2 --network nodes -p 8000:7 -p 8000:7/udp ECHO
        run router --network nodes busybox sleep 100000
        serve client tcp:[::]:9000 udp:[::]:9000
        in node1 ip address add 10.244.1.1/32 dev lo
        in node1 ip -6 address add fd44:1::1/128 dev lo
        in node2 ip address add 10.244.2.1/32 dev lo
        in node2 ip -6 address add fd44:2::1/128 dev lo
        in node1 ip route add 10.244.2.0/24 via {node2}
        in node2 ip route add 10.244.1.0/24 via {node1}
        in node1 ip -6 route add fd44:2::/64 via {node2/6}
        in node2 ip -6 route add fd44:1::/64 via {node1/6}
        host ip route add 10.244.1.0/24 via {node1}
        host ip route add 10.244.2.0/24 via {node2}
        host ip -6 route add fd44:1::/64 via {node1/6}
        in router sysctl -qw net.ipv4.ip_forward=1
        in router sysctl -qw net.ipv4.conf.all.send_redirects=0
        in router sysctl -qw net.ipv4.conf.eth0.send_redirects=0
        in node1 ip route add 203.0.113.2/32 via {router}
        in node2 ip address add 203.0.113.2/32 dev lo
        in node2 ip route add 10.245.0.0/24 via {router}
        in node1 ip address add 10.245.0.1/32 dev lo
        in router ip route add 203.0.113.2/32 via {node2}
        in router ip route add 10.245.0.1/32 via {node1}
        serve node1 udp:10.244.1.1:9
        serve node2 udp:10.244.2.1:9
    ",
    stages: &[Stage {
        change: "",
        cases: &[
            case("pod to pod, TCP", "node1 tcp 10.244.2.1:7 from 10.244.1.1"),
            case("pod to pod, UDP", "node1 udp 10.244.2.1:9 from 10.244.1.1"),
            case("pod to pod, IPv6", "node1 tcp [fd44:2::1]:7 from fd44:1::1"),
            case("node to pod", "node1 tcp 10.244.2.1:7"),
            case("pod to node", "node1 tcp {node2}:7 from 10.244.1.1"),
            case("the host to a pod, TCP", "host tcp 10.244.1.1:7"),
            case("the host to a pod, UDP", "host udp 10.244.1.1:9"),
            case("the host to a pod, an echo request", "host ping 10.244.1.1"),
            case("the host to a pod, IPv6", "host tcp [fd44:1::1]:7"),
            case("a pod to the host", "node1 ping 172.30.0.1"),
            refused("a client to a pod", "client tcp 10.244.1.1:7"),
            case("a pod to a published port", "node1 tcp 192.0.2.1:8000 from 10.244.1.1"),
            case("a pod to a published port, UDP", "node1 datagram 192.0.2.1:8000 from 10.244.1.1"),
            maybe("a pod to the outside, under its own address", "node1 tcp 192.0.2.2:9000 from 10.244.1.1"),
            case("through a container as gateway", "node1 tcp 203.0.113.2:7 from 10.245.0.1"),
            case("through a container as gateway, an echo request", "node1 ping 203.0.113.2"),
        ],
    }],
    ..Group::NONE
};
