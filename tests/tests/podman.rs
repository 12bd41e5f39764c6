//! Podman as an engine of its own: what is the same for every Engine, and what Podman itself refuses or tells otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tests::sockets::{Talk, ask_when_up, http_get, is_silence, pings, serve};
use tests::{CLIENT, Container, EngineName, HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// An echo server of both families.
const SERVER: &[&str] = &["echo", "peer", "tcp:[::]:7", "udp:[::]:7"];

fn lab(title: &str, images: &[Image]) -> Lab {
    Lab::builder(title).engine(EngineName::Podman).images(images).build()
}

/// Runs `podman` itself among the Engine's files.
#[track_caller]
fn podman(lab: &Lab, words: &[&str]) -> String {
    let output = lab.engine_command("podman").args(words).output().expect("podman");
    assert!(output.status.success(), "podman {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn hosts(container: &Container) -> String {
    container.exec(["cat", "/etc/hosts"]).ok()
}

#[test]
fn published_ports_are_served_from_outside_and_from_the_host() {
    let lab = lab("Podman's published ports", &[Image::Echo]);
    lab.docker(["network", "create", "--ipv6", "--subnet", "10.99.0.0/24", "--subnet", "fd00:99::/64", "app"]).ok();
    let ports = ["-p", "8000:7", "-p", "8000:7/udp", "-p", "127.0.0.1:8001:7", "-p", "[::1]:8001:7"];
    let before = lab.start("before", &[&["--network", "app"], &ports[..], SERVER].concat());
    let _up = lab.up(&[]);
    let status = lab.status();
    assert!(status["engine"].as_str().is_some_and(|e| e.starts_with("Podman Engine 5.")), "{}", status["engine"]);
    let hooks: Vec<_> = status["hooks"].as_array().into_iter().flatten().collect();
    let uplinks: Vec<_> = hooks.iter().filter(|h| h["hook"] == "uplink_ingress").collect();
    assert!(uplinks.len() == 1 && uplinks[0]["interface"] == "eth0", "Podman's own bridge is no uplink: {uplinks:?}");

    // Addresses of IPv6 are usable only after a moment.
    Talk::when_up(lab.host(), (before.ip6_on("app"), 7));
    for (to, client) in [(IpAddr::from(HOST), IpAddr::from(CLIENT)), (HOST6.into(), CLIENT6.into())] {
        let mut talk = lab.assert_carried(|| Talk::when_up(lab.client(), (to, 8000)));
        assert_eq!(talk.seen().ip().to_canonical(), client, "the client's address is lost");
        talk.transfer(1_000_000, |_| ()).expect("a transfer");
        assert_eq!(ask_when_up(lab.client(), (to, 8000), b"words").0.ip().to_canonical(), client);
        assert!(Talk::open(lab.client(), (to, 8001)).is_err(), "a loopback publication is reached from the LAN");
    }
    let local: [SocketAddr; 6] = [
        (Ipv4Addr::LOCALHOST, 8000).into(),
        (Ipv6Addr::LOCALHOST, 8000).into(),
        (HOST, 8000).into(),
        (HOST6, 8000).into(),
        (Ipv4Addr::LOCALHOST, 8001).into(),
        (Ipv6Addr::LOCALHOST, 8001).into(),
    ];
    for to in local {
        let mut talk = lab.assert_carried(|| Talk::open(lab.host(), to)).unwrap_or_else(|e| panic!("{to}: {e}"));
        talk.say(b"hello").unwrap_or_else(|e| panic!("{to}: {e}"));
    }

    // One that is started beside the daemon, by Podman's own command.
    podman(&lab, &[&["run", "-d", "--name", "later", "-p", "9000:7", "-p", "9000:7/udp"], SERVER].concat());
    wait_until("it is known", SOON, || {
        let status = lab.status();
        status["endpoints"].as_array().is_some_and(|all| all.iter().any(|e| e["container"] == "later"))
    });
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 9000)).say(b"hello").expect("an echo"));
    assert_eq!(ask_when_up(lab.client(), (HOST, 9000), b"words").0.ip().to_canonical(), IpAddr::from(CLIENT));
    // Without IPv6 on its network, nobody serves this but the daemon.
    wait_until("the IPv6 address is served", SOON, || Talk::open(lab.client(), (HOST6, 9000)).is_ok());
    podman(&lab, &["stop", "-t", "0", "later"]);
    wait_until("nothing answers", SOON, || Talk::open(lab.client(), (HOST, 9000)).is_err());
    podman(&lab, &["start", "later"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 9000)).say(b"back").expect("an echo"));
}

