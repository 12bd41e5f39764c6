//! The kernel side of `runtime`: one file per hook, each short glue from context to decision to action.
//!
//! The decisions themselves are in `runtime_common::decide`.
//!
//! # A tour
//!
//! A file has the hook's name: `uplink_ingress`, `from_endpoint`, `to_endpoint`, `uplink_xdp`, `host_socket`, `relay_lookup`.
//! `stages` has what they call one after another, each a function that the verifier checks by itself; `tables` reads and
//! writes the `maps`; `fib`, `next_hop` and `kernel_lookup` ask the kernel for routes, neighbours and sockets; `skb` and `xdp` are
//! a packet's bytes in either form; `icmp_error` makes a packet an error about itself; `report` counts verdicts and tells of drops.
#![no_std]
#![no_main]

mod fib;
mod from_endpoint;
mod host_socket;
mod icmp_error;
mod kernel_lookup;
mod maps;
mod next_hop;
mod relay_lookup;
mod report;
mod skb;
mod stages;
mod tables;
mod to_endpoint;
mod uplink_ingress;
mod uplink_xdp;
mod xdp;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Several kernel helpers are for GPL-compatible programs alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
