//! Published ports through interfaces that not every kernel has: VLANs, bonds, and VLANs on bridges.

use std::net::{Ipv4Addr, SocketAddr};

use tests::sockets::{Talk, ask_when_up};
use tests::{Lab, Netns};

use crate::canonical;

/// The host's address and the client's on the link under test, of one /24.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// A second link between host and client: what `ip` is told on each side, to make the interface `device` out of one's end of a
/// cable, `port`.
pub struct Link {
    pub title: &'static str,
    device: &'static str,
    host: &'static [&'static str],
    client: &'static [&'static str],
}

pub const ALL: [Link; 3] = [
    Link {
        title: "VLAN",
        device: "tagged",
        host: &["link set port up", "link add link port name tagged type vlan id 10"],
        client: &["link set port up", "link add link port name tagged type vlan id 10"],
    },
    Link {
        title: "bond",
        device: "bond7",
        host: &["link add bond7 type bond mode active-backup miimon 100", "link set port master bond7"],
        client: &["link set port name bond7"],
    },
    Link {
        title: "VLAN on a bridge",
        device: "lan.20",
        host: &[
            "link add lan type bridge",
            "link set port master lan",
            "link set port up",
            "link set lan up",
            "link add link lan name lan.20 type vlan id 20",
        ],
        client: &["link set port up", "link add link port name lan.20 type vlan id 20"],
    },
];

fn ip(ns: &Netns, line: &str) {
    ns.run(std::iter::once("ip").chain(line.split_whitespace())).ok();
}

/// Ports 8000 of TCP and UDP are reached through the link, which comes while the daemon runs and goes afterwards.
pub fn serves_through(lab: &Lab, link: &Link, closed: SocketAddr) {
    let client_ns = lab.client().path().file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
    ip(lab.host(), &format!("link add port type veth peer name port netns {client_ns}"));
    for (ns, lines, address) in [(lab.host(), link.host, HOST), (lab.client(), link.client, CLIENT)] {
        lines.iter().for_each(|line| ip(ns, line));
        ip(ns, &format!("address add {address}/24 dev {}", link.device));
        ip(ns, &format!("link set {} up", link.device));
    }
    let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
    lab.assert_carried(|| talk = Talk::when_up(lab.client(), (HOST, 8000)));
    assert_eq!(canonical(talk.seen()), talk.ours());
    talk.transfer(1_000_000, |_| ()).unwrap_or_else(|e| panic!("a transfer through a {}: {e}", link.title));
    let (seen, port) = lab.assert_carried(|| ask_when_up(lab.client(), (HOST, 8000), &[b'x'; 1300]));
    assert_eq!(canonical(seen), (CLIENT, port).into());

    // The container itself is as closed as to any outsider.
    ip(lab.client(), &format!("route add {} via {HOST}", closed.ip()));
    assert!(lab.assert_dropped("not_published", || lab.client().tcp(closed)).is_err());

    ip(lab.client(), &format!("route del {}", closed.ip()));
    let made = link.host.iter().filter(|line| line.starts_with("link add"));
    for line in made.rev() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.iter().position(|w| *w == "name").map_or(words[2], |at| words[at + 1]);
        ip(lab.host(), &format!("link del {name}"));
    }
    ip(lab.host(), "link del port");
}
