//! Published ports, asked by the host's own processes: no proxy, and for most of these tests no rule of iptables either.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tests::dial::{How, dial, exchange, unconnected, wildcard};
use tests::sockets::{Talk, ask, ask_when_up, bind_udp, uninterrupted};
use tests::{Builder, HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// The host's address on the LAN, and on Docker's network: what a server sees of a client on the host.
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 1);

/// An echo server of both families.
const SERVER: &[&str] = &["echo", "peer", "tcp:[::]:7", "udp:[::]:7"];

/// Docker does nothing for published ports, and its network has both families.
fn alone(title: &str) -> Builder {
    Lab::builder(title)
        .images(&[Image::Echo])
        .without_iptables()
        .engine_arg("--ipv6")
        .engine_arg("--fixed-cidr-v6=2001:db8:d::/64")
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    (ip.into(), port).into()
}

fn gateway(of: &SocketAddr) -> IpAddr {
    if of.ip().to_canonical().is_ipv4() { GATEWAY.into() } else { GATEWAY6.into() }
}

/// What a local server would have named as its address.
fn named(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(a) if a.is_unspecified() => at(Ipv4Addr::LOCALHOST, to.port()),
        IpAddr::V6(a) if a.is_unspecified() => at(Ipv6Addr::LOCALHOST, to.port()),
        _ => to,
    }
}

/// Publications of every kind on one server: wildcard 8000, one address 8001, loopback 8002, each for TCP and UDP.
fn published() -> Vec<String> {
    let specs = ["8000:7", "192.0.2.1:8001:7", "[2001:db8::1]:8001:7", "127.0.0.1:8002:7", "[::1]:8002:7"];
    let both = specs.iter().flat_map(|s| [(*s).to_owned(), format!("{s}/udp")]);
    both.flat_map(|s| ["-p".to_owned(), s]).collect()
}

fn start_server(lab: &Lab) -> tests::Container {
    let specs = published();
    let words: Vec<&str> = specs.iter().map(String::as_str).chain(SERVER.iter().copied()).collect();
    let server = lab.run("server", &words);
    // Addresses of IPv6 are usable only after a moment, the host's own on the network included.
    for address in [IpAddr::from(server.ip()), server.ip6().into()] {
        Talk::when_up(lab.host(), (address, 7));
    }
    server
}

