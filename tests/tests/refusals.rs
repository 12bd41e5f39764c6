//! Bad input and impossible wishes: one line that names the offending thing, and nothing half-made.

use tests::sockets::Talk;
use tests::{Done, HOST, Image, Lab};

/// What is wrong with a refusal: its status, its number of lines, or that it names not what it should.
fn fault(done: &Done, status: i32, named: &str) -> Option<String> {
    let message = done.stderr.trim();
    if done.status.code() != Some(status) {
        return Some(format!("expected exit status {status}: {done}"));
    }
    if message.lines().count() != 1 {
        return Some(format!("not one line: {done}"));
    }
    (!message.contains(named)).then(|| format!("does not name {named:?}: {done}"))
}

#[track_caller]
fn refused(done: &Done, status: i32, named: &str) {
    if let Some(fault) = fault(done, status, named) {
        panic!("{fault}");
    }
}

#[test]
fn bad_input_is_refused_with_status_2() {
    let lab = Lab::builder("bad input").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["echo"]);
    /// The words, and which of them must be quoted.
    const TABLE: &[(&[&str], &str)] = &[
        (&["run", "-d", "-p", "0-2:7-9", "echo"], "0-2"),
        (&["run", "-d", "-p", "65536:7", "echo"], "65536"),
        (&["run", "-d", "-p", "80:", "echo"], "80:"),
        (&["run", "-d", "-p", "80:7/icmp", "echo"], "icmp"),
        (&["run", "-d", "-p", "8000-8002:7-8", "echo"], "8000-8002:7-8"),
        (&["run", "-d", "-p", "9-8:7", "echo"], "9-8"),
        (&["run", "-d", "-p", "300.1.1.1:80:7", "echo"], "300.1.1.1"),
        (&["run", "-d", "-p", "[::1:80:7", "echo"], "[::1:80:7"),
        (&["run", "-d", "-p", "a:b:c:d", "echo"], "a:b:c:d"),
        (&["run", "-d", "--expose", "no-port", "echo"], "no-port"),
        (&["run", "-d", "--link", "server:", "echo"], "server:"),
        (&["run", "-d", "--link", ":alias", "echo"], ":alias"),
        (&["run", "-d", "--link", "a:b:c", "echo"], "a:b:c"),
        (&["run", "-d", "--name", "not a name", "echo"], "not a name"),
        (&["run", "-d", "--no-such-flag", "echo"], "--no-such-flag"),
        (&["publish", "server", "80:x"], "80:x"),
        (&["unpublish", "server", "80:x"], "80:x"),
        (&["port", "server", "7/icmp"], "7/icmp"),
        (&["link", "server", "a:b:c"], "a:b:c"),
        (&["up", "--xdp", "sometimes"], "sometimes"),
        (&["up", "--isolate", "some"], "some"),
        (&["inspect", "-f", "{{ .Id", "server"], "{{ .Id"),
    ];
    let faults: Vec<_> = TABLE.iter().filter_map(|(words, named)| fault(&lab.runtime(*words), 2, named)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert_eq!(lab.docker(["ps", "-aq"]).ok().lines().count(), 1, "a refused run left a container");
}

