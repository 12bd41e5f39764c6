//! What containers begin with the outside, and conversations that would share a source port.

use std::net::{IpAddr, SocketAddr};

use tests::sockets::{Talk, ask, ask_once, ask_when_up, pings, serve};
use tests::{CLIENT, HOST, Image, Lab};

/// An echo server in the client's namespace.
const SERVER: &[&str] = &["tcp:0.0.0.0:9", "udp:0.0.0.0:9"];

/// Who masquerades the default bridge, as `status` says.
#[track_caller]
fn masqueraded_by(lab: &Lab) -> String {
    lab.status()["masquerade"]["bridge"].as_str().expect("a word").to_owned()
}

#[test]
fn without_dockers_rules_containers_reach_the_outside_under_the_hosts_address() {
    let lab = Lab::builder("masquerade").without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    assert_eq!(masqueraded_by(&lab), "runtime");
    let inside = lab.run("inside", &["echo"]);
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    let mut talk = Talk::when_up(&inside.ns(), (CLIENT, 9));
    assert_eq!(talk.seen(), (HOST, talk.ours().port()).into(), "the host's address, and the port kept");
    let before = lab.counters();
    talk.transfer(5_000_000, |_| ()).expect("a transfer");
    for size in [1, 777, 4000, 60_000] {
        assert_eq!(ask_when_up(&inside.ns(), (CLIENT, 9), &vec![b'x'; size]).0.ip(), HOST, "{size} bytes");
    }
    assert!(pings(&inside.ns(), CLIENT), "ping");
    let added = lab.counters().since(&before);
    assert!(added.packets("masqueraded") > 0 && added.packets("masqueraded_reply") > 0, "{added}");
    assert_eq!(added.packets("outbound"), 0, "{added}");
    // An error from outside finds its way back: a port where nobody listens.
    let socket = inside.ns().udp((CLIENT, 99)).expect("a socket");
    let refused = ask(&socket, b"?").expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // Nobody gets in that way.
    assert!(lab.assert_dropped("not_published", || lab.client().tcp(inside.at(7))).is_err());
}

#[test]
fn two_containers_with_one_source_port_are_told_apart() {
    let lab = Lab::builder("equal ports").without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let containers = ["one", "two"].map(|name| lab.run(name, &["echo"]));
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    Talk::when_up(&containers[0].ns(), (CLIENT, 9));
    let mut talks = containers.each_ref().map(|c| {
        let from = (c.ip(), 40_000).into();
        Talk::over(c.ns().tcp_from(from, (CLIENT, 9)).expect("a connection")).expect("a talk")
    });
    let seen = talks.each_ref().map(Talk::seen);
    assert_eq!(seen.map(|s| s.ip()), [IpAddr::from(HOST); 2]);
    assert_eq!(seen[0].port(), 40_000);
    assert_ne!(seen[0], seen[1]);
    for talk in &mut talks {
        talk.transfer(1_000_000, |_| ()).expect("a transfer");
    }
    let sockets =
        containers.each_ref().map(|c| c.ns().udp_from((c.ip(), 40_000).into(), (CLIENT, 9)).expect("a socket"));
    let seen = sockets.each_ref().map(|s| ask(s, b"words").expect("an answer"));
    assert_ne!(seen[0], seen[1]);
    assert_eq!(sockets.each_ref().map(|s| ask(s, b"again").expect("an answer")), seen);
}

#[test]
fn a_source_port_that_leads_back_is_kept() {
    let lab = Lab::builder("kept ports").without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let ports = ["-p", "40000:40000", "-p", "40000:40000/udp", "-p", "40001:7/udp"];
    let inside = lab.run("inside", &[&ports[..], &["echo"]].concat());
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    Talk::when_up(&inside.ns(), (CLIENT, 9));
    // The port is published, and leads to this very container.
    let from = SocketAddr::from((inside.ip(), 40_000));
    let talk = Talk::over(inside.ns().tcp_from(from, (CLIENT, 9)).expect("a connection")).expect("a talk");
    assert_eq!(talk.seen(), (HOST, 40_000).into());
    let socket = inside.ns().udp_from(from, (CLIENT, 9)).expect("a socket");
    assert_eq!(ask(&socket, b"words").expect("an answer"), (HOST, 40_000).into());
    // This one leads to another port.
    let socket = inside.ns().udp_from((inside.ip(), 40_001).into(), (CLIENT, 9)).expect("a socket");
    assert_ne!(ask(&socket, b"words").expect("an answer").port(), 40_001);
}

