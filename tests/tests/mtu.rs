//! Streams through a publication, whatever the devices on the way compute for themselves and however much they take at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tests::far::far;
use tests::sockets::{Talk, ask_when_up};
use tests::{HOST, HOST2, Image, Lab, Netns};

const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const HOST2_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// What is sent, and comes back to be compared.
const BYTES: usize = 4_000_000;

/// A stream from a client to each of these addresses of the host's and back, and a datagram as large as the way takes.
#[track_caller]
fn stream<const N: usize>(lab: &Lab, what: &str, client: &Netns, addresses: [IpAddr; N], port: u16, mtu: usize) {
    for address in addresses {
        lab.assert_carried(|| {
            let mut talk = Talk::when_up(client, (address, port));
            talk.transfer(BYTES, |_| ()).unwrap_or_else(|e| panic!("{what}, {address}: {e}"));
            // With 48 bytes of headers; the answer has a line more, and may need two frames.
            ask_when_up(client, (address, port), &vec![5; mtu - 48]);
        });
    }
}

/// Clients on the LAN of that MTU, and beyond a link of 1280 bytes; offloads on or off on every device that has any.
fn every_way(mtu: u32, offloads: bool) {
    let what = format!("MTU {mtu}, offloads {}", if offloads { "on" } else { "off" });
    let builder = Lab::builder(&what).second_uplink().mtu(mtu).images(&[Image::Echo]).without_iptables();
    let builder = builder.engine_arg("--ipv6").engine_arg("--fixed-cidr-v6=2001:db8:d::/64");
    let lab = builder.engine_arg(&format!("--mtu={mtu}")).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "7:7", "-p", "7:7/udp", "echo", "peer", "tcp:[::]:7", "udp:[::]:7"]);
    let far = far(&lab);
    let container = server.ns();
    let devices = [
        (lab.client(), "eth0"),
        (lab.client2(), "eth0"),
        (lab.host(), "eth0"),
        (lab.host(), "eth1"),
        (&container, "eth0"),
    ];
    for (ns, device) in devices.into_iter().chain([(lab.client2(), "far"), (&far, "eth0")]) {
        ns.set_offloads(device, offloads);
    }
    let shown = container.run(["ip", "link", "show", "eth0"]).ok();
    assert!(shown.contains(&format!("mtu {mtu} ")), "{shown}");
    stream(&lab, &what, lab.client(), [HOST.into(), HOST6.into()], 7, mtu as usize);
    stream(&lab, &format!("{what}, beyond a link of 1280"), &far, [HOST2.into(), HOST2_V6.into()], 7, 1280);
}

#[test]
fn ordinary_frames_with_offloads() {
    every_way(1500, true);
}

#[test]
fn ordinary_frames_without_offloads() {
    every_way(1500, false);
}

#[test]
fn jumbo_frames_with_offloads() {
    every_way(9000, true);
}

#[test]
fn jumbo_frames_without_offloads() {
    every_way(9000, false);
}

#[test]
fn sums_left_to_the_device_hold_where_both_addresses_sum_up_to_the_same() {
    let lab = Lab::builder("addresses of one sum").images(&[Image::Echo]).without_iptables().build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8007:7", "-p", "8007:7/udp", "echo", "peer", "tcp:[::]:7", "udp:[::]:7"]);
    let [a, b, c, d] = server.ip().octets();
    // The words of 10.1.x.y add up to what the container's do, in one's complement.
    let sum = u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d])) + 0xffff - 0x0a01;
    let [x, y] = ((sum % 0xffff) as u16).to_be_bytes();
    let host = Ipv4Addr::new(10, 1, x, y);
    lab.host().run(["ip", "addr", "add", &format!("{host}/32"), "dev", "eth0"]).ok();
    lab.client().run(["ip", "route", "add", &format!("{host}/32"), "via", &HOST.to_string()]).ok();
    // The answers leave their sums to a device that does not compute them, so that the kernel does.
    lab.host().set_offloads("eth0", false);
    stream(&lab, "addresses of one sum", lab.client(), [host.into()], 8007, 1500);
}
