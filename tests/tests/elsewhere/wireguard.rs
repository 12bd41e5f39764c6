//! WireGuard between the client and the host: an uplink whose packets begin with their IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tests::sockets::{Talk, ask_when_up, is_silence};
use tests::{HOST, Lab, Netns, wait_until};

use crate::{SOON, canonical};

/// Host and client inside of the tunnel.
const INSIDE: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2))),
    (IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2))),
];

fn sh(ns: &Netns, script: &str) -> String {
    ns.run(["sh", "-ec", script]).ok()
}

/// Ports 8000 of TCP and UDP are reached through the tunnel, which comes while the daemon runs and goes afterwards;
/// the server's own addresses are not.
pub fn serves(lab: &Lab, containers: [IpAddr; 2]) {
    let (host, client) = (lab.host(), lab.client());
    let dir = lab.dir().display();
    let key = |of: &str| sh(host, &format!("umask 077; wg genkey > {dir}/{of}.key; wg pubkey < {dir}/{of}.key"));
    let (hosts, clients) = (key("host"), key("client"));
    sh(
        host,
        &format!(
            "ip link add wg0 type wireguard
             wg set wg0 listen-port 51820 private-key {dir}/host.key peer {clients} allowed-ips {},{}
             ip address add {}/24 dev wg0; ip address add {}/64 dev wg0 nodad; ip link set wg0 up",
            INSIDE[0].1, INSIDE[1].1, INSIDE[0].0, INSIDE[1].0
        ),
    );
    sh(
        client,
        &format!(
            "ip link add wg0 type wireguard
             wg set wg0 private-key {dir}/client.key peer {hosts} endpoint {HOST}:51820 allowed-ips {},{},{},{}
             ip address add {}/24 dev wg0; ip address add {}/64 dev wg0 nodad; ip link set wg0 up
             ip route add {} dev wg0; ip route add {} dev wg0",
            INSIDE[0].0,
            INSIDE[1].0,
            containers[0],
            containers[1],
            INSIDE[0].1,
            INSIDE[1].1,
            containers[0],
            containers[1]
        ),
    );
    let hooks = || {
        let status = lab.status();
        let all = status["hooks"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|h| h["interface"] == "wg0").map(|h| h["hook"].clone()).collect::<Vec<_>>()
    };
    wait_until("a program stands on the tunnel", SOON, || hooks() == ["uplink_tunnel"]);
    for ((inside, ours), container) in INSIDE.into_iter().zip(containers) {
        let to = SocketAddr::new(inside, 8000);
        let mut talk = Talk::when_up(client, to);
        lab.assert_carried(|| talk = Talk::when_up(client, to));
        assert_eq!(canonical(talk.seen()), talk.ours());
        talk.transfer(300_000, |_| ()).unwrap_or_else(|e| panic!("a transfer to {to}: {e}"));
        let (seen, port) = lab.assert_carried(|| ask_when_up(client, to, &[b'x'; 1200]));
        assert_eq!(canonical(seen), (ours, port).into());
        // The container itself is as closed as to any outsider.
        let closed = SocketAddr::new(container, 7);
        let error = lab.assert_dropped("not_published", || client.tcp(closed)).expect_err("not published");
        assert!(is_silence(&error), "{error}");
    }
    let status = lab.status();
    let states: Vec<_> = status["publications"].as_array().into_iter().flatten().map(|p| &p["state"]).collect();
    assert!(!states.is_empty() && states.iter().all(|state| **state == "served"), "{status}");
    assert!(!status["problems"].to_string().contains("wg0"), "{}", status["problems"]);
    sh(client, "ip link del wg0");
    sh(host, "ip link del wg0");
    wait_until("nothing is said of a tunnel that is gone", SOON, || hooks().is_empty());
}