#[test]
fn ports_change_on_a_running_container() {
    let lab = lab("Podman's live changes", &[Image::Echo]);
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8010-8012:7", "echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
    // Podman itself takes no range for one port.
    Talk::open(lab.client(), (HOST, 8010)).expect("the first port of the range");
    assert!(Talk::open(lab.client(), (HOST, 8011)).is_err(), "one port of the range was asked for");

    lab.runtime(["publish", "server", "8001:7"]).ok();
    lab.runtime(["publish", "server", "8001:7/udp"]).ok();
    Talk::open(lab.client(), (HOST, 8001)).expect("served at once").say(b"hello").expect("an echo");
    ask_when_up(lab.client(), (HOST, 8001), b"words");
    let listed = lab.runtime(["port", "server", "7/tcp"]).ok();
    assert!(listed.contains(":8000") && listed.contains(":8001"), "{listed}");
    assert!(lab.runtime(["ps"]).ok().contains("8001->7/tcp"));

    lab.runtime(["unpublish", "server", "8000:7"]).ok();
    assert!(talk.say(b"are you there?").is_err(), "an established connection survives unpublish");
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err(), "netavark's rules serve what was taken away");
    let before = server.ip();
    lab.docker(["restart", "-t", "0", "server"]).ok();
    assert_ne!(server.ip(), before, "Podman gives each start another address");
    Talk::when_up(lab.client(), (HOST, 8001)).say(b"hello").expect("an echo");
    assert!(Talk::open(lab.client(), (HOST, 8000)).is_err(), "what was taken away comes back with a restart");
    lab.runtime(["unpublish", "server", "8001:7"]).ok();
    assert!(Talk::open(lab.client(), (HOST, 8001)).is_err());
}

#[test]
fn containers_are_isolated_and_reach_the_outside_by_podmans_rules() {
    let lab = lab("Podman's isolation", &[Image::Echo]);
    let _up = lab.up(&[]);
    lab.docker(["network", "create", "open"]).ok();
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    let caller = lab.run("caller", &["echo"]);
    Talk::when_up(lab.host(), server.at(7));
    let error = lab.assert_dropped("not_linked", || caller.ns().tcp(server.at(7))).expect_err("no link");
    assert!(is_silence(&error), "{error}");
    assert!(!lab.assert_dropped("not_linked", || pings(&caller.ns(), server.ip())));
    assert!(lab.assert_dropped("not_published", || lab.client().tcp(server.at(7))).is_err());
    Talk::open(&caller.ns(), (HOST, 8000)).expect("a published port is for siblings, too").say(b"x").expect("an echo");

    let one = lab.run("one", &["--network", "open", "echo"]);
    let two = lab.run("two", &["--network", "open", "echo"]);
    Talk::when_up(&two.ns(), (one.ip_on("open"), 7)).say(b"hello").expect("containers talk on an open network");

    let _peer = serve(lab.client(), &lab.dir().join("peer.log"), &["tcp:0.0.0.0:9"]);
    assert_eq!(Talk::when_up(&caller.ns(), (CLIENT, 9)).seen().ip(), IpAddr::from(HOST));
    let masquerade = lab.status()["masquerade"].to_string();
    wait_until("Podman's rules are known", SOON, || {
        let status = lab.status();
        ["podman", "open"].iter().all(|n| status["masquerade"][n] == "host_rules")
    });
    assert!(masquerade.contains("podman"), "{masquerade}");
    lab.down();
    assert_eq!(Talk::when_up(&caller.ns(), (CLIENT, 9)).seen().ip(), IpAddr::from(HOST));
    Talk::open(&caller.ns(), server.at(7)).expect("after down, everything is as Podman has it");
}

