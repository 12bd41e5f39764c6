//! What goes wrong on the way: hops and MTUs that run out, ports that nobody listens on, packets in fragments.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tests::far::{FAR, FAR6 as FAR_V6, far};
use tests::sockets::{Talk, ask, ask_when_up, bind_udp, serve, uninterrupted};
use tests::{CLIENT, HOST, HOST2, Image, Lab, Netns, wait_for};

const SOON: Duration = Duration::from_secs(10);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const HOST2_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A server for both families on port 7, TCP and UDP, and a published UDP port 9 on which nobody listens.
const SERVER: &[&str] = &["-p", "7:7", "-p", "7:7/udp", "-p", "9:9/udp", "echo", "peer", "tcp:[::]:7", "udp:[::]:7"];

/// A lab without netfilter whose containers have addresses of both families.
fn builder(title: &str) -> tests::Builder {
    Lab::builder(title)
        .images(&[Image::Echo])
        .without_iptables()
        .engine_arg("--ipv6")
        .engine_arg("--fixed-cidr-v6=fd00:17::/64")
}

/// Waits for an error to arrive at a socket, sending the words again and again.
#[track_caller]
fn error_of(socket: &UdpSocket, words: &[u8]) -> std::io::Error {
    let mut buffer = [0; 65536];
    let heard = wait_for(SOON, || {
        if let Err(e) = socket.send(words) {
            return Some(e);
        }
        match uninterrupted(|| socket.recv(&mut buffer)) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Some(e),
            _ => None,
        }
    });
    heard.unwrap_or_else(|| panic!("no error arrives at {socket:?}"))
}

/// Has a socket send with so many hops, and told of what ends on the way.
fn probe(socket: &UdpSocket, hops: i32) {
    let done = if socket.local_addr().is_ok_and(|a| a.is_ipv4()) {
        setsockopt(socket, sockopt::Ipv4Ttl, &hops).and_then(|()| setsockopt(socket, sockopt::Ipv4RecvErr, &true))
    } else {
        setsockopt(socket, sockopt::Ipv6Ttl, &hops).and_then(|()| setsockopt(socket, sockopt::Ipv6RecvErr, &true))
    };
    done.expect("a socket option");
}

#[test]
fn traceroute_sees_the_host_and_then_the_container() {
    let lab = builder("traceroute").build();
    let _up = lab.up(&[]);
    lab.run("server", SERVER);
    let sibling = lab.start("sibling", &["busybox", "sleep", "100000"]);
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        ask_when_up(lab.client(), (host, 7), b"up");
        for ns in [lab.client().clone(), sibling.ns()] {
            let socket = ns.udp((host, 7)).expect("a socket");
            probe(&socket, 1);
            let error = lab.assert_dropped("ttl_exceeded", || error_of(&socket, b"one hop"));
            assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{host}: {error}");
            probe(&socket, 2);
            let answer = wait_for(SOON, || ask(&socket, b"two hops").ok());
            assert!(answer.is_some(), "{host}: two hops do not suffice");
        }
    }
    // The client's checksum was left to its device, and the quoted one is finished only now: the error must still sum up for
    // a client that looks.
    lab.host().set_offloads("eth0", false);
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let socket = lab.client().udp((host, 7)).expect("a socket");
        probe(&socket, 1);
        let error = error_of(&socket, b"one hop");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{host}, checksums finished by the host: {error}");
    }
}

#[test]
fn port_unreachable_reaches_the_socket_of_the_client() {
    let lab = builder("port unreachable").build();
    let _up = lab.up(&[]);
    lab.run("server", SERVER);
    let sibling = lab.start("sibling", &["busybox", "sleep", "100000"]);
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        ask_when_up(lab.client(), (host, 7), b"up");
        for ns in [lab.client().clone(), sibling.ns()] {
            let socket = ns.udp((host, 9)).expect("a socket");
            let error = lab.assert_carried(|| error_of(&socket, b"anybody there?"));
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{host}: {error}");
        }
    }
}

