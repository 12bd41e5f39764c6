//! Who may use a published port, and how often.

use std::net::Ipv6Addr;
use std::time::Duration;

use tests::frames::{BROADCAST, Way, Wire, holds};
use tests::sockets::{Talk, ask, ask_when_up, is_silence};
use tests::{CLIENT, CLIENT2, HOST, Image, Lab, Netns, wait_until};

const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT2_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);

#[test]
fn a_publication_takes_only_the_sources_that_it_allows() {
    for xdp in ["off", "native"] {
        let lab = Lab::builder("filters").client2().without_client_offloads().images(&[Image::Echo]).build();
        let _up = lab.up(&["--xdp", xdp]);
        let only = format!("{CLIENT}/32");
        lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "--allow-from", &only, "echo"]);
        lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).say(b"hello").expect("an echo"));
        let error = lab.assert_dropped("filtered", || lab.client2().tcp((HOST, 8000))).expect_err("not allowed");
        assert!(is_silence(&error), "{error}");
        let udp = lab.client2().udp((HOST, 8000)).expect("a socket");
        lab.assert_dropped("filtered", || assert!(ask(&udp, b"hello").is_err()));
    }
}

/// Not by what the host's stack would take for the same packet: a tag that names no VLAN, a frame to everybody, headers that the
/// ports are hidden behind. The network is not isolated: nothing else keeps it out.
#[test]
fn a_filter_is_passed_by_no_other_form_of_a_packet() {
    let lab = Lab::builder("filters and frames").client2().without_client_offloads().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.docker(["network", "create", "open"]).ok();
    let only = format!("{CLIENT}/32");
    let server = lab.run("server", &["--network", "open", "-p", "8000:7/udp", "--allow-from", &only, "echo"]);
    ask_when_up(lab.client(), (HOST, 8000), b"hello");
    let inside = Wire::open(&server.ns(), "eth0");
    let arrives = |words: &[u8]| inside.find(Duration::from_millis(300), |f| holds(f, words)).is_some();
    let way = |ns: &Netns, from| Way { from_mac: ns.mac("eth0"), to_mac: lab.host().mac("eth0"), from, to: HOST };
    let (allowed, refused) = (way(lab.client(), CLIENT), way(lab.client2(), CLIENT2));
    let (by_allowed, by_refused) = (Wire::open(lab.client(), "eth0"), Wire::open(lab.client2(), "eth0"));
    // Priority 5, no VLAN.
    let prioritised = |way: Way, words: &[u8]| {
        let frame = way.udp(4000, 8000, words);
        [&frame[..12], &[0x81, 0, 0xa0, 0], &frame[12..]].concat()
    };
    by_allowed.send(&prioritised(allowed, b"a priority"));
    assert!(arrives(b"a priority"), "a tag without a VLAN changes nothing");
    lab.assert_dropped("filtered", || by_refused.send(&prioritised(refused, b"a refused priority")));
    assert!(!arrives(b"a refused priority"));
    let mut twice = prioritised(refused, b"two priorities");
    twice.splice(12..12, [0x81, 0, 0xa0, 0]);
    lab.assert_dropped("malformed", || by_refused.send(&twice));
    assert!(!arrives(b"two priorities"));
    let everybody = Way { to_mac: BROADCAST, ..refused };
    lab.assert_dropped("filtered", || by_refused.send(&everybody.udp(4000, 8000, b"to everybody")));
    assert!(!arrives(b"to everybody"));

    // Without IPv6 on the container's network, a socket of the host's serves that.
    let hidden = hidden_datagram(lab.client2().mac("eth0"), lab.host().mac("eth0"), b"hidden ports");
    lab.assert_dropped("protocol_unsupported", || by_refused.send(&hidden));
    assert!(!arrives(b"hidden ports"));
}

