//! What users of others have reported, each by the number of the issue.
//!
//! Others are tested where their subject is: `addresses` (moby#39559), `errors` (cilium#25709, calico#8821, cilium#12968,
//! cilium#33844), `flood` (cilium#3232), `masquerade` (cilium#44348), `host_local` (cilium#48096).

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use runtime_common::maps::{Flow, FlowKey, Publication, PublicationKey, Zone};
use tests::frames::{Way, Wire, holds};
use tests::sockets::{Talk, ask, ask_when_up, bind_udp, is_silence, pings, uninterrupted};
use tests::{Container, HOST, Image, Lab, Netns, Up, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A map of the kernel side, by its pin.
fn map<K: aya::Pod, V: aya::Pod>(lab: &Lab, name: &str) -> HashMap<MapData, K, V> {
    let data = MapData::from_pin(lab.pins().join("maps").join(name)).expect("a pinned map");
    let map = if name == "PENDING" { Map::LruHashMap(data) } else { Map::HashMap(data) };
    HashMap::try_from(map).expect("a hash map")
}

/// The processes in a network namespace, with their names.
fn processes(ns: &Netns) -> Vec<(u32, String)> {
    let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino())).ok();
    let wanted = id(ns.path());
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let inside = all.filter(|p| id(&p.path().join("ns/net")).is_some_and(|i| Some(i) == wanted));
    let named = inside.filter_map(|p| {
        let name = std::fs::read_to_string(p.path().join("comm")).ok()?;
        Some((p.file_name().to_str()?.parse().ok()?, name.trim().to_owned()))
    });
    named.collect()
}

/// How many sockets each docker-proxy has. Other descriptors tell nothing: it keeps pipes to copy by, for as long as it likes.
fn sockets_of_proxies(lab: &Lab) -> Vec<usize> {
    let is_socket = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
    let sockets = |pid| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter(|descriptor| is_socket(&descriptor.path())).count()
    };
    let proxies = processes(lab.host()).into_iter().filter(|(_, name)| name == "docker-proxy");
    proxies.map(|(pid, _)| sockets(pid)).collect()
}

/// The environment that a container's first process was given, a line each.
fn environment(container: &Container) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{}/environ", container.pid())).expect("its environment");
    String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect()
}

/// Ranges of ports take minutes, a rule and a process for each.
#[test]
fn moby_11185_36214_and_53466_a_range_of_ten_thousand_ports_is_no_rule_and_no_process() {
    let lab = Lab::builder("ten thousand ports").images(&[Image::Echo]).engine_arg("--userland-proxy=true").build();
    let _up = lab.up(&[]);
    let listens = ["echo", "peer", "tcp:0.0.0.0:10000", "tcp:0.0.0.0:14711", "tcp:0.0.0.0:19999", "udp:0.0.0.0:14711"];
    let server = lab.run("server", &[&["-p", "9000:10000"], &listens[..]].concat());
    Talk::when_up(lab.host(), server.at(10000));
    let rules = || ["iptables-save", "ip6tables-save"].map(|save| lab.host().run([save]).ok().lines().count());
    let entries = || map::<PublicationKey, Publication>(&lab, "PUBLICATIONS").keys().count();
    let names = || processes(lab.host()).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let before = (rules(), names(), entries());
    assert!(before.1.iter().any(|name| name == "docker-proxy"), "for the Engine's own one: {:?}", before.1);

    for protocol in ["tcp", "udp"] {
        lab.runtime(["publish", "server", &format!("0.0.0.0:10000-19999:10000-19999/{protocol}")]).ok();
    }
    assert_eq!((rules(), names(), entries()), (before.0, before.1, before.2 + 20_000));
    for port in [10000, 14711, 19999] {
        Talk::open(lab.client(), (HOST, port)).expect("a port of the range");
    }
    ask_when_up(lab.client(), (HOST, 14711), b"over UDP");
    for protocol in ["tcp", "udp"] {
        lab.runtime(["unpublish", "server", &format!("0.0.0.0:10000-19999:10000-19999/{protocol}")]).ok();
    }
    assert!(Talk::open(lab.client(), (HOST, 19999)).is_err());
    assert_eq!(entries(), before.2);
}