#[test]
fn unknown_stopped_and_taken_things_are_refused_with_status_1() {
    let lab = Lab::builder("impossible wishes").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let holder = lab.run("holder", &["-p", "8000:7", "echo"]);
    lab.run("stopped", &["echo"]);
    lab.docker(["stop", "-t", "0", "stopped"]).ok();
    /// The words, and what the message must name.
    const TABLE: &[(&[&str], &str)] = &[
        (&["port", "nobody"], "nobody"),
        (&["inspect", "nobody"], "nobody"),
        (&["publish", "nobody", "80:7"], "nobody"),
        (&["unpublish", "nobody", "80:7"], "nobody"),
        (&["unpublish", "holder", "9000:7"], "9000"),
        (&["link", "holder", "nobody"], "nobody"),
        (&["link", "nobody", "holder"], "nobody"),
        (&["unlink", "holder", "nothing"], "nothing"),
        (&["run", "-d", "--link", "nobody:alias", "echo"], "nobody"),
        (&["run", "-d", "--name", "web", "--link", "stopped:alias", "echo"], "stopped"),
        (&["run", "-d", "-p", "8000:7", "echo"], "holder"),
        (&["run", "-d", "-p", "192.0.2.1:8000:7", "echo"], "holder"),
        (&["publish", "holder", "8000:8"], "8000"),
        (&["run", "-d", "no-such-image"], "no-such-image"),
        (&["run", "-d", "--name", "holder", "echo"], "holder"),
    ];
    let before = lab.docker(["ps", "-aq"]).ok();
    let faults: Vec<_> = TABLE
        .iter()
        .filter_map(|(words, named)| {
            let fault = fault(&lab.runtime(*words), 1, named);
            let left =
                (lab.docker(["ps", "-aq"]).ok() != before).then(|| format!("{words:?} leaves something half-made"));
            fault.or(left)
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    // Docker's own words.
    let done = lab.runtime(["run", "-d", "--name", "web", "--link", "stopped:webdb", "echo"]);
    refused(&done, 1, "Cannot link to a non running container: /stopped AS /web/webdb");
    // A port that another protocol or another address holds is free.
    lab.runtime(["publish", "holder", "8000:7/udp"]).ok();
    Talk::when_up(lab.host(), holder.at(7));
}

#[test]
fn without_a_daemon_or_an_engine_the_message_says_so() {
    let mut lab = Lab::new("no daemon");
    refused(&lab.runtime(["status"]), 1, "runtime up");
    lab.stop_engine();
    refused(&lab.runtime(["up"]), 1, "docker.sock");
}

/// Root without a capability can load or attach nothing: which one it is stands in the message.
#[test]
fn a_missing_right_is_named_before_anything_is_attached() {
    let lab = Lab::new("missing rights");
    for (without, named) in [("-net_admin", "CAP_NET_ADMIN"), ("-sys_admin,-bpf", "CAP_BPF")] {
        let done = lab.runtime_by(&["setpriv", "--bounding-set", without], ["up"]);
        refused(&done, 1, named);
    }
    let pinned = std::fs::read_dir(lab.pins()).map_or(0, Iterator::count);
    assert_eq!(pinned, 0, "something is pinned");
}

#[test]
fn the_version_of_the_api_that_the_user_names_is_spoken_or_refused_before_anything_is_attached() {
    let lab = Lab::builder("API version").images(&[Image::Echo]).build();
    for version in ["1.24", "9.9", "28.5.2+dfsg4"] {
        let setting = format!("DOCKER_API_VERSION={version}");
        let done = lab.runtime_by(&["env", &setting], ["up"]);
        refused(&done, 1, &format!("DOCKER_API_VERSION is \"{version}\""));
        refused(&done, 1, "1.41 to ");
    }
    assert_eq!(std::fs::read_dir(lab.pins()).expect("the pins' folder").count(), 0);
    // The oldest that is spoken: every Engine knows it still, Docker 29 excepted.
    let words = ["run", "-d", "--name", "server", "-p", "8000:7", "echo"];
    let _up = lab.up(&[]);
    lab.runtime_by(&["env", "DOCKER_API_VERSION=1.41"], words).ok();
    Talk::when_up(lab.client(), (HOST, 8000));
}

#[test]
fn a_dry_run_prints_the_plan_and_makes_nothing() {
    let lab = Lab::builder("dry run").images(&[Image::Postgres, Image::Webapp]).build();
    let _up = lab.up(&[]);
    let db = lab.run("db", &["postgres"]);
    let before = lab.docker(["ps", "-aq"]).ok();
    let words = ["run", "--dry-run", "--format", "json", "--name", "web", "-p", "127.0.0.1:8000:5000/tcp"];
    let plan = lab.runtime(words.iter().chain(&["--link", "db:webdb", "webapp"])).ok();
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let text = plan.to_string();
    for part in ["127.0.0.1", "8000", "5000", "webdb", "WEBDB_PORT_5432_TCP_ADDR", &db.ip().to_string()] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(lab.docker(["ps", "-aq"]).ok(), before);
}

#[test]
fn a_dry_run_needs_no_engine() {
    let mut lab = Lab::new("dry run without an Engine");
    lab.stop_engine();
    let plan = lab.runtime(["run", "--dry-run", "--format", "json", "-p", "8000-8001:80-81", "anything"]).ok();
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    assert!(plan.to_string().contains("8001"), "{plan}");
}