/// A datagram for port 8000 behind a fragment header, of a packet that is whole, and options for the destination.
fn hidden_datagram(from: [u8; 6], to: [u8; 6], words: &[u8]) -> Vec<u8> {
    let way = Way { from_mac: from, to_mac: to, from: CLIENT2_V6, to: HOST_V6 };
    let plain = way.udp(4000, 8000, words);
    let headers = [60, 0, 0, 0, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0];
    let mut frame = [&plain[..54], &headers, &plain[54..]].concat();
    frame[20] = 44;
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn a_filter_changes_live_and_the_longest_prefix_decides() {
    let lab = Lab::builder("live filters").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    let mut refused_later = Talk::when_up(lab.client2(), (HOST, 8000));
    refused_later.say(b"hello").expect("an echo");

    let (all, one) = ("192.0.2.0/24", format!("{CLIENT2}"));
    lab.runtime(["publish", "server", "8000:7", "--allow-from", all, "--deny-from", &one]).ok();
    // What was allowed before has ended, and its client was told.
    assert_eq!(refused_later.hear_the_end().expect_err("cut").kind(), std::io::ErrorKind::ConnectionReset);
    lab.assert_dropped("filtered", || lab.client2().tcp((HOST, 8000))).expect_err("denied");
    Talk::open(lab.client(), (HOST, 8000)).expect("allowed").say(b"hello").expect("an echo");
    let listed = lab.status()["publications"].to_string();
    assert!(listed.contains("deny-from"), "{listed}");

    lab.runtime(["publish", "server", "8000:7"]).ok();
    Talk::open(lab.client2(), (HOST, 8000)).expect("nothing is refused any more");
    lab.runtime(["publish", "server", "8001:7", "--allow-from", "192.0.2.0/33"]).fails(2);
}

#[test]
fn a_publication_takes_no_more_conversations_than_its_limit() {
    let lab = Lab::builder("limits").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7/udp", "-p", "8001:7/udp", "--max-rate", "1", "echo"]);
    tests::sockets::ask_when_up(lab.client(), (HOST, 8000), b"hello");
    // Each socket is a conversation of its own, and far more of them come than one a second.
    let flood = || {
        for _ in 0..200 {
            lab.client().udp((HOST, 8000)).expect("a socket").send(b"one more").expect("sent");
        }
    };
    lab.assert_dropped("rate_limited", flood);
    tests::sockets::ask_when_up(lab.client2(), (HOST, 8001), b"another port has its own limit");
    let error = lab.runtime(["publish", "server", "8002:7", "--max-rate", "often"]).fails(2);
    assert!(error.contains("\"often\""), "{error}");
}

/// One container takes as many sources as it is given, and the next is served all the same.
#[test]
fn filters_of_one_container_leave_room_for_the_others() {
    let lab = Lab::builder("a hog").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("hog", &["-p", "8000:7", "echo"]);
    lab.run("other", &["-p", "9000:7", "echo"]);
    let publish = |container: &str, port: u16, sources: &[String]| {
        let words = ["publish", container, &format!("{port}:7"), "--allow-from", &sources.join(",")].map(str::to_owned);
        lab.runtime(words)
    };
    let nth = |n: usize| (0..3000).map(|i| format!("10.{n}.{}.{}", i / 256, i % 256)).collect::<Vec<_>>();
    publish("hog", 8001, &nth(1)).ok();
    publish("hog", 8002, &nth(2)).ok();
    // The same list once more takes no room, and another one has none.
    publish("hog", 8003, &nth(1)).ok();
    let error = publish("hog", 8004, &nth(3)).fails(1);
    assert!(error.lines().count() == 1 && error.contains("container hog") && error.contains("8192"), "{error}");
    publish("other", 9001, &[CLIENT.to_string()]).ok();
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 9001)).say(b"hello").expect("an echo"));
    lab.assert_dropped("filtered", || lab.client2().tcp((HOST, 9001))).expect_err("not allowed");
    // What was refused has changed nothing.
    Talk::open(lab.client(), (HOST, 8000)).expect("the hog's own port").say(b"hello").expect("an echo");

    // What an image's labels say is bounded as well.
    let long = (1..4).flat_map(nth).collect::<Vec<_>>().join(",");
    let label = format!("runtime.allow-from={long}");
    lab.docker(["run", "-d", "--name", "labelled", "--label", &label, "-p", "9002:7", "echo"]).ok();
    wait_until("the daemon tells why", Duration::from_secs(10), || {
        let problems = lab.status()["problems"].to_string();
        problems.contains("labelled") && problems.contains("8192")
    });
    lab.assert_dropped("unpublished", || lab.client().tcp((HOST, 9002))).expect_err("closed");
    Talk::open(lab.client(), (HOST, 9001)).expect("still served").say(b"hello").expect("an echo");
}
