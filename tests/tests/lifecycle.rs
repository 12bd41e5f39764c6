//! Containers that stop, start, change their names and their networks under the daemon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::frames::{Wire, holds};
use tests::sockets::{Talk, ask_when_up, is_silence, pings};
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn publications_end_with_a_container_and_come_back_with_it() {
    let lab = Lab::builder("stop and start").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.start("server", &["-p", "8000:7", "echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
    lab.docker(["stop", "-t", "0", "server"]).ok();
    assert!(talk.say(b"are you there?").is_err());
    wait_until("nothing answers", SOON, || Talk::open(lab.client(), (HOST, 8000)).is_err());
    // Whoever gets the address now is not published.
    let heir = lab.start("heir", &["echo"]);
    Talk::when_up(lab.host(), heir.at(7));
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err());

    lab.docker(["start", "server"]).ok();
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).say(b"back").expect("an echo"));
    let mut talk = Talk::open(lab.client(), (HOST, 8000)).expect("a talk");
    lab.docker(["pause", "server"]).ok();
    lab.docker(["unpause", "server"]).ok();
    talk.say(b"still here").expect("a pause ends nothing");
    lab.docker(["rm", "-f", server.name()]).ok();
    assert!(talk.say(b"are you there?").is_err());
}

#[test]
fn a_new_name_changes_nothing_else() {
    let lab = Lab::builder("rename").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["echo"]);
    let recipient = lab.run("recipient", &["-p", "8000:7", "--link", "source:alias", "echo"]);
    let mut published = Talk::when_up(lab.client(), (HOST, 8000));
    let mut linked = Talk::when_up(&recipient.ns(), source.at(7));

    lab.docker(["rename", "recipient", "reader"]).ok();
    lab.docker(["rename", "source", "origin"]).ok();
    published.say(b"still published").expect("the flow goes on");
    linked.say(b"still linked").expect("the flow goes on");
    let reader = lab.container("reader");
    Talk::open(&reader.ns(), lab.container("origin").at(7)).expect("the link follows the container");
    Talk::open(lab.client(), (HOST, 8000)).expect("the publication follows the container");
    wait_until("the new names are known", SOON, || {
        lab.runtime(["inspect", "-f", "{{ .HostConfig.Links }}", "reader"]).ok() == "[/origin:/reader/alias]"
    });
    assert!(lab.runtime(["ps"]).ok().contains("reader"));
    lab.runtime(["port", "recipient"]).fails(1);
}

#[test]
fn networks_are_isolated_by_their_label() {
    let lab = Lab::builder("networks").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.docker(["network", "create", "--label", "runtime.isolate=true", "closed"]).ok();
    lab.docker(["network", "create", "open"]).ok();
    let server = lab.start("server", &["echo"]);
    let caller = lab.start("caller", &["echo"]);
    for network in ["closed", "open"] {
        lab.docker(["network", "connect", network, "server"]).ok();
        lab.docker(["network", "connect", network, "caller"]).ok();
    }
    Talk::when_up(lab.host(), server.at(7));
    let on = |network: &str| (server.ip_on(network), 7);

    Talk::open(&caller.ns(), on("open")).expect("containers talk on an open network").say(b"hello").expect("an echo");
    assert!(pings(&caller.ns(), server.ip_on("open")));
    let error = lab.assert_dropped("not_linked", || caller.ns().tcp(on("closed"))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    let mut talk = Talk::open(&caller.ns(), on("open")).expect("a talk");
    lab.docker(["network", "disconnect", "open", "server"]).ok();
    assert!(talk.say(b"are you there?").is_err());
}

#[test]
fn publications_follow_a_container_from_network_to_network() {
    let lab = Lab::builder("network to network").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.docker(["network", "create", "--label", "runtime.isolate=true", "closed"]).ok();
    let server = lab.start("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.docker(["network", "connect", "closed", "server"]).ok();
    // Podman gives the container a second default route of the same metric, and the container's kernel takes either: what leaves by an
    // interface that is not known yet is dropped.
    wait_until("the new network is known", SOON, || lab.status()["endpoints"].as_array().map(Vec::len) == Some(2));
    Talk::open(lab.client(), (HOST, 8000)).expect("one network more changes nothing");
    // The container's routes are its own affair: what leaves by the other interface is answered with the same address.
    let ns = server.ns();
    let routes = ns.run(["ip", "route", "show", "default"]).ok();
    let gateways = [lab.default_network(), "closed"]
        .map(|network| server.inspect(&format!("{{{{(index .NetworkSettings.Networks \"{network}\").Gateway}}}}")));
    let way = routes.split_whitespace().nth(2);
    let other = gateways.iter().find(|g| Some(g.as_str()) != way).expect("another gateway");
    ns.run(["ip", "route", "add", "128.0.0.0/1", "via", other]).ok();
    let mut talk = lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000))).expect("served by the other way");
    talk.transfer(1_000_000, |_| ()).expect("a transfer");
    ns.run(["ip", "route", "delete", "128.0.0.0/1"]).ok();
    lab.docker(["network", "disconnect", lab.default_network(), "server"]).ok();
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).say(b"the other network").expect("an echo"));
    ask_when_up(lab.client(), (HOST, 8000), b"the other network");
    assert!(lab.assert_dropped("not_published", || lab.client().tcp((server.ip_on("closed"), 8))).is_err());
    lab.docker(["network", "connect", lab.default_network(), "server"]).ok();
    Talk::when_up(lab.client(), (HOST, 8000)).say(b"and back").expect("an echo");

    // Published on a network without the label: served all the same.
    lab.docker(["network", "create", "open"]).ok();
    lab.start("elsewhere", &["--network", "open", "-p", "8001:7", "echo"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8001)).say(b"an open network").expect("an echo"));
}

