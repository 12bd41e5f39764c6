//! Whoever talks over a publication or link that goes is told at once, rather than left to wait.

use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use runtime_api::{Error, Ping, Published, Status, Unpublish};
use tests::sockets::{Talk, ask, is_silence};
use tests::{Container, HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// How long a peer may take to hear of it.
const PROMPTLY: Duration = Duration::from_secs(1);

/// Established connections in a container's own table: with `port` at its own end.
fn established(container: &Container, port: u16) -> usize {
    let net = format!("/proc/{}/net", container.pid());
    let tables = ["tcp", "tcp6"].map(|t| std::fs::read_to_string(format!("{net}/{t}")).unwrap_or_default());
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"01") && fields[1].ends_with(&format!(":{port:04X}"))
    };
    tables.iter().flat_map(|t| t.lines()).filter(is_one).count()
}

/// Where both ends are in containers, each is closed by itself or reset by the other, whichever comes first.
#[track_caller]
fn assert_told(talk: &mut Talk) {
    let kind = talk.hear_the_end().expect_err("cut").kind();
    assert!(matches!(kind, ConnectionAborted | ConnectionReset), "{kind}");
}

#[test]
fn clients_of_an_unpublished_port_are_reset() {
    let lab = Lab::builder("unpublish tells").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8001:7", "-p", "8000:7/udp", "echo"]);
    let sibling = lab.run("sibling", &["echo"]);
    let mut outside = Talk::when_up(lab.client(), (HOST, 8000));
    let mut half_closed = Talk::open(lab.client(), (HOST, 8000)).expect("a talk");
    let mut beside = Talk::open(&sibling.ns(), (HOST, 8000)).expect("a talk");
    let mut stays = Talk::open(lab.client(), (HOST, 8001)).expect("a talk");
    let udp = lab.client().udp((HOST, 8000)).expect("a socket");
    ask(&udp, b"before").expect("an answer");
    half_closed.finish_saying().expect("a half-closed connection");
    half_closed.hear_the_end().expect("the echo server closes in turn");

    lab.assert_carried(|| lab.runtime(["unpublish", "server", "8000:7"]).ok());
    assert_eq!(outside.hear_the_end().expect_err("cut").kind(), ConnectionReset);
    assert_told(&mut beside);
    wait_until("the server is told too", PROMPTLY, || established(&server, 7) == 1);
    stays.say(b"untouched").expect("another publication of the same port");
    ask(&udp, b"untouched").expect("the same host port over UDP");
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err());
    Talk::open(lab.client(), (HOST, 8001)).expect("the listener stands");
}

#[test]
fn a_thousand_clients_are_reset_together() {
    const CLIENTS: usize = 1000;
    let lab = Lab::builder("a crowd").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    let open = |_| Talk::open(lab.client(), (HOST, 8000)).expect("a talk");
    let mut crowd: Vec<Talk> = (0..CLIENTS).map(open).collect();
    lab.runtime(["unpublish", "server", "8000:7"]).ok();
    // Each would wait for a second in vain.
    for talk in &mut crowd {
        assert_eq!(talk.hear_the_end().expect_err("cut").kind(), ConnectionReset);
    }
    assert_eq!(established(&server, 7), 0);
}

/// Takes the first publication away, beside the test.
fn unpublish(lab: &Lab) -> JoinHandle<Result<Published, Error>> {
    let daemon = lab.daemon();
    let call = Unpublish { container: "server".to_owned(), spec: "8000:7".to_owned() };
    std::thread::spawn(move || daemon.call(call))
}

