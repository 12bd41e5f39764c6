//! `--netfilter honor`: the host's firewall decides whether a conversation with a published port may begin.

use std::net::SocketAddr;

use tests::sockets::{Talk, ask, ask_when_up, is_silence};
use tests::{CLIENT, CLIENT2, EngineName, HOST, Image, Lab};

/// Packets that the one rule with this comment has seen.
#[track_caller]
fn seen_by(lab: &Lab, program: &str, comment: &str) -> u64 {
    let rules = lab.host().run([&format!("{program}-save"), "-c", "-t", "filter"]).ok();
    let line = rules.lines().find(|l| l.contains(comment)).unwrap_or_else(|| panic!("no rule {comment}:\n{rules}"));
    let count = line.trim_start_matches('[').split(':').next().and_then(|n| n.parse().ok());
    count.unwrap_or_else(|| panic!("no count in {line}"))
}

fn rule(lab: &Lab, program: &str, words: &str) {
    lab.host().run(std::iter::once(program).chain(words.split(' '))).ok();
}

/// Tries what a rule is there to refuse.
#[track_caller]
fn assert_refused_by<T>(lab: &Lab, program: &str, comment: &str, attempt: impl FnOnce() -> std::io::Result<T>) {
    let (before, asked) = (seen_by(lab, program, comment), lab.counters());
    assert!(attempt().is_err(), "it came through");
    assert!(seen_by(lab, program, comment) > before, "the rule {comment} saw nothing");
    let added = lab.counters().since(&asked);
    assert!(added.packets("deferred") > 0, "{added}");
}

/// A conversation begins, and goes on past the firewall, which sees no more than its beginning.
#[track_caller]
fn assert_let_through(lab: &Lab, program: &str, comment: &str, mut talk: Talk) {
    let before = (seen_by(lab, program, comment), lab.counters());
    talk.transfer(2_000_000, |_| ()).expect("a transfer");
    let added = lab.counters().since(&before.1);
    assert!(added.packets("published") > 0 && added.packets("deferred") == 0, "{added}");
    assert_eq!(seen_by(lab, program, comment), before.0, "the firewall saw what was to pass it by");
}

#[test]
fn with_dockers_rules_the_users_chain_decides() {
    for xdp in ["off", "native"] {
        let lab = Lab::builder("DOCKER-USER").client2().without_client_offloads().images(&[Image::Echo]).build();
        rule(&lab, "iptables", &format!("-I DOCKER-USER -s {CLIENT2} -m comment --comment refused -j DROP"));
        rule(&lab, "iptables", &format!("-I DOCKER-USER -s {CLIENT} -m comment --comment counted"));
        let up = lab.up(&["--netfilter", "honor", "--xdp", xdp]);
        assert!(!up.output().contains("DOCKER-USER"), "nothing passes it by:\n{}", up.output());
        lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
        let talk = Talk::when_up(lab.client(), (HOST, 8000));
        assert_eq!(talk.seen(), talk.ours());
        assert_let_through(&lab, "iptables", "counted", talk);
        ask_when_up(lab.client(), (HOST, 8000), b"a datagram");
        assert_refused_by(&lab, "iptables", "refused", || lab.client2().tcp((HOST, 8000)));
        let socket = lab.client2().udp((HOST, 8000)).expect("a socket");
        assert_refused_by(&lab, "iptables", "refused", || ask(&socket, b"a datagram"));
        // A rule that refuses aloud is heard.
        rule(&lab, "iptables", &format!("-I DOCKER-USER -s {CLIENT2} -m comment --comment aloud -j REJECT"));
        assert_refused_by(&lab, "iptables", "aloud", || match lab.client2().tcp((HOST, 8000)) {
            Err(e) if is_silence(&e) => panic!("nobody told: {e}"),
            other => other,
        });
        let status = lab.status();
        assert_eq!((status["netfilter"].as_str(), &status["problems"]), (Some("honor"), &serde_json::json!([])));
    }
}

