//! Uplinks that not every kernel has, one after the other on one host.

use std::time::Instant;

use tests::{Image, Lab};

use super::{netkit, wireguard};

#[test]
fn wireguard_and_netkit() {
    let begun = Instant::now();
    let lab = Lab::builder("other uplinks").images(&[Image::Echo]);
    let lab = lab.engine_arg("--ipv6").engine_arg("--fixed-cidr-v6=2001:db8:d::/64").build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo", "peer", "tcp:[::]:7", "udp:[::]:7"]);
    let (ipv4, ipv6) = (server.ip(), server.ip6());
    let tell = |what: &str| println!("{:>4} s: {what}", begun.elapsed().as_secs());
    tell("up");
    wireguard::serves(&lab, [ipv4.into(), ipv6.into()]);
    tell("served over WireGuard");
    match netkit::serves(&lab, ipv4) {
        true => tell("served over netkit"),
        false => tell("this kernel has no netkit, and nothing is said of it"),
    }
}
