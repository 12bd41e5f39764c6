//! Published ports, asked from outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tests::frames::{Way, Wire};
use tests::sockets::{Talk, ask, ask_once, ask_when_up};
use tests::{CLIENT, CLIENT2, HOST, HOST2, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A server on ports 7000 to 7002, TCP, and 7000, UDP.
const SERVER: &[&str] =
    &["echo", "peer", "tcp:0.0.0.0:7000", "tcp:0.0.0.0:7001", "tcp:0.0.0.0:7002", "udp:0.0.0.0:7000"];

#[test]
fn every_form_of_publish_is_served() {
    /// What `-p` is given, the container port asked about, where it must answer (port 0: whatever `port` names), and where not.
    struct Row(&'static str, &'static str, &'static [(Ipv4Addr, u16)], &'static [(Ipv4Addr, u16)]);
    const TABLE: &[Row] = &[
        Row("7000", "7000/tcp", &[(HOST, 0), (HOST2, 0)], &[(HOST, 7000)]),
        Row("8000:7000", "7000/tcp", &[(HOST, 8000), (HOST2, 8000)], &[(HOST, 7000)]),
        Row("8000:7000/tcp", "7000/tcp", &[(HOST, 8000)], &[]),
        Row("192.0.2.1:8000:7000", "7000/tcp", &[(HOST, 8000)], &[(HOST2, 8000)]),
        Row("198.51.100.1::7000", "7000/tcp", &[(HOST2, 0)], &[(HOST, 0)]),
        Row("0.0.0.0:8000:7000", "7000/tcp", &[(HOST, 8000), (HOST2, 8000)], &[]),
        Row("127.0.0.1:8000:7000", "7000/tcp", &[], &[(HOST, 8000), (HOST2, 8000)]),
        Row("8000:7000/udp", "7000/udp", &[(HOST, 8000), (HOST2, 8000)], &[(HOST, 7000)]),
        Row("8000-8002:7000-7002", "7001/tcp", &[(HOST, 8000), (HOST, 8001), (HOST, 8002)], &[(HOST, 8003)]),
        Row("8000-8002:7000", "7000/tcp", &[(HOST, 0)], &[(HOST, 7999), (HOST, 8003)]),
    ];
    let lab = Lab::builder("-p forms").second_uplink().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    for Row(spec, port, answers, silent) in TABLE {
        let args: Vec<_> = ["-p", spec].iter().chain(SERVER).copied().collect();
        let server = lab.run("server", &args);
        let udp = port.ends_with("/udp");
        let inside = SocketAddr::from((server.ip(), 7000));
        Talk::when_up(lab.host(), inside);
        let listed = lab.runtime(["port", "server", port]).ok();
        let chosen = listed.lines().find_map(|l| l.parse::<SocketAddr>().ok().filter(SocketAddr::is_ipv4));
        let chosen = chosen.unwrap_or_else(|| panic!("-p {spec}: port lists {listed:?}")).port();
        let target = |(address, port): &(Ipv4Addr, u16)| (*address, if *port == 0 { chosen } else { *port });
        for at in answers.iter().map(target) {
            let answer = if udp {
                ask_once(lab.client(), at, b"words").map(|(seen, _)| seen)
            } else {
                Talk::open(lab.client(), at).map(|t| t.seen())
            };
            let seen = answer.unwrap_or_else(|e| panic!("-p {spec}: {at:?} does not answer: {e}"));
            assert_eq!(seen.ip(), IpAddr::from(CLIENT), "-p {spec}: the client's address is lost");
        }
        for at in silent.iter().map(target) {
            let answered =
                if udp { ask_once(lab.client(), at, b"words").is_ok() } else { Talk::open(lab.client(), at).is_ok() };
            assert!(!answered, "-p {spec}: {at:?} answers");
        }
        lab.docker(["rm", "-f", "server"]).ok();
    }
}

#[test]
fn publish_all_serves_each_exposed_port_at_a_random_one() {
    let lab = Lab::builder("-P").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run(
        "server",
        &["-P", "--expose", "7000", "echo", "peer", "tcp:0.0.0.0:7", "udp:0.0.0.0:7", "tcp:0.0.0.0:7000"],
    );
    let port = |port: &str| -> SocketAddr {
        let listed = lab.runtime(["port", "server", port]).ok();
        listed.lines().next().and_then(|l| l.parse().ok()).unwrap_or_else(|| panic!("port {port} lists {listed:?}"))
    };
    Talk::when_up(lab.client(), (HOST, port("7/tcp").port())).say(b"tcp").expect("an echo");
    Talk::when_up(lab.client(), (HOST, port("7000").port())).say(b"exposed").expect("an echo");
    ask_when_up(lab.client(), (HOST, port("7/udp").port()), b"udp");
    let all = lab.runtime(["port", "server"]).ok();
    assert!(all.lines().any(|l| l.starts_with("7/udp -> ")), "{all}");
}

#[test]
fn two_clients_at_once_are_told_apart() {
    let lab = Lab::builder("two clients").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "7:7", "-p", "7:7/udp", "echo"]);
    Talk::when_up(lab.client(), (HOST, 7));
    // Both from the same port.
    let open = |ns: &tests::Netns, from: Ipv4Addr| {
        Talk::over(ns.tcp_from((from, 40000).into(), (HOST, 7)).expect("a connection")).expect("a talk")
    };
    lab.assert_carried(|| {
        let (mut one, mut two) = (open(lab.client(), CLIENT), open(lab.client2(), CLIENT2));
        assert_eq!(one.seen(), (CLIENT, 40000).into());
        assert_eq!(two.seen(), (CLIENT2, 40000).into());
        std::thread::scope(|scope| {
            let a = scope.spawn(|| one.transfer(3_000_000, |_| ()));
            let b = scope.spawn(|| two.transfer(3_000_000, |_| ()));
            a.join().expect("a thread").expect("the first transfer");
            b.join().expect("a thread").expect("the second transfer");
        });
    });
    let one = lab.client().udp_from((CLIENT, 40000).into(), (HOST, 7)).expect("a socket");
    let two = lab.client2().udp_from((CLIENT2, 40000).into(), (HOST, 7)).expect("a socket");
    for words in [&b"once"[..], b"twice"] {
        assert_eq!(ask(&one, words).expect("an answer"), (CLIENT, 40000).into());
        assert_eq!(ask(&two, words).expect("an answer"), (CLIENT2, 40000).into());
    }
}

