//! Uplinks without Ethernet: packets begin with their IP header, as those of WireGuard do.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tests::sockets::{Talk, ask_once};
use tests::{Image, Lab, Netns};

/// A tunnel `tun0` of a namespace: what is sent there can be read, and what is written arrives.
fn tunnel(ns: &Netns, addresses: [&str; 2]) -> File {
    /// `IFF_TUN | IFF_NO_PI` of the kernel's uapi.
    const TUN_WITHOUT_HEADER: u16 = 0x1001;
    /// `TUNSETIFF` of the kernel's uapi.
    const TUNSETIFF: nix::libc::c_ulong = 0x4004_54ca;
    let file = ns.within(|| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
        let mut request = [0_u8; 40];
        request[..4].copy_from_slice(b"tun0");
        request[16..18].copy_from_slice(&TUN_WITHOUT_HEADER.to_ne_bytes());
        // SAFETY: the request is as large as the kernel's `struct ifreq`, which it reads and fills in.
        let made = unsafe { nix::libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        assert_eq!(made, 0, "a tunnel: {}", std::io::Error::last_os_error());
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("O_NONBLOCK");
        file
    });
    for address in addresses {
        ns.run(["ip", "address", "add", address, "dev", "tun0", "nodad"]).ok();
    }
    ns.run(["ip", "link", "set", "tun0", "up"]).ok();
    file
}

/// Carries packets between two tunnels until there are enough.
fn carry(ends: [&File; 2], enough: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !enough.load(Ordering::Relaxed) {
        let mut ready = ends.map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut ready, PollTimeout::from(100u8));
        for (mut from, mut to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            while let Ok(n) = from.read(&mut buffer) {
                let _ = to.write(&buffer[..n]);
            }
        }
    }
}

#[test]
fn published_ports_are_served_over_a_tunnel() {
    let lab = Lab::builder("a tunnel for an uplink").images(&[Image::Echo]).build();
    let ends = [tunnel(lab.host(), ["10.9.0.1/24", "fd09::1/64"]), tunnel(lab.client(), ["10.9.0.2/24", "fd09::2/64"])];
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| carry([&ends[0], &ends[1]], &enough));
        let stop = Stop(&enough);
        let _up = lab.up(&[]);
        lab.run("server", &["-p", "8000:7", "-p", "8000:7/udp", "echo"]);
        let at = SocketAddr::from(([10, 9, 0, 1], 8000));
        let mut talk = lab.assert_carried(|| Talk::when_up(lab.client(), at));
        assert_eq!(talk.seen().ip().to_string(), "10.9.0.2", "the client's address is kept");
        talk.say(b"over the tunnel").expect("an echo");
        talk.transfer(1 << 20, |_| ()).expect("a stream");
        let (seen, _) = lab.assert_carried(|| ask_once(lab.client(), at, b"words")).expect("an answer");
        assert_eq!(seen.ip().to_string(), "10.9.0.2");
        // What is not published is refused by its reason there as well.
        let server = lab.container("server").ip();
        lab.assert_dropped("not_published", || Talk::open(lab.client(), (server, 7)).map(drop).expect_err("closed"));
        let status = lab.status();
        let hooks = status["hooks"].as_array().expect("hooks");
        let on_tunnel: Vec<_> = hooks.iter().filter(|h| h["interface"] == "tun0").map(|h| h["hook"].clone()).collect();
        assert_eq!(on_tunnel, ["uplink_tunnel"]);
        let states = status["publications"].as_array().expect("publications").iter().map(|p| p["state"].clone());
        let of_ipv4: Vec<_> = states.filter(|state| state != "relayed").collect();
        assert_eq!(of_ipv4, ["served", "served"], "{}", status["problems"]);
        drop(stop);
    });
}

/// Ends the carrying also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