#[test]
fn without_dockers_rules_the_forward_chain_sees_the_containers_address() {
    let lab = Lab::builder("own FORWARD").client2().without_iptables().images(&[Image::Echo]).build();
    let _up = lab.up(&["--netfilter", "honor"]);
    let server = lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let at = format!("-I FORWARD -d {}", server.ip());
    rule(&lab, "iptables", &format!("{at} -s {CLIENT} -m comment --comment counted -j ACCEPT"));
    rule(&lab, "iptables", &format!("{at} -s {CLIENT2} -m comment --comment refused -j DROP"));
    for to in [8000, 9000] {
        // The second is published on the running container.
        if to == 9000 {
            lab.runtime(["publish", "server", "9000:7"]).ok();
        }
        let talk = Talk::when_up(lab.client(), (HOST, to));
        assert_eq!(talk.seen(), talk.ours());
        assert_let_through(&lab, "iptables", "counted", talk);
        assert_refused_by(&lab, "iptables", "refused", || lab.client2().tcp((HOST, to)));
    }
    assert!(seen_by(&lab, "iptables", "counted") > 0, "the rule is never asked");
    // What it once let through is not asked about again; what begins now is.
    let socket = lab.client().udp((HOST, 8000)).expect("a socket");
    ask(&socket, b"before").expect("an echo");
    let mut talk = Talk::open(lab.client(), (HOST, 8000)).expect("a talk");
    rule(&lab, "iptables", &format!("{at} -s {CLIENT} -m comment --comment later -j DROP"));
    ask(&socket, b"after").expect("an echo");
    talk.say(b"after").expect("an echo");
    assert_refused_by(&lab, "iptables", "later", || lab.client().tcp((HOST, 8000)));
    // Nobody gets in who dials the container itself.
    lab.host().run(["iptables", "-F", "FORWARD"]).ok();
    assert!(lab.assert_dropped("not_published", || lab.client2().tcp(server.at(7))).is_err());
}

#[test]
fn a_port_that_dockers_raw_rules_would_refuse_is_not_published_live() {
    let lab = Lab::builder("raw rules").engine(EngineName::Docker28).images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    lab.run("server", &["-p", "8000:7", "echo"]);
    lab.runtime(["publish", "server", "9000:7"]).ok();
    Talk::when_up(lab.client(), (HOST, 9000));
    up.kill();
    let _up = lab.up(&["--netfilter", "honor"]);
    // Docker translates its own.
    Talk::when_up(lab.client(), (HOST, 8000));
    lab.runtime(["publish", "server", "8000:7", "--deny-from", "203.0.113.1"]).ok();
    Talk::when_up(lab.client(), (HOST, 8000));
    let reason = lab.runtime(["publish", "server", "9001:7"]).fails(1);
    assert_eq!(reason.trim().lines().count(), 1, "{reason}");
    assert!(reason.contains("9001/tcp") && reason.contains("PREROUTING -d 172."), "{reason}");
    // What was published before is told of.
    let problems = lab.status()["problems"].to_string();
    assert!(problems.contains("server: port 9000/tcp cannot be published"), "{problems}");
    // The host's own processes are not asked.
    lab.runtime(["publish", "server", "127.0.0.1:9002:7"]).ok();
    Talk::when_up(lab.host(), (std::net::Ipv4Addr::LOCALHOST, 9002)).say(b"the host").expect("an echo");
}

#[test]
fn ipv6_siblings_and_oneself() {
    let lab = Lab::builder("honoured siblings")
        .without_iptables()
        .engine_arg("--ipv6")
        .engine_arg("--fixed-cidr-v6=fd00:17::/64")
        .images(&[Image::Echo])
        .build();
    let _up = lab.up(&["--netfilter", "honor"]);
    let server = lab.run("server", &["-p", "8000:7", "echo", "peer", "tcp:[::]:7"]);
    let sibling = lab.run("sibling", &["echo"]);
    let host6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1u16], 8000));
    rule(&lab, "ip6tables", &format!("-I FORWARD -d {} -m comment --comment counted -j ACCEPT", server.ip6()));
    assert_let_through(&lab, "ip6tables", "counted", Talk::when_up(lab.client(), host6));
    rule(&lab, "ip6tables", &format!("-I FORWARD -d {} -m comment --comment refused -j DROP", server.ip6()));
    assert_refused_by(&lab, "ip6tables", "refused", || lab.client().tcp(host6));

    let talk = Talk::when_up(&sibling.ns(), (HOST, 8000));
    assert_eq!((talk.seen().ip().to_canonical(), talk.seen().port()), (talk.ours().ip(), talk.ours().port()));
    let from = format!("-I FORWARD -s {} -d {}", sibling.ip(), server.ip());
    rule(&lab, "iptables", &format!("{from} -m comment --comment refused -j DROP"));
    assert_refused_by(&lab, "iptables", "refused", || sibling.ns().tcp((HOST, 8000)));
    // A container that reaches itself is no matter of the firewall's, nor is a process of the host.
    rule(&lab, "iptables", "-P FORWARD DROP");
    Talk::when_up(&server.ns(), (HOST, 8000)).say(b"myself").expect("an echo");
    Talk::when_up(lab.host(), (HOST, 8000)).say(b"the host").expect("an echo");
}