#[test]
fn every_address_of_the_host_serves_its_publications() {
    let lab = alone("host processes").build();
    let _up = lab.up(&[]);
    start_server(&lab);
    let (lo, lo6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let (any, any6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let answers = [
        at(lo, 8000),
        at(Ipv4Addr::new(127, 0, 0, 2), 8000),
        at(any, 8000),
        at(HOST, 8000),
        at(GATEWAY, 8000),
        at(lo6, 8000),
        at(any6, 8000),
        at(HOST6, 8000),
        at(GATEWAY6, 8000),
        // IPv4 through a socket of IPv6.
        at(lo.to_ipv6_mapped(), 8000),
        at(HOST, 8001),
        at(HOST6, 8001),
        at(lo, 8002),
        at(any, 8002),
        at(lo6, 8002),
        at(any6, 8002),
    ];
    let silent = [at(lo, 8001), at(GATEWAY, 8001), at(lo6, 8001), at(HOST, 8002), at(HOST6, 8002), at(lo, 8003)];
    for how in [How::Tcp, How::Connected, How::Unconnected] {
        for to in answers {
            let shown = lab.assert_carried(|| dial(lab.host(), how, None, to));
            let shown = shown.unwrap_or_else(|e| panic!("{how:?}: {to} does not answer: {e}"));
            assert_eq!(shown.client, SocketAddr::new(gateway(&to), shown.ours), "{how:?} to {to}: the server sees");
            assert_eq!(shown.peer, named(to), "{how:?} to {to}: the client sees");
        }
        for to in silent {
            assert!(dial(lab.host(), how, None, to).is_err(), "{how:?}: {to} answers");
        }
    }
}

#[test]
fn a_loopback_publication_is_reachable_from_the_host_alone() {
    let lab = alone("loopback publication").build();
    let _up = lab.up(&[]);
    start_server(&lab);
    let sibling = lab.run("sibling", &["echo"]);
    for how in [How::Tcp, How::Connected, How::Unconnected] {
        dial(lab.host(), how, None, at(Ipv4Addr::LOCALHOST, 8002)).unwrap_or_else(|e| panic!("{how:?}: {e}"));
        dial(lab.host(), how, None, at(Ipv6Addr::LOCALHOST, 8002)).unwrap_or_else(|e| panic!("{how:?}: {e}"));
        for ns in [lab.client(), &sibling.ns()] {
            for to in [at(HOST, 8002), at(HOST6, 8002), at(Ipv4Addr::LOCALHOST, 8002), at(Ipv6Addr::LOCALHOST, 8002)] {
                assert!(dial(ns, how, None, to).is_err(), "{how:?}: {to} answers others");
            }
        }
    }
}

#[test]
fn containers_on_the_hosts_network_are_included_and_others_are_not() {
    let lab = alone("network host").build();
    let _up = lab.up(&[]);
    start_server(&lab);
    let own = lab.run("own", &["echo"]);
    lab.start("shared", &["--network", "host", "busybox", "sleep", "100000"]);
    let ask = |name: &str| lab.container(name).exec(["sh", "-c", "echo words | nc -w 2 127.0.0.1 8000"]).stdout;
    let heard = ask("shared");
    assert!(heard.starts_with(&format!("peer [::ffff:{GATEWAY}]:")) && heard.ends_with("words\n"), "{heard:?}");
    let before = lab.counters();
    assert_eq!(ask("own"), "");
    for how in [How::Tcp, How::Connected, How::Unconnected] {
        for to in [at(Ipv4Addr::LOCALHOST, 8000), at(Ipv6Addr::LOCALHOST, 8000), at(Ipv4Addr::UNSPECIFIED, 8000)] {
            assert!(dial(&own.ns(), how, None, to).is_err(), "{how:?}: {to} answers inside a container");
        }
    }
    assert_eq!(lab.counters().packets("host_redirected"), before.packets("host_redirected"));
}

#[test]
fn what_is_taken_away_refuses() {
    let lab = alone("unpublish").build();
    let _up = lab.up(&[]);
    start_server(&lab);
    let to = at(Ipv4Addr::LOCALHOST, 8000);
    let socket = unconnected(lab.host(), wildcard(&to)).expect("a socket");
    exchange(&socket, to, b"before").expect("an answer");
    lab.runtime(["unpublish", "server", "8000:7"]).ok();
    lab.runtime(["unpublish", "server", "8000:7/udp"]).ok();
    for to in [to, at(Ipv6Addr::LOCALHOST, 8000), at(HOST, 8000)] {
        for how in [How::Tcp, How::Connected, How::Unconnected] {
            let error = lab.assert_dropped("unpublished", || dial(lab.host(), how, None, to)).expect_err("closed");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{how:?} to {to}: {error}");
        }
    }
    let error = exchange(&socket, to, b"after").expect_err("closed for old sockets too");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    lab.runtime(["publish", "server", "8000:7/udp"]).ok();
    exchange(&socket, to, b"again").expect("an answer");
}

#[test]
fn datagrams_follow_a_container_to_another_address() {
    let lab = alone("udp follows").build();
    let _up = lab.up(&[]);
    let server = start_server(&lab);
    let old = server.at(7);
    let to = at(Ipv4Addr::LOCALHOST, 8000);
    let socket = unconnected(lab.host(), wildcard(&to)).expect("a socket");
    assert_eq!(exchange(&socket, to, b"before").expect("an answer").1, to);
    lab.move_container(&server);
    wait_until("the same socket is answered again", SOON, || {
        exchange(&socket, to, b"after").is_ok_and(|(_, from)| from == to)
    });
    ask_when_up(lab.host(), to, b"a socket that connects now");
    // Whoever has the old address now is not taken for the publication.
    lab.docker(["rm", "-f", &format!("filler-{}", old.ip().to_string().rsplit_once('.').expect("a dot").1)]).ok();
    let heir = lab.run("heir", &["busybox", "sleep", "100000"]);
    assert_eq!(heir.at(7), old, "the Engine gives the heir another address");
    let ours = at(GATEWAY, socket.local_addr().expect("its address").port());
    let stranger = heir.ns().within(|| bind_udp((Ipv4Addr::UNSPECIFIED, old.port()))).expect("a socket");
    stranger.send_to(b"unasked", ours).expect("it is sent");
    assert_eq!(uninterrupted(|| socket.recv_from(&mut [0; 2048])).expect("a datagram").1, old);
}

#[test]
fn cilium_48096_connected_sockets_are_told_when_their_container_goes() {
    let lab = alone("connected sockets").build();
    let _up = lab.up(&[]);
    let server = start_server(&lab);
    for lo in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let to = at(lo, 8000);
        let udp = lab.host().udp(to).expect("a socket");
        let beside = lab.host().udp((server.ip(), 7)).expect("a socket");
        let mut talk = Talk::over(lab.host().tcp(to).expect("a connection")).expect("a talk");
        let mut direct = Talk::open(lab.host(), server.at(7)).expect("a talk");
        ask(&udp, b"before").expect("an answer");
        lab.runtime(["unpublish", "server", "8000:7"]).ok();
        lab.runtime(["unpublish", "server", "8000:7/udp"]).ok();
        let told = |e: io::Error| assert_eq!(e.kind(), io::ErrorKind::ConnectionAborted, "{to}: {e}");
        told(talk.say(b"after").expect_err("its publication is gone"));
        told(udp.take_error().expect("the socket's error").expect("its publication is gone"));
        ask(&udp, b"after").expect_err("it is connected to nobody");
        direct.say(b"untouched").expect("who dialled the container itself goes on");
        ask(&beside, b"untouched").expect("over UDP as well");
        lab.runtime(["publish", "server", "8000:7"]).ok();
        lab.runtime(["publish", "server", "8000:7/udp"]).ok();
        ask_when_up(lab.host(), to, b"anew");
    }
    // Also when the container comes back elsewhere.
    let to = at(Ipv4Addr::LOCALHOST, 8000);
    let udp = lab.host().udp(to).expect("a socket");
    ask(&udp, b"before").expect("an answer");
    lab.move_container(&server);
    wait_until("it is told", SOON, || {
        ask(&udp, b"after").is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock && e.kind() != io::ErrorKind::TimedOut)
    });
    ask_when_up(lab.host(), to, b"anew");
}

