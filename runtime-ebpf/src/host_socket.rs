//! cgroup connect, sendmsg, recvmsg and getpeername: published ports for the host's own processes, without a proxy.
//!
//! These hooks are the whole machine's: every program first asks whether the socket is of the network namespace that
//! `HOST_NETNS` names.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use runtime_common::decide::host::{ConnectDecision, HostConnect, HostTables, connect, peer_name, sender_name};
use runtime_common::maps::{Address, HostPeerKey, HostSocket, Publication, PublicationKey};
use runtime_common::packet::{TCP, UDP};
use runtime_common::{Addr, Verdict};

use crate::maps::{ADDRESSES, HOST_NETNS, HOST_PEERS, HOST_SOCKETS, PUBLICATIONS, RULES};
use crate::report::count;

/// What the kernel takes for "go on" and "it fails".
const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// The state of a connected socket, of TCP or not.
const ESTABLISHED: u32 = 1;

const ECONNREFUSED: i32 = 111;

/// Set by the loader where the kernel lets these hooks choose the error (6.1): else a refusal is EPERM.
#[unsafe(no_mangle)]
static CAN_SET_RETVAL: u8 = 0;

#[cgroup_sock_addr(connect4)]
pub fn host_connect4(ctx: SockAddrContext) -> i32 {
    outgoing::<false>(&ctx, false, false)
}

#[cgroup_sock_addr(connect6)]
pub fn host_connect6(ctx: SockAddrContext) -> i32 {
    outgoing::<true>(&ctx, false, false)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn host_sendmsg4(ctx: SockAddrContext) -> i32 {
    outgoing::<false>(&ctx, true, Call(ctx.sock_addr).is_connected())
}

#[cgroup_sock_addr(sendmsg6)]
pub fn host_sendmsg6(ctx: SockAddrContext) -> i32 {
    outgoing::<true>(&ctx, true, Call(ctx.sock_addr).is_connected())
}

#[cgroup_sock_addr(recvmsg4)]
pub fn host_recvmsg4(ctx: SockAddrContext) -> i32 {
    incoming::<false>(&ctx, sender_name)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn host_recvmsg6(ctx: SockAddrContext) -> i32 {
    incoming::<true>(&ctx, sender_name)
}

#[cgroup_sock_addr(getpeername4)]
pub fn host_getpeername4(ctx: SockAddrContext) -> i32 {
    incoming::<false>(&ctx, peer_name)
}

#[cgroup_sock_addr(getpeername6)]
pub fn host_getpeername6(ctx: SockAddrContext) -> i32 {
    incoming::<true>(&ctx, peer_name)
}

/// `V6` is the family of the socket address; a mapped IPv4 one may be in it.
#[inline(always)]
fn outgoing<const V6: bool>(ctx: &SockAddrContext, sends: bool, connected: bool) -> i32 {
    let Some(protocol) = ours(ctx) else {
        return ALLOW;
    };
    let call = Call(ctx.sock_addr);
    let d = HostConnect {
        cookie: cookie(ctx),
        protocol,
        addr: call.addr::<V6>(),
        port: call.port(),
        bound: call.bound::<V6>(),
        sends,
        connected,
    };
    match connect(&HostMaps(ctx), &d) {
        ConnectDecision::Unchanged => ALLOW,
        ConnectDecision::Redirect(addr, port) => {
            call.set::<V6>(&addr, port);
            count(Verdict::HostRedirected);
            ALLOW
        }
        ConnectDecision::Refuse(v) => {
            count(v);
            // SAFETY: read once, so that the verifier sees the loader's constant; the helper only notes a number.
            unsafe {
                if (&raw const CAN_SET_RETVAL).read_volatile() != 0 {
                    bpf_set_retval(-ECONNREFUSED);
                }
            }
            REFUSE
        }
    }
}

#[inline(always)]
fn incoming<'a, const V6: bool>(
    ctx: &'a SockAddrContext,
    name: impl Fn(&HostMaps<'a>, &HostPeerKey) -> Option<(Addr, u16)>,
) -> i32 {
    if let Some(protocol) = ours(ctx) {
        let call = Call(ctx.sock_addr);
        let key = HostPeerKey::new(cookie(ctx), call.addr::<V6>(), call.port(), protocol);
        if let Some((addr, port)) = name(&HostMaps(ctx), &key) {
            call.set::<V6>(&addr, port);
        }
    }
    // Nothing else is allowed where something was received already.
    ALLOW
}

/// The protocol of a socket of the host's network namespace, where it is one that ports are published on.
#[inline(always)]
fn ours(ctx: &SockAddrContext) -> Option<u8> {
    // SAFETY: the context is the program's own.
    let (protocol, netns) = unsafe {
        let protocol = (&raw const (*ctx.sock_addr).protocol).read_volatile() as u8;
        if !matches!(protocol, TCP | UDP) {
            return None;
        }
        (protocol, bpf_get_netns_cookie(ctx.as_ptr()))
    };
    (HOST_NETNS.get(0) == Some(&netns)).then_some(protocol)
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is the program's own.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The fields of a call, each read and written as one word: the kernel allows nothing else.
struct Call(*mut bpf_sock_addr);

impl Call {
    #[inline(always)]
    fn addr<const V6: bool>(&self) -> Addr {
        let c = self.0;
        // SAFETY: fields of the program's own context.
        unsafe {
            if V6 {
                Addr::words([
                    (&raw const (*c).user_ip6[0]).read_volatile(),
                    (&raw const (*c).user_ip6[1]).read_volatile(),
                    (&raw const (*c).user_ip6[2]).read_volatile(),
                    (&raw const (*c).user_ip6[3]).read_volatile(),
                ])
            } else {
                Addr::v4_word((&raw const (*c).user_ip4).read_volatile())
            }
        }
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).user_port).read_volatile() as u16 }
    }

    #[inline(always)]
    fn is_connected(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            let sk = (&raw const (*self.0).__bindgen_anon_1.sk).read_volatile();
            !sk.is_null() && (&raw const (*sk).state).read_volatile() == ESTABLISHED
        }
    }

    /// The address that the socket is bound to.
    #[inline(always)]
    fn bound<const V6: bool>(&self) -> Addr {
        // SAFETY: as above; a call always has a socket, but the verifier wants to see it asked.
        unsafe {
            let sk = (&raw const (*self.0).__bindgen_anon_1.sk).read_volatile();
            if sk.is_null() {
                return Addr::ANY_V6;
            }
            if V6 {
                Addr::words([
                    (&raw const (*sk).src_ip6[0]).read_volatile(),
                    (&raw const (*sk).src_ip6[1]).read_volatile(),
                    (&raw const (*sk).src_ip6[2]).read_volatile(),
                    (&raw const (*sk).src_ip6[3]).read_volatile(),
                ])
            } else {
                Addr::v4_word((&raw const (*sk).src_ip4).read_volatile())
            }
        }
    }

    #[inline(always)]
    fn set<const V6: bool>(&self, addr: &Addr, port: u16) {
        let (c, w) = (self.0, addr.as_words());
        // SAFETY: as above.
        unsafe {
            if V6 {
                (&raw mut (*c).user_ip6[0]).write_volatile(w[0]);
                (&raw mut (*c).user_ip6[1]).write_volatile(w[1]);
                (&raw mut (*c).user_ip6[2]).write_volatile(w[2]);
                (&raw mut (*c).user_ip6[3]).write_volatile(w[3]);
            } else {
                (&raw mut (*c).user_ip4).write_volatile(w[3]);
            }
            (&raw mut (*c).user_port).write_volatile(u32::from(port));
        }
    }
}

