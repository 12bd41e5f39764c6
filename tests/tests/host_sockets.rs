//! What the host's own sockets dialled is shown to them, however many they are and however many ports they send to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tests::sockets::uninterrupted;
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SERVER: [&str; 3] = ["echo", "peer", "udp:[::]:7"];

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    (ip.into(), port).into()
}

#[test]
fn every_socket_is_shown_what_it_dialled() {
    let lab = Lab::builder("host's sockets").images(&[Image::Echo]).without_iptables().build();
    let _up = lab.up(&[]);
    let (first, second) = (["-p", "127.0.0.1:8002:7/udp", "-p", "8001:7/udp"], ["-p", "8003:7/udp"]);
    let first = lab.run("first", &[&first[..], &SERVER].concat());
    let second = lab.run("second", &[&second[..], &SERVER].concat());
    let socket = lab.host().within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let ask = |to: SocketAddr| -> io::Result<SocketAddr> {
        socket.send_to(b"words", to)?;
        Ok(uninterrupted(|| socket.recv_from(&mut [0; 64]))?.1)
    };
    for server in [&first, &second] {
        wait_until("a server answers", SOON, || ask(at(server.ip(), 7)).is_ok());
    }
    one_socket_sends_to_many(&ask, [first.ip(), second.ip()]);
    many_sockets_are_connected(&lab);
}

/// It is shown each as it sent to it, and the container itself once it has spoken to that.
fn one_socket_sends_to_many(ask: &dyn Fn(SocketAddr) -> io::Result<SocketAddr>, containers: [Ipv4Addr; 2]) {
    let published = [at(LOCALHOST, 8002), at(LOCALHOST, 8003), at(HOST, 8001), at(HOST, 8003)];
    for _ in 0..2 {
        for to in published {
            assert_eq!(ask(to).expect("an answer"), to);
        }
        for container in containers {
            assert_eq!(ask(at(container, 7)).expect("an answer"), at(container, 7));
        }
    }
    assert_eq!(ask(published[3]).expect("an answer"), published[3]);
}

/// Of UDP: nobody has to accept them.
fn many_sockets_are_connected(lab: &Lab) {
    const SOCKETS: usize = 200_000;
    /// Descriptors that everything else needs.
    const OTHERS: usize = 1000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("all that is allowed");
    // Each thread has descriptors of its own: so many that the limit suffices for each.
    let each = (most as usize - OTHERS).min(SOCKETS);
    let threads = SOCKETS.div_ceil(each);
    let all_are_there = Barrier::new(threads);
    let before = lab.counters().packets("host_redirected");
    let nameless: usize = thread::scope(|scope| {
        let connect = || lab.host().within(|| connected(each, &all_are_there));
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(connect)).collect();
        running.into_iter().map(|t| t.join().expect("a thread").expect("sockets")).sum()
    });
    assert_eq!(lab.counters().packets("host_redirected") - before, (threads * each) as u64);
    assert_eq!(nameless, 0, "sockets that are shown something else, of {}", threads * each);
}

/// Connects so many sockets, and returns how many are shown something else than what they dialled when others have theirs as well.
fn connected(sockets: usize, all_are_there: &Barrier) -> io::Result<usize> {
    /// Many share a port, or there would not be enough; none that the kernel chooses.
    const PORTS: usize = 20_000;
    let to = at(LOCALHOST, 8002);
    let dial = |n: usize| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&at(Ipv4Addr::UNSPECIFIED, 10_000 + (n % PORTS) as u16).into())?;
        socket.connect(&to.into())?;
        Ok(socket)
    };
    unshare(CloneFlags::CLONE_FILES)?;
    let sockets: io::Result<Vec<Socket>> = (0..sockets).map(dial).collect();
    all_are_there.wait();
    let is_named = |s: &Socket| s.peer_addr().is_ok_and(|peer| peer.as_socket() == Some(to));
    let nameless = sockets?.iter().filter(|s| !is_named(s)).count();
    // Not before all have looked: a socket that is closed leaves its room to others.
    all_are_there.wait();
    Ok(nameless)
}
