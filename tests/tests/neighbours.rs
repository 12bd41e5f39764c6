//! What a hostile container makes its host and its neighbours believe: nothing about anybody else, on an isolated network. On one
//! that is not, each attack has its effect: so it is one.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use packet_builder::{PacketBuilder, icmp, ip, ones_complement, raw};
use tests::frames::Wire;
use tests::{Container, Image, Lab, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(3);
/// The group of all nodes of a link, and its MAC address.
const ALL_NODES: (&str, [u8; 6]) = ("ff02::1", [0x33, 0x33, 0, 0, 0, 1]);

struct Scene<'l> {
    lab: &'l Lab,
    isolated: bool,
    bridge: &'static str,
    victim: Container,
    attacker: Container,
    wire: Wire,
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// The link-local address that follows from a MAC address.
fn link_local(m: [u8; 6]) -> String {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]).to_string()
}

fn scene<'l>(lab: &'l Lab, isolated: bool, bridge: &'static str, prefix: &str) -> Scene<'l> {
    let label = format!("runtime.isolate={isolated}");
    let name = format!("com.docker.network.bridge.name={bridge}");
    let subnet = format!("{prefix}::/64");
    lab.docker(["network", "create", "--label", &label, "-o", &name, "--ipv6", "--subnet", &subnet, bridge]).ok();
    let start = |who: &str| lab.run(&format!("{who}-{bridge}"), &["--network", bridge, "echo"]);
    let (victim, attacker) = (start("victim"), start("attacker"));
    let wire = Wire::open(&attacker.ns(), "eth0");
    // Nobody answers for an address that may be another's yet.
    let tentative = || lab.host().run(["ip", "-6", "address", "show", "dev", bridge, "tentative"]).ok();
    wait_until("the host's addresses are its own", SOON, || tentative().is_empty());
    Scene { lab, isolated, bridge, victim, attacker, wire }
}

impl Scene<'_> {
    /// Sends what has to be dropped for a reason, where the network is isolated.
    fn sends(&self, reason: &str, packet: PacketBuilder, to: [u8; 6]) {
        let frame = packet.macs(self.attacker.ns().mac("eth0"), to).build();
        if self.isolated {
            self.lab.assert_dropped(reason, || self.wire.send(&frame));
        } else {
            self.wire.send(&frame);
        }
    }

    fn victims_address(&self) -> Ipv6Addr {
        self.victim.ip6_on(self.bridge)
    }

    /// Whether the host takes the attacker for the victim after a solicitation with the victim's link-local address.
    fn poisons_the_hosts_table(&self) -> bool {
        let host = self.lab.host();
        let victims = link_local(self.victim.ns().mac("eth0"));
        let attackers = self.attacker.ns().mac("eth0");
        let gateway =
            self.victim.inspect(&format!("{{{{(index .NetworkSettings.Networks \"{}\").IPv6Gateway}}}}", self.bridge));
        let target: Ipv6Addr = gateway.parse().unwrap();
        let options = [&[1, 1][..], &attackers].concat();
        let question =
            icmp(&victims, &gateway, 135, 0, [0; 4]).payload(&[&target.octets(), &options[..]].concat()).ttl(255);
        self.sends("spoofed_address", question, host.mac(self.bridge));
        let table = || host.run(["ip", "-6", "neighbour", "show", &victims, "dev", self.bridge]).ok();
        let poisoned = || table().contains(&mac_text(attackers)).then_some(());
        wait_for(if self.isolated { SOON / 10 } else { SOON }, poisoned).is_some()
    }

    /// Whether the victim gives up an address of its own, which it configures anew, where the attacker asks for it and claims it.
    fn denies_the_victim_its_address(&self) -> bool {
        let (ns, address) = (self.victim.ns(), self.victims_address());
        let with_length = format!("{address}/64");
        ns.run(["ip", "-6", "address", "delete", &with_length, "dev", "eth0"]).ok();
        ns.run(["ip", "-6", "address", "add", &with_length, "dev", "eth0"]).ok();
        let octets = address.octets();
        let group = format!("ff02::1:ff{:02x}:{:02x}{:02x}", octets[13], octets[14], octets[15]);
        let to = [0x33, 0x33, 0xff, octets[13], octets[14], octets[15]];
        let own = link_local(self.attacker.ns().mac("eth0"));
        let state = |what: &str| ns.run(["ip", "-6", "address", "show", "dev", "eth0", what]).ok().contains("inet6 fd");
        let end = Instant::now() + 2 * SOON;
        while Instant::now() < end && state("tentative") && !state("dadfailed") {
            self.sends("spoofed_address", icmp("::", &group, 135, 0, [0; 4]).payload(&octets).ttl(255), to);
            let claim = icmp(&own, ALL_NODES.0, 136, 0, [0x20, 0, 0, 0]).payload(&octets).ttl(255);
            self.sends("spoofed_address", claim, ALL_NODES.1);
        }
        state("dadfailed")
    }

    /// Whether the bridge sends all groups to the attacker, as to a multicast router, after its queries.
    fn is_believed_to_be_a_router(&self) -> bool {
        let own = link_local(self.attacker.ns().mac("eth0"));
        self.sends("router_message", mld_query(&own), ALL_NODES.1);
        let mut query = [0x11, 100, 0, 0, 0, 0, 0, 0];
        let sum = ones_complement(&query, &[]).to_be_bytes();
        query[2..4].copy_from_slice(&sum);
        let all_systems = [1, 0, 0x5e, 0, 0, 1];
        let from = self.attacker.ip_on(self.bridge).to_string();
        self.sends("router_message", raw(&from, "224.0.0.1", 2).payload(&query).ttl(1), all_systems);
        let known = || self.lab.host().run(["bridge", "-d", "mdb", "show", "dev", self.bridge]).ok();
        let believed = || known().contains("router ports").then_some(());
        wait_for(if self.isolated { SOON / 10 } else { SOON }, believed).is_some()
    }
}

/// A general query for listeners (RFC 2710), behind the router alert that it needs.
fn mld_query(from: &str) -> PacketBuilder {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (ip(from), ip(ALL_NODES.0)) else { panic!("MLD is for IPv6") };
    let mut message = [0; 24];
    (message[0], message[4]) = (130, 0x27);
    let pseudo = [&src.octets()[..], &dst.octets(), &[0, 0, 0, 24, 0, 0, 0, 58]].concat();
    let sum = ones_complement(&pseudo, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    raw(from, ALL_NODES.0, 0).payload(&[&[58, 0, 5, 2, 0, 0, 1, 0][..], &message].concat()).ttl(1)
}

#[test]
fn a_container_is_believed_about_itself_alone() {
    let lab = Lab::builder("hostile neighbours").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    for (isolated, bridge, prefix) in [(false, "rt-open", "fd00:98"), (true, "rt-closed", "fd00:99")] {
        let scene = scene(&lab, isolated, bridge, prefix);
        assert_eq!(scene.poisons_the_hosts_table(), !isolated, "{bridge}: the host's neighbour table");
        assert_eq!(scene.is_believed_to_be_a_router(), !isolated, "{bridge}: the bridge's router ports");
        assert_eq!(scene.denies_the_victim_its_address(), !isolated, "{bridge}: the victim's address");
    }
}
