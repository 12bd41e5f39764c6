//! Swarm's overlay networks: what containers publish there is served where `docker_gwbridge` joins them to the host.

use std::net::IpAddr;
use std::time::Duration;

use tests::sockets::{Talk, ask_when_up, is_silence};
use tests::{CLIENT, HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// The port is said to be served, and is: the client's address is kept.
fn is_served(lab: &Lab, port: u16) {
    wait_until(&format!("{port} is served"), SOON, || {
        let status = lab.status();
        let all = status["publications"].as_array().cloned().unwrap_or_default();
        let mut states = all.iter().filter(|p| p.to_string().contains(&port.to_string())).map(|p| &p["state"]);
        states.any(|state| state == "served")
    });
    let talk = lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, port)));
    assert_eq!(talk.seen(), talk.ours());
}

/// Addresses on `docker_gwbridge`, by the names that it has for those who are there.
fn on_gateway(lab: &Lab) -> Vec<(String, IpAddr)> {
    let template = "{{range .Containers}}{{.Name}} {{.IPv4Address}}\n{{end}}";
    let all = lab.docker(["network", "inspect", "--format", template, "docker_gwbridge"]).ok();
    let pair = |line: &str| {
        let (name, address) = line.split_once(' ')?;
        Some((name.to_owned(), address.split('/').next()?.parse().ok()?))
    };
    all.lines().filter_map(pair).collect()
}

#[test]
fn containers_on_overlay_networks_are_served_and_isolated() {
    let lab = Lab::builder("swarm").images(&[Image::Echo]).build();
    // The bridge comes while the daemon runs, and the Engine does not tell of it.
    let _up = lab.up(&["--isolate", "all"]);
    lab.docker(["swarm", "init", "--advertise-addr", "192.0.2.1", "--listen-addr", "192.0.2.1:2377"]).ok();
    lab.docker(["network", "create", "--driver=overlay", "--attachable", "--subnet=10.77.0.0/24", "over"]).ok();
    let first = lab.start("first", &["--network=over", "-p", "8001:7", "-p", "8001:7/udp", "echo"]);
    is_served(&lab, 8001);
    let (seen, port) = lab.assert_carried(|| ask_when_up(lab.client(), (HOST, 8001), b"words"));
    assert_eq!(seen, (CLIENT, port).into());

    let second = lab.run("second", &["--network=over", "echo"]);
    lab.runtime(["publish", "second", "8002:7"]).ok();
    is_served(&lab, 8002);
    Talk::when_up(&second.ns(), (first.ip_on("over"), 7));

    // Two containers, and the load balancer of the Engine's own.
    let addresses = on_gateway(&lab);
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    for (name, address) in &addresses {
        let reason = if name.contains("ingress") { "unknown_endpoint" } else { "not_published" };
        let error = lab.assert_dropped(reason, || lab.client().tcp((*address, 7))).expect_err("closed");
        assert!(is_silence(&error), "{name}: {error}");
    }
    let balancer = addresses.iter().find(|(name, _)| name.contains("ingress")).expect("the load balancer").1;
    // What the Engine's own rules carry goes on: the host reaches its load balancer.
    assert!(lab.host().run(["ping", "-n", "-c", "1", "-W", "1", &balancer.to_string()]).success());

    lab.docker(["restart", "-t", "0", "first"]).ok();
    is_served(&lab, 8001);
    assert_eq!(lab.status()["problems"].as_array().map(Vec::len), Some(0), "{}", lab.status()["problems"]);
}
