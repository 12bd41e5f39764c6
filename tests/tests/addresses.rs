//! Addresses and uplinks of the host that come late, move and go, and names that change.

use std::time::Duration;

use tests::sockets::Talk;
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// An address that clients reach by their default routes, wherever on the host it is.
const LATE: &str = "203.0.113.5";

/// Interfaces with a program for packets from outside.
fn uplinks(lab: &Lab) -> Vec<String> {
    let status = lab.status();
    let hooks = status["hooks"].as_array().cloned().unwrap_or_default();
    let of_uplinks = hooks.iter().filter(|h| h["hook"] == "uplink_ingress");
    of_uplinks.filter_map(|h| h["interface"].as_str().map(str::to_owned)).collect()
}

#[test]
fn moby_39559_a_publication_follows_an_address_that_comes_late_and_moves() {
    let lab = Lab::builder("late addresses").second_uplink().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    let late = |port: u16| (LATE.parse::<std::net::Ipv4Addr>().expect("an address"), port);
    let message = lab.runtime(["publish", "server", &format!("{LATE}:9000:7")]).fails(1);
    assert!(message.contains(LATE), "{message}");
    assert!(Talk::open(lab.client(), late(8000)).is_err());

    let host = lab.host();
    host.run(["ip", "address", "add", &format!("{LATE}/32"), "dev", "eth0"]).ok();
    // The publication on every address, made before; and one on this address alone.
    lab.assert_carried(|| Talk::when_up(lab.client(), late(8000)).say(b"wildcard").expect("an echo"));
    lab.runtime(["publish", "server", &format!("{LATE}:9000:7")]).ok();
    lab.assert_carried(|| Talk::open(lab.client(), late(9000)).expect("a talk").say(b"single").expect("an echo"));
    assert!(Talk::open(lab.client(), (HOST, 9000)).is_err(), "served on another address");

    host.run(["ip", "address", "del", &format!("{LATE}/32"), "dev", "eth0"]).ok();
    host.run(["ip", "address", "add", &format!("{LATE}/32"), "dev", "eth1"]).ok();
    for client in [lab.client(), lab.client2()] {
        for port in [8000, 9000] {
            lab.assert_carried(|| Talk::when_up(client, late(port)).say(b"moved").expect("an echo"));
        }
    }
    host.run(["ip", "address", "del", &format!("{LATE}/32"), "dev", "eth1"]).ok();
    wait_until("nobody answers at an address that is gone", SOON, || Talk::open(lab.client(), late(8000)).is_err());
    Talk::open(lab.client(), (HOST, 8000)).expect("the other addresses stay");
}

#[test]
fn an_uplink_that_appears_is_taken_up_and_one_that_vanishes_is_let_go() {
    let lab = Lab::builder("late uplinks").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    let mut stays = Talk::when_up(lab.client(), (HOST, 8000));
    assert_eq!(uplinks(&lab), ["eth0"]);
    let (host, client) = (lab.host(), lab.client());
    // The client's end is made by the host and moved over, so that each has one of its own.
    let client_ns = client.path().file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
    for round in 0..2 {
        host.run(["ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1", "netns", &client_ns]).ok();
        for (ns, device, address) in [(host, "late0", "203.0.113.1/24"), (client, "late1", "203.0.113.2/24")] {
            ns.run(["ip", "address", "add", address, "dev", device]).ok();
            ns.run(["ip", "link", "set", device, "up"]).ok();
        }
        wait_until("the new uplink is taken up", SOON, || uplinks(&lab) == ["eth0", "late0"]);
        let mut talk = lab.assert_carried(|| Talk::when_up(client, ([203, 0, 113, 1], 8000)));
        talk.say(b"through the new one").expect("an echo");
        host.run(["ip", "link", "del", "late0"]).ok();
        wait_until("the old uplink is let go", SOON, || uplinks(&lab) == ["eth0"]);
        let problems = lab.status()["problems"].clone();
        assert_eq!(problems.as_array().map(Vec::len), Some(0), "round {round}: {problems}");
        stays.say(b"untouched").expect("the other uplink");
    }
}

#[test]
fn a_link_stays_with_its_source_when_that_is_renamed() {
    let lab = Lab::builder("renamed").images(&[Image::Echo]).build();
    lab.docker(["network", "create", "--label", "runtime.isolate=true", "own"]).ok();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["--network", "own", "echo"]);
    let recipient = lab.run("recipient", &["--network", "own", "--link", "source:alias", "echo"]);
    let at = |name: &str| std::net::SocketAddr::from((lab.container(name).ip_on("own"), 7));
    let mut talk = Talk::when_up(&recipient.ns(), at(source.name()));

    lab.docker(["rename", "source", "renamed"]).ok();
    // Has the daemon look at the recipient again.
    lab.docker(["rename", "recipient", "also-renamed"]).ok();
    lab.start("source", &["--network", "own", "echo"]);
    wait_until("both names are known", SOON, || {
        let links = lab.runtime(["links"]).ok();
        links.contains("also-renamed") && links.contains("renamed")
    });
    talk.say(b"still linked").expect("the conversation goes on");
    let recipient = lab.container("also-renamed");
    Talk::open(&recipient.ns(), at("renamed")).expect("linked to the container, not to its name");
    lab.assert_dropped("not_linked", || {
        assert!(recipient.ns().tcp(at("source")).is_err(), "who has the source's name is not linked");
    });
}

#[test]
fn rules_that_redirected_packets_pass_by_are_named() {
    let lab = Lab::builder("a firewall").images(&[Image::Echo]).build();
    lab.host().run(["iptables", "-I", "DOCKER-USER", "-s", "192.0.2.2", "-p", "tcp", "-j", "DROP"]).ok();
    let up = lab.up(&[]);
    let rule = "-A DOCKER-USER -s 192.0.2.2/32 -p tcp -j DROP";
    assert!(up.output().contains(rule), "up says nothing of it:\n{}", up.output());
    let problems = || {
        let status = lab.status();
        let all = status["problems"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|p| p.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    // It is the only one: Docker's own rules are no problem, those of a publication included.
    lab.run("server", &["-p", "8000:7", "echo"]);
    let told = problems();
    assert!(told.len() == 1 && told[0].contains(rule) && told[0].contains("--deny-from 192.0.2.2/32"), "{told:?}");
    // And it is true.
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.host().run(["iptables", "-D", "DOCKER-USER", "-s", "192.0.2.2", "-p", "tcp", "-j", "DROP"]).ok();
    assert_eq!(problems(), [""; 0]);
}
