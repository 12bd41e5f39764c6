//! netkit: pairs of interfaces like veth, which programs are made for.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use tests::sockets::{Talk, ask_when_up, is_silence};
use tests::{Lab, Netns};

use crate::canonical;

/// The host's address and the client's on the pair, of one /24.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// What a pair carries (`enum netkit_mode` of the kernel's uapi).
const MODES: [(&str, u32); 2] = [("frames", 0), ("packets", 1)];

/// An attribute of netlink: its length, its type, what it says, and what fills it up to whole words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut all = (4 + value.len() as u16).to_ne_bytes().to_vec();
    all.extend(kind.to_ne_bytes());
    all.extend(value);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

/// Makes a pair in a namespace: older `ip` has no word for it. False where the kernel has none.
fn make(ns: &Netns, name: &str, peer: &str, mode: u32) -> bool {
    /// Of the kernel's uapi, beside those that libc has.
    const PEER_INFO: u16 = 1;
    const MODE: u16 = 5;
    let named = |name: &str| attribute(nix::libc::IFLA_IFNAME, format!("{name}\0").as_bytes());
    let info = [0; 16];
    let data =
        [attribute(PEER_INFO, &[&info[..], &named(peer)].concat()), attribute(MODE, &mode.to_ne_bytes())].concat();
    let kind =
        [attribute(nix::libc::IFLA_INFO_KIND, b"netkit\0"), attribute(nix::libc::IFLA_INFO_DATA, &data)].concat();
    let body = [&info[..], &named(name), &attribute(nix::libc::IFLA_LINKINFO, &kind)].concat();
    let flags = nix::libc::NLM_F_REQUEST | nix::libc::NLM_F_ACK | nix::libc::NLM_F_CREATE | nix::libc::NLM_F_EXCL;
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    message.extend(nix::libc::RTM_NEWLINK.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let answer = ns.within(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute).expect("netlink");
        send(socket.as_raw_fd(), &message, MsgFlags::empty()).expect("a request");
        let mut answer = [0; 8192];
        recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        answer
    });
    match -i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => true,
        nix::libc::EOPNOTSUPP => false,
        error => panic!("a netkit pair: {}", std::io::Error::from_raw_os_error(error)),
    }
}

fn ip(ns: &Netns, line: &str) {
    ns.run(std::iter::once("ip").chain(line.split_whitespace())).ok();
}

/// Ports 8000 of TCP and UDP are reached through a pair, whatever it carries; nothing is said of pairs that lead elsewhere. False
/// where the kernel has none: nothing is said of that either.
pub fn serves(lab: &Lab, server: Ipv4Addr) -> bool {
    let said = || lab.status()["problems"].to_string();
    let before = said();
    // As of a pod: no address of the host's is on it.
    if !make(lab.host(), "pod", "pod-peer", 1) {
        return false;
    }
    ip(lab.host(), "link set pod up");
    for (what, mode) in MODES {
        make(lab.host(), "kit", "kit-peer", mode);
        ip(lab.host(), &format!("link set kit-peer netns {}", lab.client().path().display()));
        for (ns, device, address) in [(lab.host(), "kit", HOST), (lab.client(), "kit-peer", CLIENT)] {
            ip(ns, &format!("address add {address}/24 dev {device}"));
            ip(ns, &format!("link set {device} up"));
        }
        let mut talk = Talk::when_up(lab.client(), (HOST, 8000));
        lab.assert_carried(|| talk = Talk::when_up(lab.client(), (HOST, 8000)));
        assert_eq!(canonical(talk.seen()), talk.ours(), "a pair that carries {what}");
        talk.transfer(300_000, |_| ()).unwrap_or_else(|e| panic!("a transfer through a pair that carries {what}: {e}"));
        let (seen, port) = lab.assert_carried(|| ask_when_up(lab.client(), (HOST, 8000), &[b'x'; 1300]));
        assert_eq!(canonical(seen), (CLIENT, port).into());
        ip(lab.client(), &format!("route add {} via {HOST}", server));
        let error = lab.assert_dropped("not_published", || lab.client().tcp((server, 7))).expect_err("not published");
        assert!(is_silence(&error), "{error}");
        ip(lab.client(), &format!("route del {}", server));
        assert_eq!(said(), before);
        ip(lab.host(), "link del kit");
    }
    ip(lab.host(), "link del pod");
    true
}