#[test]
fn a_socket_that_dials_the_container_itself_is_shown_the_container() {
    let lab = alone("both ways").build();
    let _up = lab.up(&[]);
    let server = start_server(&lab);
    let to = at(Ipv4Addr::LOCALHOST, 8000);
    let socket = unconnected(lab.host(), wildcard(&to)).expect("a socket");
    for at in [to, server.at(7), to, at(HOST, 8000), server.at(7)] {
        assert_eq!(exchange(&socket, at, b"words").expect("an answer").1, at);
    }
    let shown = dial(lab.host(), How::Tcp, None, server.at(7)).expect("the container itself");
    assert_eq!(shown.peer, server.at(7));
}

#[test]
fn sockets_bound_to_addresses_of_the_host_are_served() {
    let lab = alone("bound sockets").build();
    let _up = lab.up(&[]);
    start_server(&lab);
    let (lo, lo6, any) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED);
    for how in [How::Tcp, How::Connected, How::Unconnected] {
        // The host's address is kept, a loopback address cannot be.
        let cases = [
            (at(HOST, 0), at(lo, 8000), IpAddr::from(HOST)),
            (at(HOST, 0), at(HOST, 8001), HOST.into()),
            (at(HOST6, 0), at(HOST6, 8000), HOST6.into()),
            (at(lo, 0), at(lo, 8000), GATEWAY.into()),
            (at(lo, 0), at(lo, 8002), GATEWAY.into()),
            (at(Ipv4Addr::new(127, 0, 0, 9), 0), at(HOST, 8000), GATEWAY.into()),
            (at(lo6, 0), at(lo6, 8000), GATEWAY6.into()),
            (at(lo6, 0), at(lo6, 8002), GATEWAY6.into()),
        ];
        for (from, to, seen) in cases {
            let shown = dial(lab.host(), how, Some(from), to);
            let shown = shown.unwrap_or_else(|e| panic!("{how:?} from {from}: {to} does not answer: {e}"));
            assert_eq!((shown.client, shown.peer), (at(seen, shown.ours), to), "{how:?} from {from} to {to}");
        }
    }
    // A port on which the container has nobody: its refusal finds the socket, wherever that is bound.
    lab.runtime(["publish", "server", "8004:9/udp"]).ok();
    for (from, to) in [(at(any, 0), at(lo, 8004)), (at(lo, 0), at(lo, 8004)), (at(lo6, 0), at(lo6, 8004))] {
        let socket = lab.host().udp_from(from, to).expect("a socket");
        let error = ask(&socket, b"words").expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "from {from} to {to}: {error}");
    }
    // Two loopback addresses with one port: both are served, apart from each other.
    let to = at(lo, 8000);
    let open =
        |from: [u8; 4]| Talk::over(lab.host().tcp_from(at(Ipv4Addr::from(from), 40_000), to).expect("a connection"));
    let (mut one, mut two) = (open([127, 0, 0, 1]).expect("a talk"), open([127, 0, 0, 2]).expect("another"));
    assert_ne!(one.seen(), two.seen());
    one.say(b"one").expect("an echo");
    two.transfer(3_000_000, |_| ()).expect("a transfer");
    one.transfer(3_000_000, |_| ()).expect("a transfer");
    for (from, to) in [(at(lo, 0), to), (at(lo6, 0), at(lo6, 8000))] {
        let mut talk = Talk::over(lab.host().tcp_from(from, to).expect("a connection")).expect("a talk");
        talk.transfer(3_000_000, |_| ()).expect("a transfer");
    }
}

