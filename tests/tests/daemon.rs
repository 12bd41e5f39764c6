//! The daemon killed, ended, started again; taking over a running host, and leaving it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::sockets::{Talk, ask, is_silence};
use tests::traces::{files, look, objects};
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn what_a_dead_daemon_left_in_force_is_not_denied() {
    let lab = Lab::builder("a dead daemon").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    up.kill();
    for words in [&["status"][..], &["links"], &["publish", "server", "8001:7"]] {
        let told = lab.runtime(words).fails(1);
        assert!(
            told.contains("what it served goes on without it") && told.contains("runtime down"),
            "{words:?}: {told}"
        );
    }
    Talk::open(lab.client(), (HOST, 8000)).expect("a talk").say(b"without a daemon").expect("an echo");
    lab.down();
    let told = lab.runtime(["status"]).fails(1);
    assert!(told.contains("the datapath is not up"), "{told}");
}

#[test]
fn a_transfer_survives_the_daemon_being_killed_and_the_next_adopts_it() {
    survive_a_kill(&[]);
}

#[test]
fn clsact_filters_survive_a_kill_and_are_replaced_not_doubled() {
    let lab = survive_a_kill(&["--clsact"]);
    for (hook, program) in [("ingress", "uplink_ingress"), ("egress", "to_endpoint")] {
        for interface in lab.host().run(["ls", "/sys/class/net"]).ok().split_whitespace() {
            let listed = lab.host().run(["tc", "filter", "show", "dev", interface, hook]).stdout;
            assert!(listed.matches(" handle ").count() <= 1, "{program} on {interface}: {listed}");
        }
    }
    lab.down();
    for interface in lab.host().run(["ls", "/sys/class/net"]).ok().split_whitespace() {
        for hook in ["ingress", "egress"] {
            let listed = lab.host().run(["tc", "filter", "show", "dev", interface, hook]).stdout;
            assert!(listed.trim().is_empty(), "{interface} {hook}: {listed}");
        }
        let qdiscs = lab.host().run(["tc", "qdisc", "show", "dev", interface]).stdout;
        assert!(!qdiscs.contains("clsact"), "{interface}: {qdiscs}");
    }
}

fn survive_a_kill(arguments: &[&str]) -> Lab {
    let lab = Lab::builder("kill -9").images(&[Image::Echo]).build();
    let up = lab.up(arguments);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let third = lab.run("third", &["echo"]);
    let mut transfer = Talk::when_up(lab.client(), (HOST, 8000));
    let mut held = Talk::open(lab.client(), (HOST, 8000)).expect("a talk");
    let udp = lab.client().udp((HOST, 8000)).expect("a socket");
    ask(&udp, b"before").expect("an answer");

    let (moved, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for the transfer.
        let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
        let running = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                transfer.transfer(1_000_000, |_| ())?;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            std::io::Result::Ok(())
        });
        let more = |what: &str| {
            let seen = moved.load(Ordering::Relaxed);
            let goes_on = || moved.load(Ordering::Relaxed) > seen + 1 || running.is_finished();
            wait_until(what, SOON, goes_on);
        };
        more("the transfer runs");
        up.kill();
        more("the transfer goes on without a daemon");
        held.say(b"without a daemon").expect("an echo");
        ask(&udp, b"without a daemon").expect("an answer");
        Talk::open(lab.client(), (HOST, 8000)).expect("new connections are served without a daemon");
        let error = third.ns().tcp(server.at(7)).expect_err("the gate holds without a daemon");
        assert!(is_silence(&error), "{error}");
        let next = lab.up(arguments);
        more("the transfer goes on under the next daemon");
        enough.store(true, Ordering::Relaxed);
        running.join().expect("the transfer's thread").expect("the transfer");
        held.say(b"adopted").expect("an echo");
        ask(&udp, b"adopted").expect("an answer");
        lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000)).expect("a talk"));
        // It follows the Engine again.
        lab.start("later", &["-p", "8001:7", "echo"]);
        Talk::when_up(lab.client(), (HOST, 8001));
        drop(next);
    });
    lab
}

/// The verifier gives up where a signal arrives, and nobody can choose when a process is stopped and goes on.
#[test]
fn a_daemon_that_is_stopped_and_goes_on_while_the_kernel_verifies_comes_up() {
    let lab = Lab::builder("interrupted").build();
    let up = lab.up_while(&[], |process| {
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(40));
            process.signal(Signal::SIGSTOP);
            process.signal(Signal::SIGCONT);
        }
    });
    assert_eq!(lab.status()["enforcing"], true, "{}", up.output());
}