#[test]
fn udp_finds_the_container_after_its_restart_at_another_address() {
    let lab = Lab::builder("udp after a restart").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "53:7/udp", "echo"]);
    ask_when_up(lab.client(), (HOST, 53), b"first");
    // One socket all along: a new one would be a new flow, and prove nothing.
    let socket = lab.client().udp((HOST, 53)).expect("a socket");
    let ours = SocketAddr::from((CLIENT, socket.local_addr().expect("its address").port()));
    assert_eq!(ask(&socket, b"before").expect("an answer"), ours);
    lab.move_container(&server);
    wait_until("the same socket is answered again", SOON, || ask(&socket, b"after").is_ok_and(|seen| seen == ours));
    lab.docker(["restart", "-t", "0", "server"]).ok();
    wait_until("and after a plain restart", SOON, || ask(&socket, b"again").is_ok());
}

#[test]
fn a_loopback_publication_is_not_reachable_from_the_lan() {
    let lab = Lab::builder("loopback").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "127.0.0.1:7:7", "-p", "127.0.0.1:7:7/udp", "echo"]);
    Talk::when_up(lab.host(), server.at(7));
    assert!(Talk::open(lab.client(), (HOST, 7)).is_err());
    assert!(ask_once(lab.client(), (HOST, 7), b"?").is_err());
    // A neighbour can put any destination address on the wire.
    let wire = Wire::open(lab.client(), "eth0");
    let (from_mac, to_mac) = (lab.client().mac("eth0"), lab.host().mac("eth0"));
    let knock = |to: Ipv4Addr, port: u16| {
        wire.send(&Way { from_mac, to_mac, from: CLIENT, to }.syn(40000, port));
        // To us, TCP, and to the port that we asked from.
        let answer = |f: &[u8]| f[..6] == from_mac && f[23] == 6 && f[36..38] == 40000u16.to_be_bytes();
        wire.find(Duration::from_millis(300), answer).is_some()
    };
    lab.run("open", &["-p", "8:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8));
    assert!(knock(HOST, 8), "a frame made by hand is answered where a port is published");
    let answered = lab.assert_dropped("loopback", || knock(Ipv4Addr::LOCALHOST, 7));
    assert!(!answered, "127.0.0.1 answers from the LAN");
}

#[test]
fn a_sibling_reaches_a_published_port_through_the_hosts_address() {
    let lab = Lab::builder("sibling").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    let sibling = lab.run("sibling", &["echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    Talk::open(&sibling.ns(), (HOST, 8000)).expect("a talk").say(b"hello").expect("an echo");
    assert!(lab.assert_dropped("not_linked", || sibling.ns().tcp(server.at(7))).is_err());
}

#[test]
fn containers_reach_the_outside_through_dockers_rules() {
    let lab = Lab::builder("outside").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let inside = lab.run("inside", &["echo"]);
    let peer = tests::sockets::serve(lab.client(), &lab.dir().join("peer.log"), &["tcp:0.0.0.0:9", "udp:0.0.0.0:9"]);
    let mut talk = Talk::when_up(&inside.ns(), (CLIENT, 9));
    assert_eq!(talk.seen().ip(), HOST);
    talk.transfer(1_000_000, |_| ()).expect("a transfer");
    assert_eq!(ask_when_up(&inside.ns(), (CLIENT, 9), b"words").0.ip(), HOST);
    drop(peer);
}

#[test]
fn datagrams_in_fragments_arrive_and_are_answered() {
    let lab = Lab::builder("fragments").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "53:7/udp", "echo"]);
    ask_when_up(lab.client(), (HOST, 53), b"whole");
    for size in [1473, 4000, 60_000] {
        let (seen, port) = lab
            .assert_carried(|| ask_once(lab.client(), (HOST, 53), &vec![b'x'; size]))
            .unwrap_or_else(|e| panic!("{size} bytes are not answered: {e}"));
        assert_eq!(seen, (CLIENT, port).into());
    }
}
