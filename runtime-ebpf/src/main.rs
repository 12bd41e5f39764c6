//! The kernel side of `runtime`: one file per hook, each short glue from context to decision to action.
//!
//! The decisions themselves are in `runtime_common::decide`.
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