/// docker-proxy eats a CPU while it copies what is said.
#[test]
fn moby_47537_docker_proxy_carries_nothing() {
    let lab = Lab::builder("idle proxies").images(&[Image::Echo]).engine_arg("--userland-proxy=true").build();
    lab.start("server", &["-p", "8000:7", "echo"]);
    let loopback = (Ipv4Addr::LOCALHOST, 8000);
    // A connection that a proxy carries takes sockets of it.
    let carried = Talk::when_up(lab.host(), loopback);
    let busy = sockets_of_proxies(&lab);
    drop(carried);
    wait_until("the proxy is done with it", SOON, || sockets_of_proxies(&lab) < busy);
    let idle = sockets_of_proxies(&lab);
    let _up = lab.up(&[]);
    let sibling = lab.run("sibling", &["echo"]);
    let mut talks = [
        Talk::open(lab.client(), (HOST, 8000)).expect("a talk from outside"),
        Talk::open(lab.host(), loopback).expect("a talk of the host"),
        Talk::open(lab.host(), (HOST, 8000)).expect("another of the host"),
        Talk::open(&sibling.ns(), (HOST, 8000)).expect("a talk of a sibling"),
    ];
    for talk in &mut talks {
        talk.say(b"without a proxy").expect("an echo");
    }
    assert_eq!(sockets_of_proxies(&lab), idle);
}

/// Ports of a running container cannot be changed.
#[test]
fn moby_21282_and_cli_1518_ports_change_without_a_restart() {
    let lab = Lab::builder("live changes").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    let before = (server.pid(), server.ip());
    let mut stays = Talk::when_up(lab.client(), (HOST, 8000));
    lab.runtime(["publish", "server", "8001:7"]).ok();
    Talk::open(lab.client(), (HOST, 8001)).expect("published at once").say(b"new").expect("an echo");
    lab.runtime(["unpublish", "server", "8001:7"]).ok();
    assert!(Talk::open(lab.client(), (HOST, 8001)).is_err());
    stays.say(b"all along").expect("an echo");
    assert_eq!((server.pid(), server.ip()), before);
}

/// The variables of a link are there no longer.
#[test]
fn cli_6666_the_environment_of_a_link_is_there_on_every_network() {
    let lab = Lab::builder("link variables").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    // The Engine writes them on its default network alone, if at all.
    lab.docker(["network", "create", "own"]).ok();
    for network in ["bridge", "own"] {
        let (source, recipient) = (format!("source-{network}"), format!("recipient-{network}"));
        let container = lab.run(&source, &["--network", network, "-e", "COLOUR=blue", "echo"]);
        let recipient = lab.run(&recipient, &["--network", network, "--link", &format!("{source}:the-alias"), "echo"]);
        let address = container.ip_on(network);
        let found = environment(&recipient);
        for expected in [
            format!("THE_ALIAS_NAME=/{}/the-alias", recipient.name()),
            format!("THE_ALIAS_PORT=tcp://{address}:7"),
            format!("THE_ALIAS_PORT_7_TCP_ADDR={address}"),
            format!("THE_ALIAS_PORT_7_UDP=udp://{address}:7"),
            "THE_ALIAS_PORT_7_UDP_PROTO=udp".to_owned(),
            "THE_ALIAS_ENV_COLOUR=blue".to_owned(),
        ] {
            assert!(found.contains(&expected), "on {network}: no {expected:?} in {found:?}");
        }
        assert!(!found.iter().any(|v| v.starts_with("THE_ALIAS_ENV_PATH")), "{found:?}");
    }
}

