//! Links and publications that change while containers run.

use std::time::Duration;

use tests::sockets::{Talk, ask, ask_when_up, pings};
use tests::{Container, HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn pair(lab: &Lab) -> (Container, Container) {
    let source = lab.run("source", &["echo"]);
    let recipient = lab.run("recipient", &["echo"]);
    Talk::when_up(lab.host(), source.at(7));
    (source, recipient)
}

#[test]
fn unpublish_cuts_what_it_carried() {
    let lab = Lab::builder("unpublish").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "-p", "8001:7", "-p", "8000:7/udp", "echo"]);
    let mut cut = Talk::when_up(lab.client(), (HOST, 8000));
    let mut stays = Talk::when_up(lab.client(), (HOST, 8001));
    let udp = lab.client().udp((HOST, 8000)).expect("a socket");
    ask(&udp, b"before").expect("an answer");

    lab.runtime(["unpublish", "server", "8000:7"]).ok();
    assert!(cut.say(b"are you there?").is_err(), "an established connection survives unpublish");
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err(), "a new connection is served after unpublish");
    stays.say(b"untouched").expect("another publication of the same port");
    ask(&udp, b"untouched").expect("the same host port over UDP");

    lab.runtime(["unpublish", "server", "8000:7/udp"]).ok();
    assert!(ask(&udp, b"after").is_err(), "an answered UDP flow survives unpublish");
    stays.say(b"untouched").expect("another publication of the same port");
}

#[test]
fn what_the_disk_does_not_take_is_not_made() {
    let lab = Lab::builder("full disk").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    lab.run("server", &["-p", "8001:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8001));
    lab.runtime(["publish", "server", "8002:7"]).ok();
    // Where the changes are written first: nobody can write to a folder, not even root.
    let in_the_way = lab.dir().join("state/live.json.new");
    std::fs::create_dir(&in_the_way).expect("a folder");
    let refused = lab.runtime(["publish", "server", "8000:7"]).fails(1);
    assert!(refused.contains("live.json"), "{refused}");
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err(), "it is served all the same");
    let refused = lab.runtime(["unpublish", "server", "8002:7"]).fails(1);
    assert!(refused.contains("live.json"), "{refused}");
    Talk::open(lab.client(), (HOST, 8002)).expect("what stood stands");
    let listed = lab.runtime(["port", "server", "7/tcp"]).ok();
    assert!(listed.contains(":8001") && listed.contains(":8002") && !listed.contains(":8000"), "{listed}");

    std::fs::remove_dir(&in_the_way).expect("the folder");
    lab.runtime(["publish", "server", "8000:7"]).ok();
    up.kill();
    let _up = lab.up(&[]);
    for port in [8000, 8001, 8002] {
        Talk::open(lab.client(), (HOST, port)).unwrap_or_else(|e| panic!("{port}: {e}"));
    }
}

/// As a daemon leaves it that is killed when the kernel has its changes and the disk has not: nobody was told that they are made.
#[test]
fn what_a_killed_daemon_had_not_written_is_taken_back_by_the_next() {
    let lab = Lab::builder("killed before it wrote").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let (source, recipient) = pair(&lab);
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.runtime(["publish", "server", "8001:7"]).ok();
    let file = lab.dir().join("state/live.json");
    let written = std::fs::read(&file).expect("the changes on disk");
    lab.runtime(["publish", "server", "8002:7"]).ok();
    lab.runtime(["unpublish", "server", "8001:7"]).ok();
    lab.runtime(["link", "recipient", "source:alias", "--all-ports"]).ok();
    up.kill();
    std::fs::write(&file, written).expect("the changes on disk");
    let mut published = Talk::open(lab.client(), (HOST, 8002)).expect("the kernel has it");
    let mut linked = Talk::open(&recipient.ns(), source.at(7)).expect("the kernel has it");

    let _up = lab.up(&[]);
    assert!(published.say(b"still there?").is_err(), "a connection survives the publication that carried it");
    assert!(linked.say(b"still there?").is_err(), "a connection survives the link that carried it");
    assert!(Talk::open(lab.client(), (HOST, 8002)).is_err(), "a publication that is not on disk is served");
    assert!(lab.assert_dropped("not_linked", || recipient.ns().tcp(source.at(7))).is_err());
    assert!(!pings(&recipient.ns(), source.ip()), "a link that is not on disk lets echo requests through");
    for port in [8000, 8001] {
        Talk::open(lab.client(), (HOST, port)).unwrap_or_else(|e| panic!("{port}: {e}"));
    }
}

#[test]
fn publish_serves_at_once_and_survives_restarts_of_daemon_and_container() {
    let lab = Lab::builder("publish").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let server = lab.run("server", &["echo"]);
    Talk::when_up(lab.host(), server.at(7));
    assert!(lab.assert_dropped("not_published", || lab.client().tcp(server.at(7))).is_err());

    lab.runtime(["publish", "server", "8000:7"]).ok();
    lab.runtime(["publish", "server", "8000:7/udp"]).ok();
    let mut talk = Talk::open(lab.client(), (HOST, 8000)).expect("served at once");
    assert_eq!(talk.seen(), talk.ours());
    ask_when_up(lab.client(), (HOST, 8000), b"words");
    let listed = lab.runtime(["port", "server", "7/tcp"]).ok();
    assert!(listed.lines().any(|l| l.ends_with(":8000")), "{listed}");

    up.stop();
    talk.say(b"without a daemon").expect("the datapath goes on");
    let _up = lab.up(&[]);
    talk.say(b"with a new daemon").expect("the datapath goes on");
    Talk::open(lab.client(), (HOST, 8000)).expect("the publication survives the daemon");

    lab.move_container(&server);
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.runtime(["unpublish", "server", "8000:7"]).ok();
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err());
}