#[test]
fn a_port_of_the_hosts_own_is_left_to_the_host() {
    let lab = Lab::builder("the host's ports").without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let inside = lab.run("inside", &["echo"]);
    let log = lab.dir().join("peer.log");
    let _server = serve(lab.client(), &log, SERVER);
    let _own = serve(lab.host(), &lab.dir().join("own.log"), &["tcp:0.0.0.0:40000", "udp:0.0.0.0:40000"]);
    Talk::when_up(lab.client(), (HOST, 40_000));
    ask_when_up(lab.client(), (HOST, 40_000), b"up");
    Talk::when_up(&inside.ns(), (CLIENT, 9));
    let from = SocketAddr::from((inside.ip(), 40_000));
    let talk = Talk::over(inside.ns().tcp_from(from, (CLIENT, 9)).expect("a connection")).expect("a talk");
    // A socket that listens for connections begins none: the port can be kept. One of UDP may.
    assert_eq!(talk.seen(), (HOST, 40_000).into());
    let socket = inside.ns().udp_from(from, (CLIENT, 9)).expect("a socket");
    let seen = ask(&socket, b"words").expect("an answer");
    assert!(seen.ip() == HOST && seen.port() != 40_000, "{seen}");
}

#[test]
fn with_dockers_rules_nothing_is_masqueraded_twice() {
    let lab = Lab::builder("docker masquerades").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    assert_eq!(masqueraded_by(&lab), "host_rules");
    let inside = lab.run("inside", &["echo"]);
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    let before = lab.counters();
    assert_eq!(Talk::when_up(&inside.ns(), (CLIENT, 9)).seen().ip(), HOST);
    assert_eq!(ask_when_up(&inside.ns(), (CLIENT, 9), b"words").0.ip(), HOST);
    assert_eq!(lab.counters().since(&before).packets("masqueraded"), 0);
}

#[test]
fn asked_for_it_is_done_in_place_of_dockers_rules() {
    let lab = Lab::builder("masquerade on").images(&[Image::Echo]).build();
    let _up = lab.up(&["--masquerade", "on"]);
    assert_eq!(masqueraded_by(&lab), "runtime");
    let inside = lab.run("inside", &["echo"]);
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    let before = lab.counters();
    assert_eq!(Talk::when_up(&inside.ns(), (CLIENT, 9)).seen().ip(), HOST);
    assert!(lab.counters().since(&before).packets("masqueraded") > 0);
}

#[test]
fn switched_off_the_containers_own_address_goes_out() {
    let lab = Lab::builder("masquerade off").without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&["--masquerade", "off"]);
    assert_eq!(masqueraded_by(&lab), "nobody");
    let inside = lab.run("inside", &["echo"]);
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    // The client has a route back, by the host.
    assert_eq!(Talk::when_up(&inside.ns(), (CLIENT, 9)).seen().ip(), inside.ip());
}

#[test]
fn a_network_that_is_not_to_be_masqueraded_is_not() {
    let lab = Lab::builder("enable_ip_masquerade=false").without_iptables().images(&[Image::Echo]).build();
    let option = "com.docker.network.bridge.enable_ip_masquerade=false";
    lab.docker(["network", "create", "-o", option, "routed"]).ok();
    lab.docker(["network", "create", "--internal", "inner"]).ok();
    let _up = lab.up(&[]);
    for network in ["routed", "inner"] {
        assert_eq!(lab.status()["masquerade"][network], "nobody", "{network}");
    }
    let routed = lab.run("inside", &["--network", "routed", "echo"]);
    let _server = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    assert_eq!(Talk::when_up(&routed.ns(), (CLIENT, 9)).seen().ip(), routed.ip_on("routed"));
}

