//! What a container or a client of the daemon's socket sends to harm others: refused or bounded for itself alone.

use std::time::{Duration, Instant};

use runtime_api::{Error, Link};
use tests::sockets::Talk;
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn hosts(lab: &Lab, container: &str) -> String {
    lab.docker(["exec", container, "busybox", "cat", "/etc/hosts"]).ok()
}

#[test]
fn a_containers_hosts_file_is_its_own_affair_and_no_more_than_that() {
    let lab = Lab::builder("hostile hosts").images(&[Image::Echo]).build();
    let up = lab.up(&[]);
    lab.run("source", &["echo"]);
    lab.run("second", &["echo"]);
    for name in ["evil", "good"] {
        lab.run(name, &["busybox", "sleep", "100000"]);
    }
    lab.docker(["exec", "evil", "busybox", "truncate", "-s", "3G", "/etc/hosts"]).ok();
    lab.runtime(["link", "evil", "source"]).ok();
    wait_until("status tells of the file", SOON, || {
        let problems = lab.status()["problems"].to_string();
        problems.contains("3221225472 bytes") && problems.contains("made it smaller")
    });
    // Nobody else waits for it, and nothing of it is read.
    let began = Instant::now();
    lab.runtime(["link", "good", "source"]).ok();
    assert!(hosts(&lab, "good").contains("\tsource "), "{}", hosts(&lab, "good"));
    lab.run("server", &["-p", "8000:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8000));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let status = std::fs::read_to_string(format!("/proc/{}/status", up.pid())).expect("a process");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 300_000, "{peak} kB");
    // What is no text stays, byte for byte, and the line comes as soon as there is room for it.
    let script = r"printf '\377\376 not text\n' > /etc/hosts";
    lab.docker(["exec", "evil", "busybox", "sh", "-c", script]).ok();
    lab.runtime(["link", "evil", "second"]).ok();
    let dump = lab.docker(["exec", "evil", "busybox", "od", "-An", "-tx1", "/etc/hosts"]).ok();
    assert!(dump.trim_start().starts_with("ff fe 20 6e"), "{dump}");
    assert!(hosts_bytes(&lab, "evil").windows(8).any(|w| w == b"\tsecond "), "{dump}");
    // A source that is gone leaves no line behind.
    lab.docker(["rm", "-f", "source"]).ok();
    wait_until("the line of the removed source is gone", SOON, || !hosts(&lab, "good").contains("source"));
}

fn hosts_bytes(lab: &Lab, container: &str) -> Vec<u8> {
    let dump = lab.docker(["exec", container, "busybox", "od", "-An", "-v", "-tx1", "/etc/hosts"]).ok();
    dump.split_whitespace().filter_map(|b| u8::from_str_radix(b, 16).ok()).collect()
}

#[test]
fn aliases_are_looked_at_where_they_enter_the_daemon() {
    let lab = Lab::builder("hostile aliases").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("source", &["echo"]);
    lab.run("recipient", &["busybox", "sleep", "100000"]);
    let before = hosts(&lab, "recipient");
    for alias in ["x\n192.0.2.66\tbank", "a b", "#x", "", "a=b", "a/b", "a\0b", &"x".repeat(300)] {
        // As anybody may ask who may use the socket.
        let [recipient, source, alias] = ["recipient", "source", alias].map(str::to_owned);
        let answer = lab.daemon().call(Link { recipient, source, alias, all_ports: false });
        let Err(Error::Refused(refusal)) = answer else { panic!("{answer:?}") };
        assert!(refusal.message.contains("invalid alias") && refusal.status == 2, "{refusal:?}");
    }
    assert_eq!(hosts(&lab, "recipient"), before);
    assert_eq!(lab.status()["links"].as_array().map(Vec::len), Some(0));
}
