//! sk_lookup of the host's network namespace: connections and datagrams to relayed ports go to the daemon's own sockets, which
//! are bound elsewhere. The ports themselves stay free for whoever wants to bind them.

use aya_ebpf::bindings::{bpf_sk_lookup, sk_action::SK_PASS};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use runtime_common::Addr;
use runtime_common::maps::{PublicationKey, RELAY_TCP, RELAY_UDP};
use runtime_common::packet::{TCP, UDP};

use crate::maps::{RELAY_SOCKETS, RELAYED};

const AF_INET6: u32 = 10;

/// The kernel calls it where no connected socket takes the packet, and before it looks for listening or unconnected ones. What is
/// not steered goes on to those; so does everything when the daemon and its sockets are gone.
#[sk_lookup]
pub fn relay_lookup(ctx: SkLookupContext) -> u32 {
    if let Some(slot) = relay(ctx.lookup) {
        let _ = RELAY_SOCKETS.redirect_sk_lookup(&ctx, slot, 0);
    }
    SK_PASS
}

/// The relay's socket for a packet, if its port is relayed: at the very address, or else at all of them.
#[inline(always)]
fn relay(c: *mut bpf_sk_lookup) -> Option<u32> {
    // SAFETY: fields of the program's own context, each read as one word: the kernel allows nothing else.
    let (family, protocol, port, words) = unsafe {
        (
            (&raw const (*c).family).read_volatile(),
            (&raw const (*c).protocol).read_volatile(),
            (&raw const (*c).local_port).read_volatile(),
            [
                (&raw const (*c).local_ip6[0]).read_volatile(),
                (&raw const (*c).local_ip6[1]).read_volatile(),
                (&raw const (*c).local_ip6[2]).read_volatile(),
                (&raw const (*c).local_ip6[3]).read_volatile(),
            ],
        )
    };
    if family != AF_INET6 {
        return None;
    }
    let protocol = protocol as u8;
    let slot = match protocol {
        TCP => RELAY_TCP,
        UDP => RELAY_UDP,
        _ => return None,
    };
    // The kernel tells this port, unlike all others, in host byte order.
    let mut key = PublicationKey { addr: Addr::words(words), port: (port as u16).to_be(), protocol, reserved: 0 };
    if is_relayed(&key) {
        return Some(slot);
    }
    key.addr = Addr::ANY_V6;
    is_relayed(&key).then_some(slot)
}

#[inline(always)]
fn is_relayed(key: &PublicationKey) -> bool {
    RELAYED.get_ptr(key).is_some()
}
