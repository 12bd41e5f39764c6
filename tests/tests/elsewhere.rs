//! One host from `up` to `down`, in one lab: what every kernel has to show. Few starts of an Engine and of the programs, because
//! the kernels that `cargo xtask vm` boots are emulated. `cargo test` alone runs the same things scenario by scenario, and leaves
//! this out; a kernel that lacks something fails it.

mod elsewhere {
    pub mod links;
    mod netkit;
    mod old_kernel;
    mod uplinks;
    mod wireguard;
}

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use elsewhere::links;
use tests::dial::{How, dial};
use tests::sockets::{Talk, ask, ask_when_up, is_silence};
use tests::traces::{files, look, objects, remaining};
use tests::{CLIENT, Container, HOST, Image, Lab, Netns, Up, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// As IPv4 has it: the server listens for both families by one socket.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// With a device's first qdisc, clsact too, the kernel gives it a queue length where it had none, and does not take it back
/// (qdisc_create in net/sched/sch_api.c). The device has no queue all the same.
fn without_queue_lengths(lines: BTreeSet<String>) -> BTreeSet<String> {
    lines.into_iter().map(|line| line.split(" qlen ").next().unwrap_or_default().to_owned()).collect()
}

/// The host, and who lives on it.
struct Story {
    lab: Lab,
    server: Container,
    /// The server's port 7, published as 8000. What stays is asked of the Engine once: emulated, that takes seconds.
    closed: SocketAddr,
    recipient: Container,
    linked: Netns,
    stranger: Netns,
    begun: Instant,
}

#[test]
fn from_up_to_down() {
    let begun = Instant::now();
    // Native XDP redirects only frames that a wire could have carried.
    let lab = Lab::builder("from up to down").images(&[Image::Echo]).without_client_offloads();
    let lab = lab.engine_arg("--ipv6").engine_arg("--fixed-cidr-v6=2001:db8:d::/64").build();
    // A bridge without a container looks different.
    let third = lab.start("third", &["echo"]);
    Talk::when_up(lab.host(), third.at(7));
    let tentative = || lab.host().run(["ip", "-6", "address", "show", "tentative"]).ok();
    wait_until("the bridge's own address is checked", SOON, || tentative().is_empty());
    let before = without_queue_lengths(look(&lab));

    let up = lab.up(&[]);
    let server = ["-p", "8000:7", "-p", "8000:7/udp", "echo", "peer", "tcp:[::]:7", "udp:[::]:7"];
    let server = lab.run("server", &server);
    let recipient = lab.run("recipient", &["--link", "server", "echo"]);
    let (closed, linked, stranger) = (server.at(7), recipient.ns(), third.ns());
    let story = Story { lab, server, closed, recipient, linked, stranger, begun };
    story.tell("up");
    story.serves();
    story.is_refused();
    let up = story.goes_on_without_a_daemon(up);

    story.serves_through_other_links();
    let mut last = up;
    let other: &[&[&str]] = match story.attachment().as_str() {
        "tcx" => &[&["--clsact"], &["--xdp", "generic"], &["--xdp", "native"]],
        _ => &[&["--xdp", "generic"], &["--xdp", "native"]],
    };
    for words in other {
        last.stop();
        last = story.lab.up(words);
        story.tell(&words.join(" "));
        story.is_attached(words);
        story.serves_from_outside();
        story.is_refused();
    }
    story.leaves_nothing(last, &before);
}

impl Story {
    /// Into the log: emulated, each step takes its time.
    fn tell(&self, what: &str) {
        println!("{:>4} s: {what}", self.begun.elapsed().as_secs());
    }

    fn attachment(&self) -> String {
        self.lab.status()["attachment"].as_str().unwrap_or_default().to_owned()
    }

    /// Every program stands where these words want it, by the way that they want.
    fn is_attached(&self, words: &[&str]) {
        let status = self.lab.status();
        let hooks = status["hooks"].as_array().cloned().unwrap_or_default();
        let kinds = |hook: &str| -> Vec<String> {
            let of_hook = hooks.iter().filter(|h| h["hook"] == hook);
            of_hook.filter_map(|h| h["kind"].as_str().map(str::to_owned)).collect()
        };
        match words {
            ["--clsact"] => assert_eq!(kinds("uplink_ingress"), ["clsact"], "{status}"),
            ["--xdp", mode] => assert_eq!(kinds("uplink_xdp"), [format!("xdp {mode}")], "{status}"),
            _ => panic!("{words:?}"),
        }
    }

    /// Published ports over TCP and UDP, IPv4 and IPv6: the client's address is kept.
    fn serves_from_outside(&self) {
        let client = self.lab.client();
        for (host, ours) in [(IpAddr::from(HOST), IpAddr::from(CLIENT)), (HOST6.into(), CLIENT6.into())] {
            let to = SocketAddr::new(host, 8000);
            let mut talk = self.lab.assert_carried(|| Talk::when_up(client, to));
            assert_eq!(canonical(talk.seen()), talk.ours());
            talk.transfer(1_000_000, |_| ()).unwrap_or_else(|e| panic!("a transfer to {to}: {e}"));
            let (seen, port) = self.lab.assert_carried(|| ask_when_up(client, to, &[b'x'; 1300]));
            assert_eq!(canonical(seen), (ours, port).into());
        }
        self.tell("served from outside");
    }

    /// And to processes of the host itself, and over a link.
    fn serves(&self) {
        self.serves_from_outside();
        for to in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into(), HOST.into()] {
            for how in [How::Tcp, How::Connected] {
                let dialled = || dial(self.lab.host(), how, None, (to, 8000).into()).ok();
                let shown = self.lab.assert_carried(|| wait_for(SOON, dialled));
                let shown = shown.unwrap_or_else(|| panic!("{how:?}: {to} does not answer"));
                assert_eq!(shown.peer, (to, 8000).into(), "{how:?}: what the client is shown");
            }
        }
        let mut linked = self.lab.assert_carried(|| Talk::when_up(&self.linked, self.closed));
        linked.transfer(1_000_000, |_| ()).expect("a transfer over a link");
        self.tell("served to the host and over a link");
    }

    /// Who has no link, and who comes from outside to what is not published, hears nothing, and the reason is counted.
    fn is_refused(&self) {
        let closed = self.closed;
        let error = self.lab.assert_dropped("not_linked", || self.stranger.tcp(closed)).expect_err("no link");
        assert!(is_silence(&error), "{error}");
        let error = self.lab.assert_dropped("not_published", || self.lab.client().tcp(closed));
        assert!(is_silence(&error.expect_err("not published")));
        self.tell("refused");
    }

    /// The daemon is killed; the next one puts its own programs in the place of the old ones, which is what an upgrade does.
    fn goes_on_without_a_daemon(&self, up: Up) -> Up {
        let mut held = Talk::when_up(self.lab.client(), (HOST, 8000));
        let udp = self.lab.client().udp((HOST, 8000)).expect("a socket");
        let served = || ask(&udp, b"datagrams").is_ok();
        wait_until("the socket is served", SOON, served);
        let programs = objects(&self.lab);
        up.kill();
        held.say(b"without a daemon").expect("an echo");
        wait_until("datagrams go on without a daemon", SOON, served);
        Talk::when_up(self.lab.client(), (HOST, 8000));
        let error = self.stranger.tcp(self.closed).expect_err("the gate holds without a daemon");
        assert!(is_silence(&error), "{error}");
        self.tell("served without a daemon");

        let up = self.lab.up(&[]);
        held.say(b"adopted").expect("an echo");
        wait_until("datagrams go on under the next daemon", SOON, served);
        let of = |all: &BTreeSet<(String, String)>, kinds: &[&str]| {
            all.iter().filter(|(kind, _)| kinds.contains(&kind.as_str())).cloned().collect::<Vec<_>>()
        };
        let after = objects(&self.lab);
        assert_eq!(of(&after, &["map"]), of(&programs, &["map"]), "the maps stay");
        if self.attachment() == "tcx" {
            assert_eq!(of(&after, &["link"]), of(&programs, &["link"]), "the links stay");
        }
        assert_ne!(of(&after, &["prog"]), of(&programs, &["prog"]), "the programs are new ones");
        self.tell("adopted, with the programs replaced");
        self.serves();
        up
    }

    fn serves_through_other_links(&self) {
        for link in &links::ALL {
            links::serves_through(&self.lab, link, self.closed);
            self.tell(&format!("served through a {}", link.title));
        }
    }

    fn leaves_nothing(&self, up: Up, before: &BTreeSet<String>) {
        let remains = objects(&self.lab);
        up.stop();
        self.lab.docker(["rm", "-f", self.server.name(), self.recipient.name()]).ok();
        self.lab.down();
        assert_eq!(files(self.lab.pins()), Vec::<std::path::PathBuf>::new());
        let after = without_queue_lengths(look(&self.lab));
        let (new, gone) = (after.difference(before), before.difference(&after));
        let changes: Vec<_> = new.map(|l| format!("+ {l}")).chain(gone.map(|l| format!("- {l}"))).collect();
        assert!(changes.is_empty(), "the host is not what it was:\n{}", changes.join("\n"));
        // The kernel frees a program or a map some moments after its last user is gone.
        wait_until("nothing is left in the kernel", SOON, || remaining(&self.lab, &remains).is_empty());
        self.tell("down");
    }
}
