//! Ends of connections and ICMP errors that somebody has made up who is no part of the conversation: by the sockets that would suffer.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use runtime_common::maps::{FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow, FlowKey};
use runtime_common::packet::TCP;
use tests::frames::{Way, Wire, change_sequence};
use tests::sockets::{Talk, ask, serve, uninterrupted};
use tests::{CLIENT, HOST, Image, Lab, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Both directions of the TCP conversation of a client's port, as the kernel side has them: the forward one first.
fn flows(lab: &Lab, port: u16) -> Vec<Flow> {
    let map = MapData::from_pin(lab.pins().join("maps/FLOWS")).expect("the pinned map");
    let map: HashMap<_, FlowKey, Flow> = HashMap::try_from(Map::HashMap(map)).expect("a hash map");
    let is_its = |key: &FlowKey| key.protocol == TCP && [key.tuple.sport, key.tuple.dport].contains(&port.to_be());
    let mut found: Vec<Flow> = map.iter().filter_map(Result::ok).filter(|(k, _)| is_its(k)).map(|(_, f)| f).collect();
    found.sort_by_key(|f| f.state & FLOW_REPLY);
    found
}

/// What has been said about the end of a conversation, by either side.
fn ends(lab: &Lab, port: u16) -> Vec<u8> {
    flows(lab, port).iter().map(|f| f.state & (FLOW_FIN | FLOW_RST)).collect()
}

/// A connection that is reset as soon as it is dropped.
fn abrupt(lab: &Lab) -> TcpStream {
    let stream = lab.client().tcp((HOST, 7)).expect("a connection");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    stream
}

#[test]
fn blind_resets_end_no_connection_and_a_true_one_does() {
    let lab = Lab::builder("forged resets").client2().images(&[Image::Echo]).without_client_offloads().build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "7:7", "echo"]);
    let stranger = lab.run("stranger", &["echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST, 7));
    talk.say(b"hello").expect("an echo");
    let port = talk.ours().port();
    assert_eq!(ends(&lab, port), [0, 0]);

    // From the LAN, in the client's name, all over the numbers and never at the one that is expected: some are within the window.
    let expected = flows(&lab, port)[1].ack;
    let lan = Way { from_mac: lab.client2().mac("eth0"), to_mac: lab.host().mac("eth0"), from: CLIENT, to: HOST };
    let wire = Wire::open(lab.client2(), "eth0");
    let mut sequence = expected.wrapping_add(1);
    wire.flood(&lan.reset(port, 7, sequence), 1 << 17, |frame| {
        sequence = sequence.wrapping_add(1 << 15);
        change_sequence(frame, sequence);
    });
    // Behind a segment that acknowledges what nobody has sent, as if the client had sent it just before.
    let acknowledged = flows(&lab, port)[0].ack.wrapping_add(1 << 31);
    for number in (1..64).map(|n| expected.wrapping_add(n * 1_000)) {
        wire.send(&lan.acknowledgement(port, 7, number, acknowledged));
        wire.send(&lan.reset(port, 7, number));
    }
    wire.send(&lan.syn(port, 7));
    // From an unlinked container, in the client's name and in its own.
    let (from_mac, to_mac) = (stranger.ns().mac("eth0"), server.ns().mac("eth0"));
    let inside = Way { from_mac, to_mac, from: CLIENT, to: server.ip() };
    let wire = Wire::open(&stranger.ns(), "eth0");
    lab.assert_dropped("spoofed_address", || wire.send(&inside.reset(port, 7, expected)));
    let own = Way { from: stranger.ip(), ..inside };
    lab.assert_dropped("not_linked", || wire.send(&own.reset(port, 7, expected)));

    talk.say(b"still here").expect("an echo after blind resets");
    assert_eq!(ends(&lab, port), [0, 0], "blind resets are remembered");
    assert!(Talk::open(lab.client(), (HOST, 7)).is_ok(), "no new connection after blind resets");

    // The same frame with the number that the server expects, and the end of a connection by its own client.
    let expected = flows(&lab, port)[1].ack;
    Wire::open(lab.client2(), "eth0").send(&lan.reset(port, 7, expected));
    wait_until("the exact number counts", SOON, || ends(&lab, port) == [FLOW_RST, 0]);
    talk.say(b"gone").expect_err("the server has forgotten the connection");
    let stream = abrupt(&lab);
    let port = stream.local_addr().expect("its address").port();
    wait_until("the connection stands", SOON, || ends(&lab, port) == [0, 0]);
    drop(stream);
    wait_until("its reset counts", SOON, || ends(&lab, port) == [FLOW_RST, 0]);
    let left = server.ns().run(["ss", "-Htn", "state", "established", &format!("dport = :{port}")]).ok();
    assert_eq!(left.trim(), "", "the server still has the connection");
}

/// A container that asks a server outside, and what may be said to it about that.
struct Asking {
    _up: tests::Up,
    lab: Lab,
    asker: tests::Container,
    stranger: tests::Container,
    socket: UdpSocket,
}

const SERVER: u16 = 9;
const OWN: u16 = 9000;

impl Asking {
    fn new(title: &str) -> Self {
        let builder = Lab::builder(title).client2().images(&[Image::Echo]).without_client_offloads();
        let lab = builder.without_iptables().build();
        let up = lab.up(&[]);
        let asker = lab.start("asker", &["busybox", "sleep", "100000"]);
        let stranger = lab.start("stranger", &["busybox", "sleep", "100000"]);
        let from = SocketAddr::from((asker.ip(), OWN));
        let socket = asker.ns().udp_from(from, (CLIENT, SERVER)).expect("a socket in the container");
        Asking { _up: up, lab, asker, stranger, socket }
    }

    /// Asks, and tells under which port the server sees the container.
    #[track_caller]
    fn ask(&self) -> u16 {
        let seen = wait_for(SOON, || ask(&self.socket, &[b'?'; 200]).ok());
        let seen = seen.expect("the server's answer");
        assert_eq!(seen.ip().to_canonical(), HOST, "the container is not masqueraded");
        seen.port()
    }

    /// Whether the container's socket was told of an error, or its route of an MTU.
    #[track_caller]
    fn heard_nothing(&self, what: &str) {
        std::thread::sleep(Duration::from_millis(100));
        let error = self.socket.take_error().expect("a socket option");
        assert!(error.is_none(), "{what}: the socket was told: {error:?}");
        let route = self.asker.ns().run(["ip", "route", "get", &CLIENT.to_string()]).ok();
        assert!(!route.contains("mtu"), "{what}: {route}");
    }
}

#[test]
fn forged_errors_reach_no_socket_and_no_route() {
    let a = Asking::new("forged errors");
    let answers = serve(a.lab.client(), &a.lab.dir().join("peer.log"), &["udp:[::]:9"]);
    let seen = a.ask();
    let (from_mac, to_mac) = (a.lab.client2().mac("eth0"), a.lab.host().mac("eth0"));
    let lan = Way { from_mac, to_mac, from: Ipv4Addr::new(192, 0, 2, 3), to: HOST };
    let wire = Wire::open(a.lab.client2(), "eth0");
    let quoted =
        |from: Ipv4Addr, port: u16, len: usize| Way { from, to: CLIENT, ..lan }.udp(port, SERVER, &vec![b'?'; len]);
    let refused = |what: &str, wire: &Wire, frame: &[u8]| {
        a.lab.assert_dropped("icmp_error", || wire.send(frame));
        a.heard_nothing(what);
    };
    // From a neighbour of the host who guesses.
    wire.send(&lan.unreachable(3, 0, &quoted(HOST, seen ^ 1, 200)));
    a.heard_nothing("about another port");
    refused("a small MTU for small datagrams", &wire, &lan.unreachable(4, 552, &quoted(HOST, seen, 200)));
    refused("an MTU that IPv4 does not know", &wire, &lan.unreachable(4, 67, &quoted(HOST, seen, 200)));
    refused("a kilobyte of payload", &wire, &lan.unreachable(3, 0, &quoted(HOST, seen, 1000)));
    let straight = Way { to: a.asker.ip(), ..lan };
    let untranslated = quoted(a.asker.ip(), OWN, 200);
    refused("what nobody outside sees", &wire, &straight.unreachable(3, 0, &untranslated));
    // From an unlinked container that knows everything.
    let wire = Wire::open(&a.stranger.ns(), "eth0");
    let (from_mac, to_mac) = (a.stranger.ns().mac("eth0"), a.asker.ns().mac("eth0"));
    let inside = Way { from_mac, to_mac, from: a.stranger.ip(), to: a.asker.ip() };
    refused("from another container", &wire, &inside.unreachable(3, 0, &untranslated));
    refused("an MTU from another container", &wire, &inside.unreachable(4, 552, &untranslated));
    let to_host = Way { to_mac: a.lab.host().mac("docker0"), to: HOST, ..inside };
    refused("to the host, about another's", &wire, &to_host.unreachable(3, 0, &quoted(HOST, seen, 200)));
    a.ask();
    // The server's own host says the same where it is true.
    drop(answers);
    let told = wait_for(SOON, || {
        let _ = a.socket.send(b"anybody there?");
        match uninterrupted(|| a.socket.recv(&mut [0; 300])) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Some(()),
            _ => None,
        }
    });
    assert!(told.is_some(), "no true error reaches the container's socket");
}