#[test]
fn it_comes_before_dockers_own_ways() {
    let lab = Lab::builder("with a proxy").images(&[Image::Echo]).engine_arg("--userland-proxy=true").build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "-p", "127.0.0.1:8002:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    for (how, to) in [
        (How::Tcp, at(Ipv4Addr::LOCALHOST, 8000)),
        (How::Tcp, at(Ipv4Addr::LOCALHOST, 8002)),
        (How::Connected, at(Ipv4Addr::LOCALHOST, 8000)),
        (How::Unconnected, at(HOST, 8000)),
    ] {
        let shown = lab.assert_carried(|| dial(lab.host(), how, None, to)).expect("an answer");
        assert_eq!((shown.client, shown.peer), (at(GATEWAY, shown.ours), to), "{how:?}");
    }
    // The proxy listens where Docker lets no loopback address out: to it, what is bound to one is left.
    let from = at(Ipv4Addr::LOCALHOST, 0);
    for (how, to) in [(How::Tcp, at(Ipv4Addr::LOCALHOST, 8002)), (How::Connected, at(Ipv4Addr::LOCALHOST, 8000))] {
        let before = lab.counters();
        let shown = dial(lab.host(), how, Some(from), to).expect("an answer of the proxy");
        assert_eq!(shown.peer, to, "{how:?}");
        assert_eq!(lab.counters().packets("host_redirected"), before.packets("host_redirected"), "{how:?}");
    }
}

