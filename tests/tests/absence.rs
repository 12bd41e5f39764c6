//! Isolation does not need the daemon: while it is dead, stopped or busy, nobody reaches a container that is started, from its first
//! moment on, and nobody is reached by one that is hostile, though at its interface there is no program yet.
//!
//! `RUNTIME_ABSENCE_STARTS` is the number of starts for each state of the daemon.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::frames::{BROADCAST, Way, Wire, change_sender};
use tests::sockets::Talk;
use tests::{CLIENT, Container, HOST, Image, Lab};

/// The new container's, before there is one.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 9, 50);
const MAC: [u8; 6] = [2, 0x42, 172, 30, 9, 50];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 9, 1);
/// How long it is probed in each of its lives.
const A_WHILE: Duration = Duration::from_millis(300);

/// What the daemon does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Killed,
    Stopped,
    Busy,
}

fn starts() -> usize {
    std::env::var("RUNTIME_ABSENCE_STARTS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

fn network(lab: &Lab, isolated: bool) -> Container {
    let label = format!("runtime.isolate={isolated}");
    lab.docker(["network", "create", "--label", &label, "--subnet", "172.30.9.0/24", "net"]).ok();
    let prober = lab.run("prober", &["--network", "net", "echo"]);
    let (ip, mac) = (ADDRESS.to_string(), MAC.map(|b| format!("{b:02x}")).join(":"));
    let create = ["create", "--name", "target", "--stop-signal=SIGKILL", "--network", "net", "--ip", &ip];
    lab.docker(create.iter().copied().chain(["--mac-address", &mac, "echo"])).ok();
    Talk::when_up(lab.host(), (prober.ip_on("net"), 7));
    prober
}

/// An ARP question (1) or answer (2).
fn arp(way: Way, operation: u8, sender: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    way.ethernet(0x0806, &[&head[..], &way.from_mac, &sender.octets(), &[0; 6], &way.to.octets()].concat())
}

/// What the prober tries, by whichever way a frame may go.
fn probes(way: Way) -> Vec<Vec<u8>> {
    let everybody = Way { to_mac: BROADCAST, ..way };
    vec![
        arp(everybody, 1, way.from),
        arp(way, 1, way.from),
        way.syn(4000, 7),
        way.udp(4000, 7, b"a datagram"),
        everybody.udp(4000, 7, b"a datagram to everybody"),
        way.ping(1, b"an echo request"),
        way.ethernet(0x88b5, b"a raw frame"),
    ]
}

/// What a hostile container sends to its neighbour.
fn attacks(way: Way, neighbours: Ipv4Addr) -> Vec<Vec<u8>> {
    let as_another = |from| Way { from, ..way };
    vec![
        arp(way, 2, GATEWAY),
        arp(way, 1, way.from),
        way.udp(7, 4000, b"its own address"),
        as_another(GATEWAY).udp(7, 4000, b"the host's address"),
        as_another(neighbours).udp(7, 4000, b"the neighbour's own"),
        as_another(CLIENT).udp(7, 4000, b"an address outside"),
        way.syn(4000, 7),
        way.ping(1, b"an echo request"),
        way.ethernet(0x88b5, b"a raw frame"),
    ]
}

/// Whether the prober hears anything of the new container, or that one of the prober, in so many lives of it.
fn is_heard(lab: &Lab, prober: &Container, starts: usize, counts: impl Fn(&[u8]) -> bool + Sync) -> bool {
    let ns = prober.ns();
    let way = Way { from_mac: ns.mac("eth0"), to_mac: MAC, from: prober.ip_on("net"), to: ADDRESS };
    let (wire, ears) = (Wire::open(&ns, "eth0"), Wire::open(&ns, "eth0"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Before its first moment, and after its last.
        scope.spawn(|| {
            let frames = probes(way);
            while !over.load(Ordering::Relaxed) {
                frames.iter().for_each(|frame| wire.send(frame));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let listener = scope.spawn(|| {
            let mut heard = None;
            while heard.is_none() && !over.load(Ordering::Relaxed) {
                heard = ears.find(A_WHILE, |f| f[6..12] == MAC && counts(f));
            }
            heard
        });
        let lives = (0..starts).map(|_| {
            lab.docker(["start", "target"]).ok();
            let target = lab.container("target").ns();
            let inside = Wire::open(&target, "eth0");
            let back = Way { from_mac: MAC, to_mac: way.from_mac, from: ADDRESS, to: way.from };
            attacks(back, way.from).iter().for_each(|frame| inside.send(frame));
            let reached = inside.find(A_WHILE, |f| f[..6] == MAC && f[6..12] == way.from_mac && counts(f));
            lab.docker(["kill", "target"]).ok();
            reached
        });
        let reached: Vec<_> = lives.flatten().collect();
        over.store(true, Ordering::Relaxed);
        let heard = listener.join().ok().flatten();
        if let Some(frame) = reached.first().or(heard.as_ref()) {
            println!("{} frames reached it; one of them, or of what was heard of it: {frame:02x?}", reached.len());
        }
        !reached.is_empty() || heard.is_some()
    })
}

fn without(daemon: Daemon) {
    let lab = Lab::builder("without the daemon").images(&[Image::Echo]).without_client_offloads().build();
    let up = lab.up(&[]);
    let prober = network(&lab, true);
    match daemon {
        Daemon::Killed => up.kill(),
        Daemon::Stopped => kill(Pid::from_raw(up.pid() as i32), Signal::SIGSTOP).expect("a signal"),
        Daemon::Busy => {
            lab.run("published", &["-p", "7:7/udp", "echo"]);
            let client = lab.client();
            let way = Way { from_mac: client.mac("eth0"), to_mac: lab.host().mac("eth0"), from: CLIENT, to: HOST };
            let mut n = 0u32;
            // As many conversations as there is room for, and more.
            Wire::open(client, "eth0").flood(&way.udp(1024, 7, b"x"), 100_000, |frame| {
                n += 1;
                change_sender(frame, Ipv4Addr::from(0xc0a8_0000 | n >> 8), 1024 + (n & 0xff) as u16);
            });
        }
    }
    // Containers that are known may ask for each other's addresses: over links they have to.
    let counts = |frame: &[u8]| daemon != Daemon::Busy || frame[12..14] != [8, 6];
    assert!(!is_heard(&lab, &prober, starts(), counts), "{daemon:?}: something passes between unlinked containers");
}

#[test]
fn nobody_reaches_a_new_container_while_the_daemon_is_dead() {
    without(Daemon::Killed);
}

#[test]
fn nobody_reaches_a_new_container_while_the_daemon_is_stopped() {
    without(Daemon::Stopped);
}

#[test]
fn nobody_reaches_a_new_container_while_the_daemon_is_busy() {
    without(Daemon::Busy);
}

#[test]
fn where_nothing_is_isolated_a_new_container_is_heard_at_once() {
    let lab = Lab::builder("an open network").images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    let prober = network(&lab, false);
    assert!(is_heard(&lab, &prober, 1, |_| true), "the probes and attacks have no effect");
}
