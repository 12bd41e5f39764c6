//! Interfaces that `--uplink` leaves out: what arrives there is the engine's own rules' affair, not lost.

use std::net::Ipv4Addr;

use tests::sockets::{Talk, ask_when_up, is_silence};
use tests::{HOST, HOST2, Image, Lab};

/// The second client, behind the uplink that is not served.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

#[test]
fn what_arrives_by_an_uplink_that_is_not_served_is_left_to_dockers_rules() {
    let lab = Lab::builder("an uplink left out").second_uplink().images(&[Image::Echo]).build();
    let _up = lab.up(&["--uplink", "eth0"]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let stranger = lab.run("stranger", &["echo"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).transfer(100_000, |_| ()).expect("a transfer"));

    let problems = lab.status()["problems"].to_string();
    assert!(
        problems.contains("interface eth1: not served") && problems.contains("name it with --uplink"),
        "{problems}"
    );
    let before = lab.counters();
    let mut talk = Talk::when_up(lab.client2(), (HOST2, 8000));
    assert_eq!(talk.seen(), talk.ours(), "Docker's rules keep the client's address as well");
    talk.transfer(1_000_000, |_| ()).expect("a transfer by Docker's rules");
    // In fragments as well.
    for size in [1, 4000] {
        let (seen, port) = ask_when_up(lab.client2(), (HOST2, 8000), &vec![b'x'; size]);
        assert_eq!(seen, (ELSEWHERE, port).into());
    }
    let added = lab.counters().since(&before);
    assert!(added.packets("unserved") > 0, "{added}");
    assert_eq!(added.of_kind("drop"), 0, "{added}");

    // The other way round: a container's own conversation with somebody there.
    let listener = lab.client2().within(|| std::net::TcpListener::bind((ELSEWHERE, 9000))).expect("a listener");
    stranger.ns().tcp((ELSEWHERE, 9000)).expect("a connection to the outside");
    drop(listener);

    // Isolation is what it was.
    let error = lab.assert_dropped("not_linked", || stranger.ns().tcp(server.at(7))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    let error = lab.assert_dropped("not_published", || lab.client().tcp(server.at(7))).expect_err("not published");
    assert!(is_silence(&error), "{error}");
    // Docker's rules let through what they publish, and nothing else.
    lab.client2().tcp(stranger.at(7)).expect_err("not published by Docker's rules");
}

#[test]
fn what_leads_to_containers_is_no_uplink() {
    let lab = Lab::builder("an uplink that is none").images(&[Image::Echo]).build();
    let bridge = if lab.engine().is_podman() { "podman0" } else { "docker0" };
    let server = lab.start("server", &["echo"]);
    let stranger = lab.start("stranger", &["echo"]);
    let veths = lab.host().run(["ip", "-o", "link", "show", "type", "veth"]).ok();
    let veth =
        veths.lines().filter_map(|l| l.split(": ").nth(1)?.split('@').next()).find(|name| name.starts_with("veth"));
    let veth = veth.expect("a container's interface");
    let _up = lab.up(&["--uplink", "eth0", "--uplink", bridge, "--uplink", veth]);
    let problems = lab.status()["problems"].to_string();
    for name in [bridge, veth] {
        assert!(problems.contains(&format!("uplink {name}: it leads to containers")), "{problems}");
    }
    let error = lab.assert_dropped("not_linked", || stranger.ns().tcp(server.at(7))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    lab.runtime(["up", "--uplink", ""]).fails(2);
}