#[test]
fn unlink_cuts_what_the_link_carried() {
    let lab = Lab::builder("unlink").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let source = lab.run("source", &["echo"]);
    let recipient = lab.run("recipient", &["--link", "source:alias", "echo"]);
    let other = lab.run("other", &["--link", "source:alias", "echo"]);
    let mut cut = Talk::when_up(&recipient.ns(), source.at(7));
    let mut stays = Talk::when_up(&other.ns(), source.at(7));
    let udp = recipient.ns().udp(source.at(7)).expect("a socket");
    ask(&udp, b"before").expect("an answer");

    lab.runtime(["unlink", "recipient", "alias"]).ok();
    assert!(cut.say(b"are you there?").is_err(), "an established connection survives unlink");
    assert!(ask(&udp, b"after").is_err(), "an answered UDP flow survives unlink");
    assert!(lab.assert_dropped("not_linked", || Talk::open(&recipient.ns(), source.at(7))).is_err());
    assert!(!lab.assert_dropped("not_linked", || pings(&recipient.ns(), source.ip())));
    assert!(!recipient.exec(["cat", "/etc/hosts"]).ok().contains("alias"));
    stays.say(b"untouched").expect("another recipient's link");
}

#[test]
fn link_opens_a_running_pair_and_survives_restarts_of_daemon_and_containers() {
    let lab = Lab::builder("link").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    let (source, recipient) = pair(&lab);
    assert!(lab.assert_dropped("not_linked", || recipient.ns().tcp(source.at(7))).is_err());

    lab.runtime(["link", "recipient", "source:alias"]).ok();
    let mut talk = Talk::open(&recipient.ns(), source.at(7)).expect("linked at once");
    assert!(recipient.exec(["ping", "-c", "1", "-W", "1", "alias"]).success());
    let links = lab.runtime(["links"]).ok();
    assert!(links.contains("recipient") && links.contains("source") && links.contains("alias"), "{links}");
    assert!(lab.assert_dropped("not_linked", || source.ns().tcp(recipient.at(7))).is_err());

    up.stop();
    let _up = lab.up(&[]);
    talk.say(b"still here").expect("the flow survives the daemon");
    Talk::open(&recipient.ns(), source.at(7)).expect("the link survives the daemon");

    lab.move_container(&source);
    lab.move_container(&recipient);
    Talk::when_up(&recipient.ns(), source.at(7));
    wait_until("the alias follows", SOON, || recipient.exec(["ping", "-c", "1", "-W", "1", "alias"]).success());
    lab.runtime(["unlink", "recipient", "alias"]).ok();
    assert!(Talk::open(&recipient.ns(), source.at(7)).is_err());
}