#[test]
fn links_have_environment_and_hosts_and_follow_their_source() {
    let lab = lab("Podman's links", &[Image::Echo, Image::Webapp]);
    let _up = lab.up(&[]);
    let db = lab.run("db", &["-h", "database", "-e", "SECRET=a b=c", "webapp"]);
    // From its first moment on: it does nothing else.
    let web = lab.run(
        "web",
        &[
            "--link",
            "db:webdb",
            "webapp",
            "sh",
            "-c",
            r#"printf "GET / HTTP/1.0\r\n\r\n" | nc -w 2 $WEBDB_PORT_5000_TCP_ADDR 5000; exec sleep 100000"#,
        ],
    );
    let line = format!("{}\twebdb database db", db.ip());
    assert!(hosts(&web).lines().any(|l| l == line), "no line {line:?} in\n{}", hosts(&web));
    wait_until("the page is fetched", SOON, || web.logs().contains("webapp"));
    let environment = web.exec(["env"]).ok();
    for expected in [
        format!("WEBDB_PORT=tcp://{}:5000", db.ip()),
        "WEBDB_NAME=/web/webdb".to_owned(),
        "WEBDB_ENV_SECRET=a b=c".to_owned(),
    ] {
        assert!(environment.lines().any(|l| l == expected), "no {expected:?} in\n{environment}");
    }
    assert!(
        !environment.contains("WEBDB_ENV_HOSTNAME") && !environment.contains("WEBDB_ENV_container"),
        "{environment}"
    );
    assert!(web.exec(["ping", "-c", "1", "-W", "1", "webdb"]).success());
    assert_eq!(lab.runtime(["inspect", "-f", "{{ .HostConfig.Links }}", "web"]).ok(), "[/db:/web/webdb]");
    assert!(lab.assert_dropped("not_linked", || db.ns().tcp((web.ip(), 5000))).is_err(), "a link opens nothing back");

    for moved in [&db, &web] {
        lab.docker(["restart", "-t", "0", moved.name()]).ok();
        let line = format!("{}\twebdb database db", db.ip());
        wait_until("the hosts file follows", SOON, || hosts(&web).lines().any(|l| l == line));
        let from = web.ns();
        wait_until("the source answers", SOON, || http_get(&from, (db.ip(), 5000)).is_ok_and(|p| p == "webapp"));
        assert_eq!(hosts(&web).matches("webdb").count(), 1, "{}", hosts(&web));
    }
    lab.runtime(["unlink", "web", "webdb"]).ok();
    assert!(!hosts(&web).contains("webdb"));
    assert!(lab.assert_dropped("not_linked", || web.ns().tcp((db.ip(), 5000))).is_err());

    // By name in a label, on a container of Podman's own command; and made live.
    podman(&lab, &["run", "-d", "--name", "third", "--label", "runtime.links=db:other", "webapp"]);
    let third = lab.container("third");
    wait_until("the label is understood", SOON, || hosts(&third).contains(&format!("{}\tother", db.ip())));
    assert_eq!(http_get(&third.ns(), (db.ip(), 5000)).expect("the page"), "webapp");
    lab.runtime(["link", "web", "third:again"]).ok();
    assert_eq!(http_get(&web.ns(), (third.ip(), 5000)).expect("the page"), "webapp");
    assert!(web.exec(["ping", "-c", "1", "-W", "1", "again"]).success());
}

#[test]
fn a_pods_ports_are_served() {
    let lab = lab("a pod", &[Image::Echo]);
    let _up = lab.up(&[]);
    podman(&lab, &["pod", "create", "--name", "group", "-p", "8000:7"]);
    podman(&lab, &["run", "-d", "--pod", "group", "--name", "member", "echo"]);
    let other = lab.run("other", &["echo"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)).say(b"hello").expect("an echo"));
    let member = lab.container("member").ns();
    assert!(lab.assert_dropped("not_linked", || member.tcp(other.at(7))).is_err(), "a pod's members are isolated");
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let lab = lab("Podman's refusals", &[Image::Echo]);
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    lab.docker(["network", "create", "app"]).ok();
    let containers = || lab.docker(["ps", "-aq"]).ok().lines().count();
    let before = containers();
    for (words, expected) in [
        (&["--link", "nobody:x", "echo"][..], "could not get container for nobody: no such container to link to as x"),
        (&["--network", "app", "--link", "server:x", "echo"], "Cannot link to /server, as it does not belong to app"),
        (&["-p", "8000:7", "echo"], "port 8000/tcp on 0.0.0.0 is already published by container \"server\""),
        (&["-p", "8000-8000:7", "echo"], "port 8000/tcp on 0.0.0.0 is already published by container \"server\""),
    ] {
        let refused = lab.runtime(["run", "-d"].iter().chain(words)).fails(1);
        assert!(refused.contains(expected), "{words:?}: {refused}");
        assert_eq!((refused.lines().count(), containers()), (1, before), "{words:?}: {refused}");
    }
    let refused = lab.runtime(["run", "-d", "echo", "no-such-program"]).fails(127);
    assert_eq!((refused.lines().count(), containers()), (1, before), "{refused}");
    assert_eq!(lab.runtime(["run", "--rm", "busybox", "sh", "-c", "echo said; exit 7"]).fails(7), "");
}
