//! A client behind a router, on a way with a narrow link.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Lab, Netns};

/// Its address.
pub const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Its address of IPv6.
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 2);

/// Makes a client two hops from the host, in a lab with a second uplink: neither end sees that the way between takes 1280
/// bytes at most. The second client's namespace becomes the router.
#[track_caller]
pub fn far(lab: &Lab) -> Netns {
    let name = format!("{}-far", lab.name());
    lab.host().run(["ip", "netns", "add", &name]).ok();
    let far = Netns::at(format!("/run/netns/{name}"));
    let router = lab.client2();
    let run = |ns: &Netns, lines: &str| {
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            ns.run(line.split_whitespace()).ok();
        }
    };
    run(
        router,
        &format!(
            "sysctl -qw net.ipv4.ip_forward=1
             sysctl -qw net.ipv6.conf.all.forwarding=1
             ip link add far type veth peer name eth0 netns {name}
             ip address add 203.0.113.1/24 dev far
             ip address add 2001:db8:3::1/64 dev far nodad
             ip link set far up"
        ),
    );
    run(
        &far,
        "ip address add 203.0.113.2/24 dev eth0
         ip address add 2001:db8:3::2/64 dev eth0 nodad
         ip link set eth0 up
         ip route add default via 203.0.113.1
         ip -6 route add default via 2001:db8:3::1",
    );
    run(
        router,
        "ip route add 203.0.113.2/32 dev far mtu lock 1280
         ip -6 route add 2001:db8:3::2/128 dev far mtu lock 1280
         ip route add 198.51.100.1/32 dev eth0 mtu lock 1280
         ip -6 route add 2001:db8:2::1/128 dev eth0 mtu lock 1280",
    );
    run(
        lab.host(),
        "ip route add 203.0.113.0/24 via 198.51.100.2
         ip -6 route add 2001:db8:3::/64 via 2001:db8:2::2",
    );
    far
}