/// A container sends from a port that another one has published, and is answered.
fn datagrams_from_a_published_port(lab: &Lab) {
    lab.run("server", &["-p", "4000:7/udp", "echo"]);
    let inside = lab.run("inside", &["echo"]);
    let _outside = serve(lab.client(), &lab.dir().join("peer.log"), SERVER);
    ask_when_up(lab.client(), (HOST, 4000), b"published");
    ask_when_up(&inside.ns(), (CLIENT, 9), b"up");
    let socket = inside.ns().udp_from((inside.ip(), 4000).into(), (CLIENT, 9)).expect("a socket");
    for words in [&b"once"[..], b"twice", b"three times"] {
        assert_eq!(ask(&socket, words).expect("an answer to the one who asked").ip(), HOST);
    }
    let (seen, port) = ask_once(lab.client(), (HOST, 4000), b"still published").expect("an answer");
    assert_eq!(seen, (CLIENT, port).into());
}

#[test]
fn cilium_44348_outbound_udp_from_a_published_port_is_not_taken_for_inbound() {
    let lab = Lab::builder("cilium#44348").without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    datagrams_from_a_published_port(&lab);
}

#[test]
fn cilium_44348_outbound_udp_from_a_published_port_is_not_taken_for_inbound_under_dockers_rules() {
    let lab = Lab::builder("cilium#44348, Docker's rules").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    datagrams_from_a_published_port(&lab);
}

#[test]
fn one_client_port_reaches_two_host_ports_of_one_container() {
    let lab = Lab::builder("one client port").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8001:7", "-p", "8000:7/udp", "-p", "8001:7/udp", "echo"]);
    let sibling = lab.run("sibling", &["echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    // A client outside, a sibling, and the container itself: it sees itself as its network's gateway.
    let clients = [
        (lab.client().clone(), IpAddr::from(CLIENT), IpAddr::from(CLIENT)),
        (sibling.ns(), sibling.ip().into(), sibling.ip().into()),
        (server.ns(), server.ip().into(), IpAddr::from([172, 17, 0, 1])),
    ];
    for (ns, own, seen) in clients {
        let mut talks = [8000, 8001].map(|port| {
            let stream = ns.tcp_from((own, 40_000).into(), (HOST, port)).expect("a connection");
            Talk::over(stream).expect("a talk")
        });
        assert_eq!(talks.each_ref().map(|t| t.seen().ip()), [seen; 2]);
        assert_ne!(talks[0].seen(), talks[1].seen());
        for talk in &mut talks {
            talk.transfer(300_000, |_| ()).expect("a transfer");
        }
        let asked = [8000, 8001].map(|port| {
            let socket = ns.udp_from((own, 40_001).into(), (HOST, port));
            // One socket cannot be connected twice, and two cannot share a port: one after the other.
            ask(&socket.expect("a socket"), b"words").expect("an answer").ip()
        });
        assert_eq!(asked, [seen; 2]);
    }
}

/// A recipient may use one source port twice: over its link, and through the published port of the same source.
#[test]
fn a_link_and_a_published_port_of_one_container_are_told_apart() {
    let lab = Lab::builder("linked and published").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["-p", "8000:7", "echo"]);
    let recipient = lab.run("recipient", &["--link", "source:alias", "echo"]);
    Talk::when_up(&recipient.ns(), source.at(7));
    let ways = [source.at(7), (HOST, 8000).into()];
    for (first, port) in [(0, 40_000), (1, 41_000)] {
        let from = SocketAddr::from((recipient.ip(), port));
        let mut talks = [ways[first], ways[1 - first]]
            .map(|to| Talk::over(recipient.ns().tcp_from(from, to).expect("a connection")).expect("a talk"));
        assert_ne!(talks[0].seen(), talks[1].seen());
        for talk in &mut talks {
            talk.transfer(1_000_000, |_| ()).expect("a transfer");
        }
    }
}
