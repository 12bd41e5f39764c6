//! What users complain about elsewhere, each by the number of the complaint. Others are tested where their subject is.

use std::time::Duration;

use tests::frames::{Way, Wire, holds};
use tests::sockets::{Talk, ask, ask_when_up, is_silence, pings};
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// The client's address is lost on the way to the container.
#[test]
fn moby_15086_and_17666_the_server_sees_the_clients_address() {
    let lab = Lab::builder("client address").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let talk = Talk::when_up(lab.client(), (HOST, 8000));
    assert_eq!(talk.seen(), talk.ours());
    let (seen, port) = ask_when_up(lab.client(), (HOST, 8000), b"who am I?");
    assert_eq!(seen, (talk.ours().ip(), port).into());
}

/// A port published on 127.0.0.1 answers machines of the same network that route loopback addresses to the host.
#[test]
fn moby_41872_and_45610_loopback_publications_stay_on_the_host() {
    let lab = Lab::builder("loopback from the LAN").images(&[Image::Echo]).build();
    // As careless as a host can be.
    lab.host().run(["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.eth0.route_localnet=1"]).ok();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "127.0.0.1:7:7/udp", "echo"]);
    Talk::when_up(lab.host(), server.at(7));
    let wire = Wire::open(lab.client(), "eth0");
    let inside = Wire::open(&server.ns(), "eth0");
    let way = Way {
        from_mac: lab.client().mac("eth0"),
        to_mac: lab.host().mac("eth0"),
        from: tests::CLIENT,
        to: std::net::Ipv4Addr::LOCALHOST,
    };
    lab.assert_dropped("loopback", || wire.send(&way.udp(4000, 7, b"let me in")));
    assert!(inside.find(Duration::from_millis(300), |f| holds(f, b"let me in")).is_none());
}

/// UDP goes on to the old container after a restart, because an old entry still matches the client's packets.
#[test]
fn moby_8795_netavark_1045_and_cilium_12859_udp_finds_the_restarted_container() {
    let lab = Lab::builder("UDP after restart").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7/udp", "echo"]);
    let socket = lab.client().udp((HOST, 8000)).expect("a socket");
    wait_until("the server answers", SOON, || ask(&socket, b"before").is_ok());
    // The same client port sends on and on, so that no entry ever times out.
    let before = server.ip();
    lab.move_container(&server);
    assert_ne!(lab.container("server").ip(), before);
    wait_until("the moved server answers the same socket", SOON, || ask(&socket, b"after").is_ok());
}

/// Published ports are gone after another tool has flushed the firewall.
#[test]
fn moby_12294_a_flushed_firewall_takes_no_publication_away() {
    let lab = Lab::builder("flushed firewall").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
    for table in ["filter", "nat", "mangle", "raw"] {
        lab.host().run(["iptables", "-t", table, "-F"]).ok();
    }
    lab.host().run(["iptables", "-P", "FORWARD", "DROP"]).ok();
    talk.say(b"still here").expect("an echo");
    lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000)).expect("a new connection"));
}

/// Links are ignored on networks of the user's own.
#[test]
fn moby_31453_and_48356_links_hold_on_custom_networks() {
    let lab = Lab::builder("links on custom networks").images(&[Image::Echo, Image::Busybox]).build();
    let _up = lab.up(&[]);
    lab.docker(["network", "create", "--label", "runtime.isolate=true", "own"]).ok();
    let source = lab.run("source", &["--network", "own", "echo"]);
    let sleep = ["busybox", "sleep", "600"];
    let with = |words: &[&'static str]| [words, &sleep].concat();
    let recipient = lab.run("recipient", &with(&["--network", "own", "--link", "source:alias"]));
    let third = lab.run("third", &with(&["--network", "own"]));
    let address = source.ip_on("own");
    lab.assert_carried(|| Talk::when_up(&recipient.ns(), (address, 7)));
    assert!(recipient.exec(["ping", "-c", "1", "-W", "1", "alias"]).success(), "the alias resolves");
    let variables = std::fs::read(format!("/proc/{}/environ", recipient.pid())).expect("its environment");
    let expected = format!("ALIAS_PORT_7_TCP_ADDR={address}");
    assert!(holds(&variables, expected.as_bytes()), "{}", String::from_utf8_lossy(&variables));
    let error = lab.assert_dropped("not_linked", || third.ns().tcp((address, 7))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    assert!(!lab.assert_dropped("not_linked", || pings(&third.ns(), address)));
}

/// Raw Ethernet passes between containers that are kept apart.
#[test]
fn moby_36355_raw_ethernet_does_not_pass() {
    let lab = Lab::builder("raw Ethernet").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let (one, other) = (lab.run("one", &["echo"]), lab.run("other", &["echo"]));
    let wire = Wire::open(&one.ns(), "eth0");
    let inside = Wire::open(&other.ns(), "eth0");
    let way = Way { from_mac: one.ns().mac("eth0"), to_mac: other.ns().mac("eth0"), from: one.ip(), to: other.ip() };
    lab.assert_dropped("ethertype", || wire.send(&way.ethernet(0x88b5, b"psst")));
    assert!(inside.find(Duration::from_millis(300), |f| holds(f, b"psst")).is_none());
}

/// After a restart of the agent every interface has its programs twice.
#[test]
fn cilium_44194_restarts_of_the_daemon_leave_one_program_a_hook() {
    let lab = Lab::builder("duplicate programs").images(&[Image::Echo]).build();
    let first = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    let links = |lab: &Lab| std::fs::read_dir(lab.pins().join("links")).expect("pins").count();
    let before = links(&lab);
    first.kill();
    for _ in 0..2 {
        lab.up(&[]).stop();
    }
    let _last = lab.up(&[]);
    assert_eq!(links(&lab), before);
    // Doubled programs would count each packet twice.
    let socket = lab.client().tcp((HOST, 8000)).expect("a connection");
    let counted = lab.counters().packets("published");
    drop(socket);
    wait_until("its end is counted", SOON, || lab.counters().packets("published") > counted);
    assert!(lab.counters().packets("published") <= counted + 3, "FIN and its ACK are two packets");
}

/// Connections are lost when maps are carried over to another version.
#[test]
fn cilium_5118_a_new_daemon_keeps_every_flow() {
    let lab = Lab::builder("kept flows").images(&[Image::Echo]).build();
    let first = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    let mut talks: Vec<Talk> = (0..50).map(|_| Talk::open(lab.client(), (HOST, 8000)).expect("a talk")).collect();
    first.kill();
    let _next = lab.up(&[]);
    for talk in &mut talks {
        talk.say(b"adopted").expect("an echo");
    }
}
