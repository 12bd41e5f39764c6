//! IPv6 clients of containers that have IPv4 alone, where docker-proxy does not run: the daemon relays what they say.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tests::dial::{How, dial};
use tests::sockets::{Talk, ask, ask_when_up};
use tests::{HOST, Image, Lab, Netns, wait_until};

const SOON: Duration = Duration::from_secs(10);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

fn lab(title: &str) -> Lab {
    // As all labs: with --userland-proxy=false.
    Lab::builder(title).images(&[Image::Echo]).build()
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    (ip.into(), port).into()
}

/// What `status` says of a publication.
fn state(lab: &Lab, address: &str, port: u16) -> String {
    let status = lab.status();
    let rows = status["publications"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|r| r["host_addr"] == address && r["host_port"] == port);
    row.and_then(|r| r["state"].as_str()).unwrap_or("not there").to_owned()
}

#[test]
fn clients_of_ipv6_reach_a_container_that_has_ipv4_alone() {
    let lab = lab("relay");
    lab.docker(["network", "create", "--ipv6", "--subnet", "2001:db8:e::/64", "both"]).ok();
    let _up = lab.up(&[]);
    let udp = ["-p", "8000:7/udp", "-p", "[::1]:8002:7/udp"];
    let tcp = ["-p", "8000:7", "-p", "[2001:db8::1]:8001:7", "-p", "[::1]:8002:7", "-P", "--expose", "9"];
    lab.run("server", &[&tcp[..], &udp, &["echo", "peer", "tcp:0.0.0.0:7", "udp:0.0.0.0:7", "tcp:0.0.0.0:9"]].concat());
    // A container with IPv6, on another network.
    let other = lab.run("other", &["--network", "both", "echo"]);
    let random = lab.runtime(["port", "server", "9"]).ok();
    let random = random.lines().find_map(|l| l.parse::<SocketAddr>().ok()).expect("a random port").port();
    for port in [8000, 8001, random] {
        Talk::when_up(lab.client(), (HOST6, port));
    }
    ask_when_up(lab.client(), (HOST6, 8000), b"up");
    // Addresses of IPv6 are usable only after a moment.
    Talk::when_up(&other.ns(), (HOST6, 8000));
    assert_eq!(state(&lab, "::", 8000), "relayed");

    let listed = lab.runtime(["port", "server", "7/udp"]).ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["0.0.0.0:8000", "[::]:8000", "[::1]:8002"]);

    // Listed once, whoever told of it.
    lab.runtime(["publish", "server", "8000:7"]).ok();
    lab.runtime(["publish", "server", "8005:7"]).ok();
    let listed = lab.runtime(["ps", "--format", "{{.Ports}}"]).ok();
    for port in [8000, 8001, 8005] {
        assert_eq!(listed.matches(&format!(":{port}->7/tcp")).count(), if port == 8001 { 1 } else { 2 }, "{listed}");
    }
    Talk::when_up(lab.client(), (HOST6, 8000));

    let clients: [(&str, &Netns, &[SocketAddr]); 3] = [
        ("outside", lab.client(), &[at(HOST6, 8000)]),
        ("the host", lab.host(), &[at(Ipv6Addr::LOCALHOST, 8000), at(HOST6, 8000), at(Ipv6Addr::LOCALHOST, 8002)]),
        ("a container", &other.ns(), &[at(HOST6, 8000)]),
    ];
    for (who, ns, targets) in clients {
        for (to, how) in targets.iter().flat_map(|to| How::ALL.map(|how| (*to, how))) {
            let shown = dial(ns, how, None, to).unwrap_or_else(|e| panic!("{who}, {how:?} to {to}: {e}"));
            assert_eq!((shown.client.ip(), shown.peer), (GATEWAY.into(), to), "{who}, {how:?} to {to}");
        }
    }
    // A loopback publication stays the host's, and IPv4 is none of a relay's business.
    for port in [8002, 8003] {
        let error = Talk::open(lab.client(), (HOST6, port)).expect_err("not published there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    let direct = lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000)).expect("a talk"));
    assert_eq!(direct.seen(), direct.ours());
}

#[test]
fn streams_are_relayed_whole_and_each_direction_ends_by_itself() {
    let lab = lab("relayed streams");
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "-p", "8009:9", "-p", "8009:9/udp", "echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST6, 8000));
    talk.transfer(5_000_000, |_| ()).expect("a transfer");
    talk.finish_saying().expect("a half-closed connection");
    talk.hear_the_end().expect("the echo server closes in turn");
    // Nobody listens: the connection that stands is reset, and datagrams go nowhere.
    let error = Talk::open(lab.client(), (HOST6, 8009)).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let socket = lab.client().udp((HOST6, 8009)).expect("a socket");
    ask(&socket, b"anybody there?").expect_err("nobody is there");
    // As large as datagrams get, and from two clients apart.
    let sockets = [(); 2].map(|()| lab.client().udp((HOST6, 8000)).expect("a socket"));
    wait_until("the server answers", SOON, || ask(&sockets[0], b"up").is_ok());
    let words = vec![7; 60_000];
    let seen = sockets.each_ref().map(|s| ask(s, &words).expect("an answer"));
    assert_ne!(seen[0], seen[1]);
    assert_eq!(ask(&sockets[0], b"again").expect("an answer"), seen[0], "one client has one socket");
}

#[test]
fn filters_and_limits_hold_for_relays() {
    let lab = Lab::builder("relay filters").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let only = CLIENT6.to_string();
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "--allow-from", &only, "echo"]);
    lab.run("limited", &["-p", "8001:7/udp", "--max-rate", "1", "echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST6, 8000));
    ask_when_up(lab.client(), (HOST6, 8000), b"allowed");
    let error = lab.assert_relay_dropped("filtered", || Talk::open(lab.client2(), (HOST6, 8000))).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let socket = lab.client2().udp((HOST6, 8000)).expect("a socket");
    lab.assert_relay_dropped("filtered", || ask(&socket, b"let me in").expect_err("refused"));
    // The host itself reaches every container.
    Talk::open(lab.host(), (Ipv6Addr::LOCALHOST, 8000)).expect("a talk of the host");
    Talk::open(lab.host(), (HOST6, 8000)).expect("a talk of the host");

    ask_when_up(lab.client(), (HOST6, 8001), b"the first");
    lab.assert_relay_dropped("rate_limited", || {
        for _ in 0..20 {
            lab.client().udp((HOST6, 8001)).expect("a socket").send(b"one more").expect("sent");
        }
    });

    // Another filter ends what the old one let in.
    talk.say(b"before").expect("an echo");
    lab.runtime(["publish", "server", "8000:7", "--deny-from", &only]).ok();
    assert_eq!(talk.hear_the_end().expect_err("cut").kind(), ErrorKind::ConnectionReset);
    wait_until("the new filter holds", SOON, || Talk::open(lab.client2(), (HOST6, 8000)).is_ok());
    lab.assert_relay_dropped("filtered", || Talk::open(lab.client(), (HOST6, 8000))).expect_err("refused");
}

#[test]
fn what_is_published_live_is_relayed_until_it_is_unpublished() {
    let lab = lab("live relays");
    let up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    lab.runtime(["publish", "server", "9000:7"]).ok();
    lab.runtime(["publish", "server", "9000:7/udp"]).ok();
    for port in [8000, 9000] {
        let mut talk = Talk::when_up(lab.client(), (HOST6, port));
        lab.runtime(["unpublish", "server", &format!("{port}:7")]).ok();
        assert_eq!(talk.hear_the_end().expect_err("cut").kind(), ErrorKind::ConnectionReset);
        let refused = Talk::open(lab.client(), (HOST6, port)).map(drop);
        assert!(refused.is_err(), "port {port} is still relayed");
        // Its port is free at once.
        lab.runtime(["publish", "server", &format!("{port}:7")]).ok();
        Talk::when_up(lab.client(), (HOST6, port)).say(b"again").expect("an echo");
    }
    ask_when_up(lab.client(), (HOST6, 9000), b"over UDP");
    // Relays follow the container, and a new daemon takes them up.
    lab.move_container(&server);
    Talk::when_up(lab.client(), (HOST6, 9000)).say(b"moved").expect("an echo");
    let socket = lab.client().udp((HOST6, 9000)).expect("a socket");
    wait_until("over UDP as well", SOON, || ask(&socket, b"moved").is_ok());
    up.kill();
    assert!(Talk::open(lab.client(), (HOST6, 9000)).is_err(), "relayed by nobody");
    let _up = lab.up(&[]);
    Talk::when_up(lab.client(), (HOST6, 9000)).say(b"taken up").expect("an echo");
    wait_until("the same socket is answered", SOON, || ask(&socket, b"taken up").is_ok());
    lab.docker(["rm", "-f", "server"]).ok();
    wait_until("nobody is there", SOON, || {
        Talk::open(lab.client(), (HOST6, 9000)).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn only_so_many_clients_are_relayed_at_once_and_that_is_told() {
    let lab = lab("bounded relays");
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    ask_when_up(lab.client(), (HOST6, 8000), b"up");
    let problems = || lab.status()["problems"].to_string();
    assert_eq!(problems(), "[]");
    let first = lab.client().udp((HOST6, 8000)).expect("a socket");
    let seen = ask(&first, b"the first").expect("an answer");
    let open = |_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a socket");
    let crowd: Vec<UdpSocket> = lab.client().within(|| (0..1200).map(open).collect());
    wait_until("it is told", SOON, || {
        // So many at once may be more than waits to be read.
        for socket in &crowd {
            socket.send_to(b"one more", (HOST6, 8000)).expect("sent");
        }
        problems().contains("1024 at once are relayed")
    });
    assert_eq!(ask(&first, b"still here").expect("an answer"), seen);
    // Connections have room of their own.
    Talk::open(lab.client(), (HOST6, 8000)).expect("a talk").say(b"hello").expect("an echo");
    drop(crowd);
}

#[test]
fn docker_proxy_is_left_alone_until_it_goes() {
    let lab =
        Lab::builder("relay beside docker-proxy").images(&[Image::Echo]).engine_arg("--userland-proxy=true").build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST6, 8000));
    assert_eq!(state(&lab, "::", 8000), "by the engine");
    let listeners = || lab.host().run(["ss", "-Hltnp", "sport = :8000"]).ok();
    let proxy = listeners().lines().find(|l| l.contains("[::]")).and_then(|l| {
        let (_, pid) = l.split_once("pid=")?;
        pid.split_once(',')?.0.parse::<u32>().ok()
    });
    let proxy = proxy.expect("docker-proxy listens");
    lab.host().run(["kill", "-9", &proxy.to_string()]).ok();
    wait_until("the daemon takes over", Duration::from_secs(30), || state(&lab, "::", 8000) == "relayed");
    Talk::when_up(lab.client(), (HOST6, 8000)).say(b"taken over").expect("an echo");
    // And the Engine has its port back for the next start.
    lab.docker(["restart", "-t", "0", "server"]).ok();
    wait_until("docker-proxy listens again", SOON, || listeners().contains("docker-proxy"));
    Talk::when_up(lab.client(), (HOST6, 8000)).say(b"given back").expect("an echo");
}

/// Programs of the host that listen on a TCP port.
fn listeners(lab: &Lab, port: u16) -> String {
    lab.host().run(["ss", "-Hltnp", &format!("sport = :{port}")]).ok()
}

/// Who has bound a port of the host at IPv6 addresses, TCP or UDP, listening or not.
fn bound(lab: &Lab, port: u16) -> String {
    let all = lab.host().run(["ss", "-6Hatunp", &format!("sport = :{port}")]).ok();
    all.lines().filter(|l| !l.contains("ESTAB")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_engine_that_was_killed_has_its_ports_back_when_it_starts() {
    for proxy in ["true", "false"] {
        let mut lab = Lab::builder("a killed engine and relays")
            .images(&[Image::Echo])
            .engine_arg(&format!("--userland-proxy={proxy}"))
            .build();
        let _up = lab.up(&[]);
        lab.run("server", &["--restart=always", "-p", "8000:7", "-p", "8000:7/udp", "echo"]);
        // Who may use it is changed live: the engine's port stays the engine's.
        lab.runtime(["publish", "server", "8000:7", "--deny-from", "2001:db8::77"]).ok();
        Talk::when_up(lab.client(), (HOST6, 8000)).say(b"before").expect("an echo");
        lab.kill_engine();
        wait_until("nobody else listens", SOON, || !listeners(&lab, 8000).contains("docker-proxy"));
        wait_until("the daemon relays", SOON, || state(&lab, "::", 8000) == "relayed");
        let mut open = Talk::when_up(lab.client(), (HOST6, 8000));
        open.say(b"meanwhile").expect("an echo");
        ask_when_up(lab.client(), (HOST6, 8000), b"a datagram meanwhile");
        assert_eq!(bound(&lab, 8000), "", "nothing of a relay's is bound there");
        // Whatever changes, the engine's port is not taken.
        lab.runtime(["publish", "server", "9000:7"]).ok();
        // Its containerd has died with it. Where the first process is slow to reap it, Docker would take it for alive.
        let _ = std::fs::remove_file(lab.dir().join("exec/containerd/containerd.pid"));
        lab.start_engine();
        wait_until("the container runs again", Duration::from_secs(60), || {
            lab.docker(["inspect", "-f", "{{.State.Running}} {{.State.Error}}", "server"]).ok().trim() == "true"
        });
        if proxy == "true" {
            wait_until("docker-proxy listens again", SOON, || listeners(&lab, 8000).contains("docker-proxy"));
        }
        for port in [8000, 9000] {
            wait_until("it is served", SOON, || {
                Talk::open(lab.client(), (HOST6, port)).is_ok_and(|mut t| t.say(b"after").is_ok())
            });
        }
        drop(open);
    }
}

#[test]
fn a_publication_survives_that_its_container_leaves_a_network() {
    for proxy in ["true", "false"] {
        let lab = Lab::builder("relays and networks")
            .images(&[Image::Echo])
            .engine_arg(&format!("--userland-proxy={proxy}"))
            .build();
        let _up = lab.up(&[]);
        for name in ["a", "b"] {
            lab.docker(["network", "create", name]).ok();
        }
        lab.run("server", &["--network", "a", "-p", "8000:7", "-p", "8000:7/udp", "echo"]);
        lab.docker(["network", "connect", "b", "server"]).ok();
        Talk::when_up(lab.client(), (HOST6, 8000)).say(b"both").expect("an echo");
        lab.docker(["network", "disconnect", "a", "server"]).ok();
        let ports = lab.docker(["port", "server"]).ok();
        assert!(ports.contains("7/tcp -> 0.0.0.0:8000"), "the engine has lost its port: {ports}");
        for to in [SocketAddr::from((HOST, 8000)), SocketAddr::from((HOST6, 8000))] {
            wait_until("it is served", SOON, || Talk::open(lab.client(), to).is_ok_and(|mut t| t.say(b"one").is_ok()));
            ask_when_up(lab.client(), to, b"a datagram");
        }
    }
}

#[test]
fn other_programs_keep_their_ports_and_down_leaves_nothing() {
    let lab = lab("relays beside others");
    let up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    Talk::when_up(lab.client(), (HOST6, 8000));
    // One that comes later gets what is for it, and the daemon what is left.
    let later = lab.host().within(|| std::net::TcpListener::bind((HOST6, 8000)).expect("the port is free"));
    let later_udp = lab.host().within(|| UdpSocket::bind((HOST6, 8000)).expect("the port is free"));
    wait_until("the daemon stands back", SOON, || state(&lab, "::", 8000) == "not served");
    let _stream = lab.client().tcp((HOST6, 8000)).expect("a connection");
    later.set_nonblocking(true).expect("set");
    wait_until("the other program gets it", SOON, || later.accept().is_ok());
    drop((later, later_udp));
    wait_until("the daemon relays again", SOON, || state(&lab, "::", 8000) == "relayed");
    let mut open = Talk::when_up(lab.client(), (HOST6, 8000));
    open.say(b"again").expect("an echo");
    // A dead daemon's ports are refused, not black holes; the next one goes on.
    up.kill();
    let error = Talk::open(lab.client(), (HOST6, 8000)).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let up = lab.up(&[]);
    Talk::when_up(lab.client(), (HOST6, 8000)).say(b"taken up").expect("an echo");
    let pins = || std::fs::read_dir(lab.pins().join("links")).map_or(0, Iterator::count);
    assert!(pins() > 0);
    lab.down();
    drop(up);
    assert!(!lab.pins().join("links").exists() && !lab.pins().join("maps").exists());
    // Of network namespaces' programs, those of this one.
    let links = lab.host().run(["bpftool", "-j", "link", "list"]).ok();
    let links: serde_json::Value = serde_json::from_str(&links).expect("JSON");
    let inode = lab.host().run(["stat", "-L", "-c", "%i", "/proc/self/ns/net"]).ok();
    let inode: u64 = inode.trim().parse().expect("an inode");
    let ours = links.as_array().into_iter().flatten().filter(|l| l["netns_ino"].as_u64() == Some(inode));
    assert_eq!(ours.count(), 0);
    let error = Talk::open(lab.client(), (HOST6, 8000)).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