/// The decisions' tables, as maps. Without the scratch room: these programs run for processes, which packets interrupt.
struct HostMaps<'a>(&'a SockAddrContext);

impl HostTables for HostMaps<'_> {
    #[inline(always)]
    fn publication(&self, key: &PublicationKey) -> Option<&Publication> {
        // SAFETY: userspace replaces entries as a whole, and a freed one stays readable while the program runs (RCU).
        unsafe { PUBLICATIONS.get(key) }
    }

    #[inline(always)]
    fn address(&self, addr: &Addr) -> Option<&Address> {
        // SAFETY: as for publications.
        unsafe { ADDRESSES.get(addr) }
    }

    #[inline(always)]
    fn generation(&self, slot: u32) -> u64 {
        RULES.get(slot).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn socket(&self) -> Option<&HostSocket> {
        // SAFETY: the kernel gives what the socket has, or nothing; two threads that use it at once see one or the other.
        unsafe { HOST_SOCKETS.get_ptr_mut(self.0).as_ref() }
    }

    #[inline(always)]
    fn remember(&self, socket: &HostSocket) {
        let mut socket = *socket;
        // SAFETY: as above. Where there was one already the kernel has left it as it was. A socket that has no memory left for it
        // is shown the container.
        unsafe {
            if let Some(own) = HOST_SOCKETS.get_or_insert_ptr_mut(self.0, Some(&mut socket)).as_mut() {
                *own = socket;
            }
        }
    }

    #[inline(always)]
    fn forget(&self) {
        // SAFETY: as above.
        if let Some(own) = unsafe { HOST_SOCKETS.get_ptr_mut(self.0).as_mut() } {
            own.generation = 0;
        }
    }

    #[inline(always)]
    fn peer(&self, key: &HostPeerKey) -> Option<&HostSocket> {
        // SAFETY: entries are this socket's alone; as above.
        unsafe { HOST_PEERS.get(key) }
    }

    #[inline(always)]
    fn remember_peer(&self, key: &HostPeerKey, socket: &HostSocket) {
        let _ = HOST_PEERS.insert(key, socket, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn forget_peer(&self, key: &HostPeerKey) {
        let _ = HOST_PEERS.remove(key);
    }
}