/// A server with two publications, and many clients of the first.
fn crowd(lab: &Lab, clients: usize) -> Vec<Talk> {
    lab.run("server", &["-p", "8000:7", "-p", "8001:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    (0..clients).map(|_| Talk::open(lab.client(), (HOST, 8000)).expect("a talk")).collect()
}

/// Whether `status` says that the first publication is in force no longer.
fn is_closed(lab: &Lab) -> bool {
    let rows = lab.daemon().call(Status).expect("an answer").publications;
    rows.iter().filter(|r| r.publication.host_port == 8000).all(|r| r.state == "closed")
}

#[test]
fn the_daemon_answers_while_it_tells_a_crowd() {
    const ENOUGH: usize = 3;
    let lab = Lab::builder("answers meanwhile").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let mut crowd = crowd(&lab, 3000);
    // One question may be heard together with the change, and answered before that is made; one that is asked after the
    // answer to another is not. A daemon that tells the crowd first is silent until all of it is told.
    let mut answered = 0;
    for _ in 0..5 {
        let unpublish = unpublish(&lab);
        while !unpublish.is_finished() {
            lab.daemon().call(Ping).expect("an answer");
            answered += 1;
        }
        unpublish.join().expect("a thread").expect("an answer");
        // Who asked hears of it when everybody is told.
        for talk in &mut crowd {
            assert_eq!(talk.hear_the_end().expect_err("cut").kind(), ConnectionReset);
        }
        if answered > ENOUGH {
            break;
        }
        answered = 0;
        lab.runtime(["publish", "server", "8000:7"]).ok();
        crowd = (0..3000).map(|_| Talk::open(lab.client(), (HOST, 8000)).expect("a talk")).collect();
    }
    assert!(answered > ENOUGH, "the crowd is told before anybody else is served");
    lab.runtime(["publish", "server", "8010:7"]).ok();
    Talk::open(lab.client(), (HOST, 8010)).expect("a talk").say(b"afterwards").expect("an echo");
}

#[test]
fn a_daemon_that_ends_tells_everybody_first() {
    let lab = Lab::builder("ends meanwhile").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let mut crowd = crowd(&lab, 2000);
    let unpublish = unpublish(&lab);
    wait_until("the port is closed", SOON, || is_closed(&lab));
    assert!(up.stop().success());
    unpublish.join().expect("a thread").expect("an answer");
    for talk in &mut crowd {
        assert_eq!(talk.hear_the_end().expect_err("cut").kind(), ConnectionReset);
    }
}

#[test]
fn whom_a_killed_daemon_has_not_told_the_next_one_tells() {
    let lab = Lab::builder("killed meanwhile").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let mut crowd = crowd(&lab, 2000);
    let mut stays = Talk::open(lab.client(), (HOST, 8001)).expect("a talk");
    let unpublish = unpublish(&lab);
    wait_until("the port is closed", SOON, || is_closed(&lab));
    up.kill();
    unpublish.join().expect("a thread").expect_err("the daemon is dead");
    let _up = lab.up(&[]);
    for talk in &mut crowd {
        assert_eq!(talk.hear_the_end().expect_err("cut").kind(), ConnectionReset);
    }
    stays.say(b"untouched").expect("another publication of the same port");
}

#[test]
fn both_ends_of_a_link_are_told_when_it_goes() {
    let lab = Lab::builder("unlink tells").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["echo"]);
    let recipient = lab.run("recipient", &["--link", "source:alias", "echo"]);
    let other = lab.run("other", &["--link", "source:alias", "echo"]);
    let mut cut = Talk::when_up(&recipient.ns(), source.at(7));
    let mut stays = Talk::when_up(&other.ns(), source.at(7));
    assert_eq!(established(&source, 7), 2);
    lab.runtime(["unlink", "recipient", "alias"]).ok();
    assert_told(&mut cut);
    wait_until("the source is told too", PROMPTLY, || established(&source, 7) == 1);
    stays.say(b"untouched").expect("another recipient's link");
}

#[test]
fn peers_of_a_container_that_restarts_do_not_hang() {
    let lab = Lab::builder("restart tells").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["-p", "8000:7", "echo"]);
    let recipient = lab.run("recipient", &["--link", "source:alias", "echo"]);
    let mut outside = Talk::when_up(lab.client(), (HOST, 8000));
    let mut linked = Talk::open(&recipient.ns(), source.at(7)).expect("a talk");
    lab.docker(["restart", "-t", "0", "source"]).ok();
    for talk in [&mut outside, &mut linked] {
        // The dying instance says FIN, or what follows says RST: either ends the wait.
        if let Err(e) = talk.hear_the_end() {
            assert!(!is_silence(&e), "a peer of the old instance is left waiting: {e}");
        }
    }
    Talk::when_up(lab.client(), (HOST, 8000)).say(b"anew").expect("an echo");
    Talk::when_up(&recipient.ns(), source.at(7)).say(b"anew").expect("an echo");
}

#[test]
fn what_was_unpublished_is_listed_no_longer() {
    let lab = Lab::builder("lists").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8001:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.runtime(["unpublish", "server", "8000:7"]).ok();
    lab.runtime(["publish", "server", "8002:7"]).ok();
    let template = "{{range .NetworkSettings.Ports}}{{range .}}{{.HostPort}} {{end}}{{end}}";
    let lists = [
        lab.runtime(["port", "server"]).ok(),
        lab.runtime(["inspect", "-f", template, "server"]).ok(),
        lab.runtime(["ps", "--format", "{{.Ports}}"]).ok(),
    ];
    for list in lists {
        assert!(!list.contains("8000") && list.contains("8001") && list.contains("8002"), "{list}");
    }
    let message = lab.runtime(["run", "--rm", "-p", "8000:7", "echo"]).fails(1);
    assert!(message.contains("8000/tcp") && message.contains("unpublished from container \"server\""), "{message}");
    lab.runtime(["publish", "server", "8000:7"]).ok();
    Talk::when_up(lab.client(), (HOST, 8000)).say(b"given back").expect("an echo");
    wait_until("it is listed again", SOON, || lab.runtime(["port", "server"]).ok().contains("8000"));
}

#[test]
fn who_has_a_clients_address_next_has_none_of_its_conversations() {
    let lab = Lab::builder("a client's end").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    lab.docker(["network", "create", "--subnet", "10.77.0.0/24", "net"]).ok();
    let with_that_address = |name| {
        lab.docker(["run", "-d", "--name", name, "--network", "net", "--ip", "10.77.0.9", "echo"]).ok();
        lab.container(name)
    };
    let client = with_that_address("client");
    // Of a container's start it is told when its process runs.
    let mut talk = Talk::when_up(&client.ns(), (HOST, 8000));
    let from = || SocketAddr::from(([10, 77, 0, 9], 40000));
    let udp = client.ns().udp_from(from(), (HOST, 8000)).expect("a socket");
    for _ in 0..2 {
        ask(&udp, b"a conversation").expect("an answer");
    }

    lab.docker(["network", "disconnect", "net", "client"]).ok();
    assert_told(&mut talk);
    wait_until("the server is told too", PROMPTLY, || established(&server, 7) == 0);

    let other = with_that_address("other");
    // Once it is served; before the collector comes by.
    Talk::when_up(&other.ns(), (HOST, 8000));
    let its = other.ns().udp_from(from(), (HOST, 8000)).expect("a socket");
    ask(&its, b"by somebody else").expect("from the same port, a conversation of its own");
}