#[test]
fn the_datapath_serves_on_while_the_engine_is_away() {
    let mut lab = Lab::builder("engine away").images(&[Image::Echo]).engine_arg("--live-restore").build();
    let mut up = lab.up(&[]);
    let server = lab.start("server", &["-p", "8000:7", "echo"]);
    let third = lab.start("third", &["echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
    let closed = server.at(7);
    let third_ns = third.ns();
    // What the daemon has not heard of when the Engine goes is closed until it is back.
    let known = || lab.status()["endpoints"].as_array().map_or(0, Vec::len);
    wait_until("both containers are known", SOON, || known() == 2);

    lab.stop_engine();
    talk.say(b"without an Engine").expect("the datapath goes on");
    Talk::open(lab.client(), (HOST, 8000)).expect("new connections too");
    assert!(lab.assert_dropped("not_linked", || third_ns.tcp(closed)).is_err());
    assert!(up.ended().is_none(), "the daemon ends when the Engine does:\n{}", up.output());

    lab.start_engine();
    talk.say(b"with an Engine").expect("the datapath goes on");
    lab.start("later", &["-p", "8001:7", "echo"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8001)).say(b"followed again").expect("an echo"));
}

/// Containers are started and restarted that do nothing but send to a sibling from their first moment on. Not one of these
/// packets may arrive, before the daemon knows a container nor after.
#[test]
fn a_starting_container_reaches_no_sibling_at_any_moment() {
    let lab = Lab::builder("start").images(&[Image::Busybox, Image::Echo]).build();
    let _up = lab.up(&[]);
    let sibling = lab.start("sibling", &["echo"]);
    let wire = Wire::open(&sibling.ns(), "eth0");
    let over = AtomicBool::new(false);
    let probe = "while true; do printf first-moment | timeout 1 nc -u -w 1 TARGET 7; done & ping -i 0.02 -p 77 TARGET";
    let probe = probe.replace("TARGET", &sibling.ip().to_string());
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let is_probe = |f: &[u8]| holds(f, b"first-moment") || holds(f, &[0x77; 32]);
            while !over.load(Ordering::Relaxed) {
                if let Some(frame) = wire.find(Duration::from_millis(100), is_probe) {
                    return Some(frame);
                }
            }
            None
        });
        for n in 0..3 {
            lab.docker(["run", "-d", "--name", &format!("prober{n}"), "busybox", "sh", "-c", &probe]).ok();
        }
        for n in 0..3 {
            lab.docker(["restart", "-t", "0", &format!("prober{n}")]).ok();
        }
        // The last one has tried as well.
        let before = lab.counters().packets("not_linked");
        wait_until("the probers are refused", SOON, || lab.counters().packets("not_linked") > before + 50);
        over.store(true, Ordering::Relaxed);
        let passed = watch.join().expect("the watcher");
        assert!(passed.is_none(), "a packet passed: {passed:02x?}");
    });
}
