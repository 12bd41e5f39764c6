//! The kernel side of `runtime`.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    btf_maps::PerCpuArray,
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Packets seen.
#[btf_map]
static PACKETS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Counts a packet and lets it pass.
#[classifier]
pub fn uplink_ingress(_context: TcContext) -> i32 {
    match PACKETS.get_ptr_mut(0) {
        Some(count) => {
            // SAFETY: the slot belongs to this CPU, and a classifier is not interrupted by itself.
            unsafe { *count += 1 };
            TC_ACT_OK
        }
        None => TC_ACT_SHOT,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
