//! A port of a network's bridge that is no container's: a network card, the tap of a virtual machine, here a VXLAN. Who is behind it
//! is outside.

use std::net::Ipv4Addr;

use tests::sockets::{Talk, is_silence, serve};
use tests::{CLIENT, HOST, Image, Lab};

/// The machine's behind the port, in the network's own subnet.
const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

/// Gives the network's bridge a port that leads to the client, whose interface there has this address.
fn join(lab: &Lab, address: Ipv4Addr) {
    for (ns, [local, remote]) in [(lab.host(), [HOST, CLIENT]), (lab.client(), [CLIENT, HOST])] {
        let line = format!("ip link add vx7 type vxlan id 7 dstport 4789 local {local} remote {remote} dev eth0");
        ns.run(line.split(' ')).ok();
    }
    lab.host().run(["ip", "link", "set", "vx7", "master", "lan0", "up"]).ok();
    lab.client().run(["ip", "address", "add", &format!("{address}/24"), "dev", "vx7"]).ok();
    lab.client().run(["ip", "link", "set", "vx7", "up"]).ok();
}

#[test]
fn a_router_in_an_isolated_networks_prefix_that_is_not_the_host_is_reached() {
    let lab = Lab::builder("external gateway").images(&[Image::Echo]).build();
    if lab.engine().is_podman() {
        return eprintln!("skipped: Podman's bridges have their gateway's address");
    }
    let network = ["--subnet=10.77.0.0/24", "--gateway=10.77.0.1", "--label=runtime.isolate=true"];
    let options = ["-o=com.docker.network.bridge.name=lan0", "-o=com.docker.network.bridge.inhibit_ipv4=true"];
    lab.docker(["network", "create"].into_iter().chain(network).chain(options).chain(["lan"])).ok();
    join(&lab, Ipv4Addr::new(10, 77, 0, 1));
    // Beyond it, and not by the host's own routes.
    let beyond = Ipv4Addr::new(198, 51, 100, 1);
    lab.client().run(["ip", "address", "add", &format!("{beyond}/32"), "dev", "lo"]).ok();
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), &["tcp:0.0.0.0:9"]);
    let _up = lab.up(&[]);
    let inside = lab.start("inside", &["--network=lan", "echo"]);
    let mut talk = Talk::when_up(&inside.ns(), (beyond, 9));
    assert_eq!(talk.seen().ip(), inside.ip_on("lan"), "nobody translates what the host does not route");
    talk.transfer(1_000_000, |_| ()).expect("a transfer");
}

#[test]
fn who_is_behind_a_port_of_an_isolated_networks_bridge_is_outside() {
    let lab = Lab::builder("bridge port").images(&[Image::Echo]).build();
    let network = ["--subnet=10.77.0.0/24", "--label=runtime.isolate=true", "-o=com.docker.network.bridge.name=lan0"];
    lab.docker(["network", "create"].into_iter().chain(network).chain(["lan"])).ok();
    join(&lab, MACHINE);
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), &["tcp:0.0.0.0:9"]);
    let inside = lab.start("inside", &["--network=lan", "echo"]);

    // As with Docker alone, containers reach him; but not the other way round.
    let mut talk = Talk::when_up(&inside.ns(), (MACHINE, 9));
    let up = lab.up(&[]);
    talk.say(b"older than the datapath").expect("an echo");
    let mut talk = Talk::open(&inside.ns(), (MACHINE, 9)).expect("the machine behind the port");
    assert_eq!(talk.seen().ip(), inside.ip_on("lan"));
    talk.transfer(1_000_000, |_| ()).expect("a transfer");
    let closed = (inside.ip_on("lan"), 7);
    let error = lab.assert_dropped("not_published", || lab.client().tcp(closed)).expect_err("not published");
    assert!(is_silence(&error), "{error}");
    up.stop();
    lab.down();
    lab.client().tcp(closed).expect("Docker alone closes nothing there");
}