/// Number of the cgroup link that is pinned for a program, and of the program in it.
fn pinned(lab: &Lab, program: &str) -> (u64, u64) {
    let path = lab.pins().join("links").join(format!("{program}-cgroup"));
    let text = lab.host().run(["bpftool", "-j", "link", "show", "pinned", &path.display().to_string()]).ok();
    let link: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let link = link.as_array().map_or(&link, |list| &list[0]);
    (link["id"].as_u64().expect("an id"), link["prog_id"].as_u64().expect("a program"))
}

const PROGRAMS: [&str; 8] = [
    "host_connect4",
    "host_connect6",
    "host_sendmsg4",
    "host_sendmsg6",
    "host_recvmsg4",
    "host_recvmsg6",
    "host_getpeername4",
    "host_getpeername6",
];

#[test]
fn programs_are_replaced_in_place_and_gone_after_down() {
    let lab = alone("down").build();
    let up = lab.up(&[]);
    start_server(&lab);
    let to = at(Ipv4Addr::LOCALHOST, 8000);
    let stream = lab.host().tcp(to).expect("a connection");
    let before = PROGRAMS.map(|p| pinned(&lab, p));
    let status = lab.status();
    for program in PROGRAMS {
        let attached = status["hooks"].as_array().expect("a list").iter().any(|h| {
            h["kind"] == "cgroup" && {
                h["hook"].as_str().is_some_and(|name| name.replace('_', "") == program.replace('_', ""))
            }
        });
        assert!(attached, "{program} is not in the status: {}", status["hooks"]);
    }
    up.kill();
    dial(lab.host(), How::Tcp, None, to).expect("served without a daemon");
    let _up = lab.up(&[]);
    let after = PROGRAMS.map(|p| pinned(&lab, p));
    for (b, a) in before.iter().zip(&after) {
        assert_eq!(b.0, a.0, "the link is another");
        assert_ne!(b.1, a.1, "the program is the old one");
    }
    assert_eq!(stream.peer_addr().expect("a peer"), to, "what was dialled is forgotten");
    lab.down();
    for (id, _) in after {
        let gone = || !lab.host().run(["bpftool", "link", "show", "id", &id.to_string()]).success();
        wait_until("the link is gone", SOON, gone);
    }
    assert!(dial(lab.host(), How::Tcp, None, at(HOST, 8000)).is_err(), "something is left");
}

#[test]
fn without_cgroup2_up_goes_on_and_says_so() {
    let lab = Lab::builder("no cgroup2").images(&[Image::Echo]).build();
    // In a mount namespace of its own.
    let hide = ["unshare", "--mount", "sh", "-c", "umount --lazy --all --types cgroup2; exec \"$@\"", "sh"];
    lab.runtime_by(&hide, ["up", "--detach"]).ok();
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    let status = lab.status();
    let problems = status["problems"].as_array().expect("a list");
    assert!(problems.iter().any(|p| p.as_str().is_some_and(|p| p.contains("cgroup2"))), "{problems:?}");
    assert!(!status["hooks"].to_string().contains("host_connect"), "{}", status["hooks"]);
    lab.down();
}

#[test]
fn two_hosts_on_one_machine_do_not_mix() {
    let (one, two) = (alone("one host").build(), alone("another host").build());
    let _up_one = one.up(&[]);
    let _up_two = two.up(&[]);
    start_server(&one);
    start_server(&two);
    let to = at(Ipv4Addr::LOCALHOST, 8000);
    for (lab, other) in [(&one, &two), (&two, &one)] {
        let before = other.counters().packets("host_redirected");
        for how in [How::Tcp, How::Connected, How::Unconnected] {
            lab.assert_carried(|| dial(lab.host(), how, None, to)).expect("an answer");
        }
        assert_eq!(other.counters().packets("host_redirected"), before, "the other host's programs did something");
    }
    one.down();
    assert!(dial(one.host(), How::Tcp, None, to).is_err());
    two.assert_carried(|| dial(two.host(), How::Tcp, None, to)).expect("the other host goes on");
}
