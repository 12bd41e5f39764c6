//! The host's address on a bridge (Proxmox, libvirt, LXD), whose frames its rules of IP see (br_netfilter).

use tests::parity::{Group, Stage, case, maybe};

/// The LAN and a virtual machine (the second client) on one bridge.
pub const BRIDGED: Group = Group {
    name: "the host on a bridge",
    dockerd: &["--ipv6", "--fixed-cidr-v6=2001:db8:d::/64", "--experimental", "--ip6tables"],
    second_uplink: true,
    setup: "
        host ip link add br0 type bridge
        host ip address flush dev eth0
        host ip address flush dev eth1
        host ip link set eth0 master br0
        host ip link set eth1 master br0
        host ip link set br0 up
        host ip address add 192.0.2.1/24 dev br0
        host ip address add 2001:db8::1/64 dev br0 nodad
        host ip route replace default via 192.0.2.254
        client2 ip address flush dev eth0
        client2 ip address add 192.0.2.3/24 dev eth0
        client2 ip address add 2001:db8::3/64 dev eth0 nodad
        host sysctl -qw net.bridge.bridge-nf-call-iptables=1
        host sysctl -qw net.bridge.bridge-nf-call-ip6tables=1
        run web -p 8000:7 -p 8000:7/udp ECHO
        run sibling ECHO
        serve client tcp:[::]:9000 udp:[::]:9000
        serve host tcp:[::]:9001 udp:[::]:9001
    ",
    stages: &[Stage {
        change: "",
        cases: &[
            case("a client, TCP", "client tcp 192.0.2.1:8000"),
            case("a client, UDP", "client udp 192.0.2.1:8000"),
            case("a client, TCP, IPv6", "client tcp [2001:db8::1]:8000"),
            case("a client, UDP, IPv6", "client udp [2001:db8::1]:8000"),
            case("a virtual machine, TCP", "client2 tcp 192.0.2.1:8000"),
            case("a virtual machine, UDP", "client2 udp 192.0.2.1:8000"),
            case("a virtual machine, TCP, IPv6", "client2 tcp [2001:db8::1]:8000"),
            maybe("a virtual machine, the LAN", "client2 tcp 192.0.2.2:9000"),
            case("the host, its own address", "host tcp 192.0.2.1:8000"),
            case("the host, 127.0.0.1", "host tcp 127.0.0.1:8000"),
            case("a sibling, the published port", "sibling tcp 192.0.2.1:8000"),
            case("a container, the outside", "web tcp 192.0.2.2:9000"),
            case("a container, the outside, UDP", "web udp 192.0.2.2:9000"),
            case("a client, the host's server", "client tcp 192.0.2.1:9001"),
        ],
    }],
    ..Group::NONE
};