/// What a link says of its source is that of yesterday, once the source has restarted.
#[test]
fn moby_9891_what_a_link_says_follows_its_source() {
    let lab = Lab::builder("stale links").images(&[Image::Echo, Image::Busybox]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["echo"]);
    let recipient = lab.run("recipient", &["--link", "source:alias", "busybox", "sleep", "100000"]);
    let old = format!("ALIAS_PORT_7_TCP_ADDR={}", source.ip());
    assert!(environment(&recipient).contains(&old));
    lab.move_container(&source);
    let new = format!("ALIAS_PORT_7_TCP_ADDR={}", source.ip());
    assert_ne!(new, old);
    let speaks = || recipient.exec(["sh", "-c", "echo words | nc -w 1 alias 7"]).stdout.ends_with("words\n");
    wait_until("the alias follows", SOON, speaks);
    let links = lab.runtime(["links", "--format", "json"]).ok();
    assert!(links.contains(&new) && !links.contains(&old), "{links}");
    // A process keeps the environment that it was given; the next one has the new.
    lab.docker(["restart", "-t", "0", "recipient"]).ok();
    let found = environment(&recipient);
    assert!(found.contains(&new) && !found.contains(&old), "{found:?}");
}

/// Takes one of the two entries of a conversation away, before its first answer; `answered`: that comes before the client asks
/// again.
fn assert_heals(lab: &Lab, server: &Container, lost: Zone, answered: bool) {
    // It hears, and answers when the test says so.
    let slow = server.ns().within(|| bind_udp((Ipv4Addr::UNSPECIFIED, 7))).expect("a socket");
    slow.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut buffer = [0; 64];
    let socket = lab.client().udp((HOST, 8000)).expect("a socket");
    let port = socket.local_addr().expect("its address").port().to_be();
    socket.send(b"first").expect("sent");
    let (_, client) = uninterrupted(|| slow.recv_from(&mut buffer)).expect("the first question");
    let mut pending: HashMap<MapData, FlowKey, Flow> = map(lab, "PENDING");
    let own = |key: &FlowKey| key.tuple.sport == port || key.tuple.dport == port;
    let pair: Vec<FlowKey> = pending.keys().flatten().filter(own).collect();
    assert_eq!(pair.len(), 2, "{pair:?}");
    let entry = pair.iter().find(|key| key.zone == lost as u8).expect("an entry of that zone");
    pending.remove(entry).expect("removed");
    if answered {
        slow.send_to(b"into the gap", client).expect("sent");
    } else {
        // Who asks again at once is let through unseen: entries are looked after every half a second.
        std::thread::sleep(Duration::from_millis(600));
    }
    wait_until(&format!("the conversation heals without its entry of {lost:?}"), SOON, || {
        socket.send(b"again").expect("sent");
        let Ok((n, client)) = slow.recv_from(&mut buffer) else { return false };
        slow.send_to(&buffer[..n], client).expect("sent");
        socket.recv(&mut buffer).is_ok()
    });
}

fn half_pairs(title: &str) -> (Lab, Up, Container) {
    let lab = Lab::builder(title).build();
    let up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7/udp", "busybox", "sleep", "100000"]);
    (lab, up, server)
}

/// Of the two entries of a conversation one was pushed out, and its answers go astray for good.
#[test]
fn cilium_29305_half_a_pair_of_entries_heals() {
    let (lab, _up, server) = half_pairs("half a pair");
    assert_heals(&lab, &server, Zone::Endpoint, false);
    assert_heals(&lab, &server, Zone::Uplink, false);
    assert_heals(&lab, &server, Zone::Uplink, true);
}

/// The same, where an answer that found no entry has made one that is in the way.
#[test]
fn cilium_29305_half_a_pair_of_entries_heals_after_a_stray_answer() {
    let (lab, _up, server) = half_pairs("half a pair, a stray answer");
    assert_heals(&lab, &server, Zone::Endpoint, true);
}

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
        to: Ipv4Addr::LOCALHOST,
    };
    lab.assert_dropped("loopback", || wire.send(&way.udp(4000, 7, b"let me in")));
    assert!(inside.find(Duration::from_millis(300), |f| holds(f, b"let me in")).is_none());
}

/// UDP goes on to the old container after a restart, because an old entry still matches the client's packets.
#[test]
fn moby_8795_and_53384_netavark_1045_and_cilium_12859_udp_finds_the_restarted_container() {
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