#[test]
fn what_changed_while_no_daemon_ran_is_made_good_at_the_next_start() {
    let lab = Lab::builder("changes without a daemon").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let source = lab.run("source", &["echo"]);
    let recipient = lab.run("recipient", &["-p", "8000:7", "--link", "source", "echo"]);
    lab.run("gone", &["-p", "8001:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    up.kill();
    lab.move_container(&source);
    lab.move_container(&recipient);
    lab.docker(["rm", "-f", "gone"]).ok();
    lab.start("new", &["-p", "8002:7", "echo"]);

    let _up = lab.up(&[]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).say(b"moved").expect("an echo"));
    Talk::when_up(&recipient.ns(), source.at(7)).say(b"linked").expect("an echo");
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8002)).say(b"new").expect("an echo"));
    assert!(Talk::open(lab.client(), (HOST, 8001)).is_err());
}

#[test]
fn up_and_down_break_no_connection_that_dockers_rules_carry() {
    let lab = Lab::builder("takeover").images(&[Image::Echo]).build();
    lab.start("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let mut before = Talk::when_up(lab.client(), (HOST, 8000));
    before.transfer(100_000, |_| ()).expect("a transfer by Docker's rules");
    let udp = lab.client().udp((HOST, 8000)).expect("a socket");
    ask(&udp, b"by Docker's rules").expect("an answer");

    let up = lab.up(&[]);
    before.say(b"after up").expect("what Docker's rules carried goes on");
    before.transfer(1_000_000, |_| ()).expect("and moves data");
    ask(&udp, b"after up").expect("an answer");
    let mut under = lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8000)).expect("a talk"));
    under.transfer(100_000, |_| ()).expect("a transfer by the datapath");

    assert!(up.stop().success());
    under.say(b"daemon stopped").expect("the datapath goes on");
    lab.down();
    before.say(b"after down").expect("Docker's rules carry it still");
    under.say(b"after down").expect("Docker's rules pick it up");
    under.transfer(1_000_000, |_| ()).expect("and move data");
    Talk::open(lab.client(), (HOST, 8000)).expect("Docker's rules serve").say(b"new").expect("an echo");
}

#[test]
fn down_leaves_nothing_behind() {
    for xdp in ["off", "native"] {
        let lab = Lab::builder("down").second_uplink().without_client_offloads().images(&[Image::Echo]).build();
        let source = lab.start("source", &["-p", "8000:7", "echo"]);
        lab.start("recipient", &["--link", "source", "echo"]);
        Talk::when_up(lab.client(), (HOST, 8000));
        let before = look(&lab);

        let up = lab.up(&["--xdp", xdp]);
        lab.runtime(["publish", "source", "8001:7"]).ok();
        lab.assert_carried(|| Talk::open(lab.client(), (HOST, 8001)).expect("a talk"));
        let objects = objects(&lab);
        let kinds: BTreeSet<&str> = objects.iter().map(|(kind, _)| kind.as_str()).collect();
        assert!(kinds.contains("prog") && kinds.contains("map"), "{kinds:?} pinned");
        up.stop();
        lab.down();

        assert_eq!(files(lab.pins()), Vec::<PathBuf>::new());
        assert_eq!(files(&lab.dir().join("run")), Vec::<PathBuf>::new());
        let after = look(&lab);
        let (new, gone) = (after.difference(&before), before.difference(&after));
        let changes: Vec<_> = new.map(|l| format!("+ {l}")).chain(gone.map(|l| format!("- {l}"))).collect();
        assert!(changes.is_empty(), "--xdp {xdp}: the host is not what it was:\n{}", changes.join("\n"));
        for (kind, id) in &objects {
            // The kernel frees a program or map some moments after its last user is gone.
            let gone = || !lab.host().run(["bpftool", kind, "show", "id", id]).success();
            wait_until(&format!("--xdp {xdp}: {kind} {id} is gone"), SOON, gone);
        }
        Talk::open(&lab.container("recipient").ns(), source.at(7)).expect("Docker's own rules are back");
        // Nothing to take away is no error.
        lab.down();
    }
}

#[test]
fn a_detached_daemon_serves_and_is_taken_down() {
    let lab = Lab::builder("detached").images(&[Image::Echo]).build();
    lab.runtime(["up", "--detach"]).ok();
    lab.run("server", &["-p", "8000:7", "echo"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).say(b"hello").expect("an echo"));
    let message = lab.runtime(["up"]).fails(1);
    assert!(message.contains("already up"), "a second daemon is refused: {message}");
    lab.down();
    lab.runtime(["status"]).fails(1);
}
