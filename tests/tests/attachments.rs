//! What an earlier run attached in one way, the next attaches in another: without a moment without a gate, and with nothing
//! left behind.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::sockets::{Talk, ask};
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// The interfaces of the host on which programs can stand.
fn interfaces(lab: &Lab) -> Vec<String> {
    let listed = lab.host().run(["ls", "/proc/sys/net/ipv4/conf"]).ok();
    listed.split_whitespace().filter(|i| !["all", "default", "lo"].contains(i)).map(str::to_owned).collect()
}

/// Filters and clsact qdiscs of the host, a line each.
fn filters(lab: &Lab) -> Vec<String> {
    let mut found = Vec::new();
    for interface in interfaces(lab) {
        for words in
            [&["filter", "show", "dev", &interface, "ingress"][..], &["filter", "show", "dev", &interface, "egress"]]
        {
            let listed = lab.host().run(["tc"].iter().chain(words)).stdout;
            found.extend(listed.lines().filter(|l| l.contains(" handle ")).map(|l| format!("{interface}: {l}")));
        }
        let qdiscs = lab.host().run(["tc", "qdisc", "show", "dev", &interface]).stdout;
        found.extend(qdiscs.lines().filter(|l| l.contains("clsact")).map(|l| format!("{interface}: {l}")));
    }
    found
}

/// How the programs at tc hooks are attached, by `status`.
fn kinds(lab: &Lab) -> Vec<String> {
    let status = lab.status();
    let hooks = status["hooks"].as_array().expect("hooks");
    let elsewhere = |hook: &str| hook.starts_with("host_") || hook == "relay_lookup";
    let of_tc = hooks.iter().filter(|h| !elsewhere(h["hook"].as_str().expect("a hook")));
    let mut kinds: Vec<_> = of_tc.map(|h| h["kind"].as_str().expect("a kind").to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// `up` in one way, a kill, `up` in another: a stranger sends to a container all the time, and nothing reaches it.
fn change_over(first: &[&str], second: &[&str], kind: &str) {
    let lab = Lab::builder("changing over").images(&[Image::Echo]).build();
    let up = lab.up(first);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    let victim = lab.run("victim", &["busybox", "sleep", "100000"]);
    let stranger = lab.run("stranger", &["echo"]);
    let mut held = Talk::when_up(lab.client(), (HOST, 8000));
    let heard = victim.ns().within(|| std::net::UdpSocket::bind(("0.0.0.0", 9))).expect("a socket");
    heard.set_nonblocking(true).expect("a socket option");
    let voice = stranger.ns().udp((victim.ip(), 9)).expect("a socket");
    up.kill();

    let (sent, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                // A port where nobody listens is told of by an error on the next call: that is one too many as well.
                sent.fetch_add(usize::from(voice.send(b"let me in").is_ok()), Ordering::Relaxed);
            }
        });
        let up = lab.up(second);
        let so_far = sent.load(Ordering::Relaxed);
        wait_until("the stranger goes on", SOON, || sent.load(Ordering::Relaxed) > so_far + 100);
        enough.store(true, Ordering::Relaxed);
        assert_eq!(kinds(&lab), [kind], "{}", up.output());
        drop(up);
    });
    let mut buffer = [0; 64];
    let got = heard.recv(&mut buffer).expect_err("nothing comes through while programs are changed over");
    assert_eq!(got.kind(), std::io::ErrorKind::WouldBlock);
    held.say(b"still here").expect("an echo");
    if kind == "tcx" {
        assert_eq!(filters(&lab), Vec::<String>::new(), "left of the earlier run");
    }
    // The next one is served and closed as those before were.
    let up = lab.up(second);
    let later = lab.run("later", &["-p", "8001:7", "echo"]);
    lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8001)).say(b"hello").expect("an echo"));
    lab.assert_dropped("not_linked", || stranger.ns().tcp(later.at(7))).expect_err("no link");
    up.kill();

    lab.down();
    assert_eq!(filters(&lab), Vec::<String>::new(), "left after down");
    let programs = lab.host().run(["bpftool", "net", "show"]).ok();
    assert!(!programs.contains("endpoint") && !programs.contains("uplink"), "{programs}");
    // Nothing stands in anybody's way: these reach each other by Docker's own rules.
    Talk::when_up(&stranger.ns(), server.at(7)).say(b"free").expect("an echo");
    lab.start("last", &["-p", "8002:7", "echo"]);
    Talk::when_up(lab.client(), (HOST, 8002)).say(b"free").expect("an echo");
}

#[test]
fn filters_of_an_earlier_run_give_way_to_tcx() {
    change_over(&["--clsact"], &[], "tcx");
}

#[test]
fn tcx_of_an_earlier_run_gives_way_to_filters() {
    change_over(&[], &["--clsact"], "clsact");
}

/// Filters whose marks somebody has removed with all the pins are found all the same.
#[test]
fn filters_are_taken_over_and_taken_down_without_their_pins() {
    let lab = Lab::builder("no pins").images(&[Image::Echo]).build();
    lab.up(&["--clsact"]).kill();
    lab.start("server", &["-p", "8000:7", "echo"]);
    assert_ne!(filters(&lab), Vec::<String>::new());
    std::fs::remove_dir_all(lab.pins().join("links")).expect("the pins can be removed");
    lab.down();
    let left: Vec<_> = filters(&lab).into_iter().filter(|l| l.contains(" handle ")).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// The kernel's own word for the mode of XDP on the uplink.
fn xdp_on_uplink(lab: &Lab) -> &'static str {
    let shown = lab.host().run(["ip", "-details", "link", "show", "eth0"]).ok();
    match () {
        () if shown.contains(" xdpgeneric ") => "xdp generic",
        () if shown.contains(" xdp ") => "xdp native",
        () => "none",
    }
}