/// What must work over a way that takes less than either end can see: streams both ways, datagrams that are told and then cut.
#[track_caller]
fn works_both_ways(lab: &Lab, far: &Netns, container: &Netns) {
    for (host, client, any) in [
        (IpAddr::from(HOST2), IpAddr::from(FAR), IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        (HOST2_V6.into(), FAR_V6.into(), Ipv6Addr::UNSPECIFIED.into()),
    ] {
        ask_when_up(far, (host, 7), b"up");
        lab.assert_carried(|| {
            Talk::when_up(far, (host, 7)).transfer(4_000_000, |_| ()).unwrap_or_else(|e| panic!("{host}: {e}"));
        });
        // A datagram from the container that does not fit: first an error, then it comes in pieces.
        let server = container.within(|| bind_udp((any, 9))).expect("a socket in the container");
        let socket = far.udp_from((client, 5000).into(), (host, 9)).expect("a socket");
        let mut buffer = [0; 65536];
        socket.send(b"hello").expect("sent");
        server.set_read_timeout(Some(SOON)).expect("a timeout");
        let (n, peer) = uninterrupted(|| server.recv_from(&mut buffer)).expect("the client's words");
        assert_eq!((&buffer[..n], peer), (&b"hello"[..], SocketAddr::from((client, 5000))));
        server.connect(peer).expect("connected");
        server.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let mut told = None;
        let whole = wait_for(SOON, || {
            if let Err(e) = server.send(&[7; 1400]) {
                told = Some(e);
                return None;
            }
            uninterrupted(|| socket.recv(&mut buffer)).ok()
        });
        assert_eq!(whole, Some(1400), "{host} does not get through to the client; {:?}", lab.counters());
        // What the container has learned with the stream before holds for the datagrams: then no error is needed.
        if let Some(e) = told {
            assert_eq!(e.raw_os_error(), Some(nix::libc::EMSGSIZE), "{host}: {e}");
        }
        // And from the client.
        let whole = wait_for(SOON, || {
            socket.send(&[8; 1400]).ok()?;
            uninterrupted(|| server.recv(&mut buffer)).ok()
        });
        assert_eq!(whole, Some(1400), "the client does not get through to {host}; {:?}", lab.counters());
    }
}

#[test]
fn cilium_12968_and_33844_path_mtu_discovery_works_through_a_publication() {
    let lab = builder("a narrow way").second_uplink().build();
    let _up = lab.up(&[]);
    let server = lab.run("server", SERVER);
    let far = far(&lab);
    let container = server.ns();
    // Told apart from what the stream teaches: a datagram that must not be cut is told of at once.
    ask_when_up(&far, (HOST2, 7), b"up");
    let socket = far.udp_from((FAR, 6000).into(), (HOST2, 9)).expect("a socket");
    let from_container = container.udp_from((server.ip(), 9).into(), (FAR, 6000)).expect("a socket");
    socket.send(b"hello").expect("sent");
    assert_eq!(uninterrupted(|| from_container.recv(&mut [0; 9])).expect("the client's words"), 5);
    let error = error_of(&from_container, &[1; 1400]);
    assert_eq!(error.raw_os_error(), Some(nix::libc::EMSGSIZE), "{error}");
    drop(from_container);
    // Before anything else could teach the container: its first fragments do not fit, with their fragment headers.
    large_answers(&far);
    works_both_ways(&lab, &far, &container);
}

/// Datagrams larger than any MTU, there and back.
#[track_caller]
fn large_answers(far: &Netns) {
    for (host, client) in [(IpAddr::from(HOST2), IpAddr::from(FAR)), (HOST2_V6.into(), FAR_V6.into())] {
        ask_when_up(far, (host, 7), b"up");
        let socket = far.udp_from((client, 5001).into(), (host, 7)).expect("a socket");
        let words = vec![3; 4000];
        let answer = wait_for(SOON, || ask(&socket, &words).ok());
        assert!(answer.is_some(), "{host}: 4000 bytes do not come back");
    }
}

#[test]
fn an_uplink_narrower_than_the_containers_network_works() {
    let lab = builder("a narrow uplink").second_uplink().build();
    let _up = lab.up(&[]);
    let server = lab.run("server", SERVER);
    let far = far(&lab);
    lab.host().set_mtu("eth1", 1280);
    let container = server.ns();
    ask_when_up(&far, (HOST2, 7), b"up");
    // The container cuts them to 1500, and is told that even that is too much.
    lab.assert_dropped("too_big", || large_answers(&far));
    works_both_ways(&lab, &far, &container);
}

#[test]
fn cilium_25709_and_calico_8821_fragments_of_both_families_arrive() {
    let lab = builder("fragments").build();
    let _up = lab.up(&[]);
    let server = lab.run("server", SERVER);
    let sibling = lab.start("sibling", &["busybox", "sleep", "100000"]);
    let words: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
    for (host, client) in [(IpAddr::from(HOST), IpAddr::from(CLIENT)), (HOST_V6.into(), CLIENT_V6.into())] {
        ask_when_up(lab.client(), (host, 7), b"up");
        for ns in [lab.client().clone(), sibling.ns()] {
            let answer = lab.assert_carried(|| ask_when_up(&ns, (host, 7), &words));
            assert!(answer.0.port() != 0, "{host}");
        }
        let ping = server.ns().run(["ping", "-n", "-c", "2", "-W", "2", "-s", "5000", &client.to_string()]);
        assert!(ping.success(), "no echo in fragments from {client}");
    }
}

#[test]
fn fragments_of_what_containers_begin_pass_the_engines_own_rules() {
    let builder = Lab::builder("fragments beside rules").images(&[Image::Echo]);
    let lab = builder.engine_arg("--ipv6").engine_arg("--fixed-cidr-v6=fd00:17::/64").build();
    let _up = lab.up(&[]);
    let server = lab.run("server", SERVER);
    let _other = serve(lab.client(), &lab.dir().join("peer.log"), &["udp:[::]:9"]);
    // Where the Engine makes no rules for IPv6, the client sees the container's own address, and has a route.
    for client in [IpAddr::from(CLIENT), CLIENT_V6.into()] {
        ask_when_up(&server.ns(), (client, 9), b"up");
        let before = lab.counters();
        let ping = server.ns().run(["ping", "-n", "-c", "2", "-W", "2", "-s", "5000", &client.to_string()]);
        assert!(
            ping.success(),
            "no echo in fragments from {client}: {ping}; counted: {}",
            lab.counters().since(&before)
        );
        ask_when_up(&server.ns(), (client, 9), &[7; 20_000]);
    }
}

#[test]
fn jumbo_frames_outside_and_ordinary_ones_inside() {
    let lab = builder("MTU 9000").mtu(9000).build();
    let _up = lab.up(&[]);
    lab.run("server", SERVER);
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        ask_when_up(lab.client(), (host, 7), b"up");
        lab.assert_carried(|| {
            let mut talk = Talk::when_up(lab.client(), (host, 7));
            talk.transfer(4_000_000, |_| ()).unwrap_or_else(|e| panic!("{host}: {e}"));
            // One frame of the LAN, and its answer in the container's smaller ones.
            ask_when_up(lab.client(), (host, 7), &[5; 8800]);
        });
    }
}
