//! Who may use a published port, and how often.

use tests::sockets::{Talk, ask, is_silence};
use tests::{CLIENT, CLIENT2, HOST, Image, Lab};

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