#[test]
fn xdp_modes_of_an_earlier_run_give_way_to_the_next() {
    let lab = Lab::builder("xdp modes").without_client_offloads().images(&[Image::Echo]).build();
    let mut before = lab.up(&["--xdp", "native"]);
    lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
    let mut held = Talk::when_up(lab.client(), (HOST, 8000));
    let udp = lab.client().udp((HOST, 8000)).expect("a socket");
    for mode in ["generic", "native", "off", "generic", "off", "native"] {
        before.kill();
        before = lab.up(&["--xdp", mode]);
        let expected = if mode == "off" { "none".to_owned() } else { format!("xdp {mode}") };
        assert_eq!(xdp_on_uplink(&lab), expected);
        let told: Vec<_> = kinds(&lab).into_iter().filter(|k| k.starts_with("xdp")).collect();
        assert_eq!(told, if mode == "off" { vec![] } else { vec![expected] });
        held.say(mode.as_bytes()).expect("an echo");
        wait_until("an answer by UDP", SOON, || ask(&udp, mode.as_bytes()).is_ok());
    }
    before.kill();
    lab.down();
    assert_eq!(xdp_on_uplink(&lab), "none");
}

/// What somebody takes away by hand is told of, and put back.
#[test]
fn what_is_not_attached_any_more_is_told_of_and_attached_anew() {
    let lab = Lab::builder("taken away").images(&[Image::Echo]).build();
    for arguments in [&[][..], &["--clsact"]] {
        let up = lab.up(arguments);
        assert!(!lab.status()["problems"].to_string().contains("any more"), "{}", lab.status()["problems"]);
        let hook = |status: &serde_json::Value| {
            status["hooks"].as_array().expect("hooks").iter().any(|h| h["hook"] == "uplink_ingress")
        };
        assert!(hook(&lab.status()));
        if arguments.is_empty() {
            let index = std::fs::read_dir(lab.pins().join("links")).expect("pins").flatten();
            let pins: Vec<_> =
                index.map(|e| e.path()).filter(|p| p.to_string_lossy().contains("uplink_ingress")).collect();
            assert_eq!(pins.len(), 1);
            std::fs::remove_file(&pins[0]).expect("the pin can be removed");
        } else {
            lab.host().run(["tc", "qdisc", "del", "dev", "eth0", "clsact"]).ok();
        }
        wait_until("status tells of it", SOON, || {
            let status = lab.status();
            let told = status["problems"].to_string();
            // Never both: attached, and not.
            assert!(hook(&status) != told.contains("eth0 any more\""), "{status}");
            told.contains("uplink_ingress is not attached to eth0 any more; put back") && hook(&status)
        });
        drop(up);
    }
}

/// `served` is what the kernel would do, whoever has changed it.
#[test]
fn a_publication_is_served_only_while_the_kernel_would_serve_it() {
    let lab = Lab::builder("served in truth").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let server = lab.run("server", &["-p", "8000:7", "echo"]);
    lab.run("other", &["-p", "8001:7", "echo"]);
    let state = |port: u16| {
        let status = lab.status();
        let rows = status["publications"].as_array().expect("publications").clone();
        let row = rows.iter().find(|r| r["host_port"] == port && r["host_addr"] == "0.0.0.0").expect("a row").clone();
        (row["state"].as_str().expect("a state").to_owned(), status["problems"].to_string())
    };
    wait_until("both are served", SOON, || state(8000).0 == "served" && state(8001).0 == "served");
    // The entry is taken out of the map: by bpftool, as anybody may.
    let map = lab.pins().join("maps/ENDPOINTS").display().to_string();
    let dump = lab.host().run(["bpftool", "-j", "map", "dump", "pinned", &map]).ok();
    let dump: serde_json::Value = serde_json::from_str(&dump).expect("JSON");
    let ip = server.ip().octets();
    let key = dump.as_array().expect("entries").iter().find_map(|e| {
        let value: Vec<u8> = e["value"].as_array()?.iter().filter_map(|b| byte(b.as_str()?)).collect();
        value.windows(4).any(|w| w == ip).then(|| e["key"].as_array().cloned())?
    });
    let key: Vec<String> =
        key.expect("the container's entry").iter().map(|b| b.as_str().unwrap_or("").to_owned()).collect();
    let words = ["bpftool", "map", "delete", "pinned", &map, "key", "hex"];
    let hex: Vec<String> = key.iter().map(|b| b.trim_start_matches("0x").to_owned()).collect();
    lab.host().run(words.iter().map(|w| (*w).to_owned()).chain(hex)).ok();
    let (now, problems) = state(8000);
    assert_eq!(now, "not served", "{problems}");
    assert!(problems.contains("the kernel does not know its container"), "{problems}");
    assert_eq!(state(8001).0, "served");
    assert!(problems.contains("the kernel does not know its container"), "{problems}");
}

fn byte(text: &str) -> Option<u8> {
    u8::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}
